"""Types and collations of tables' columns, as the catalogs have them.

What the model says of a column is not believed: rows that are shipped from shard to workspace must
have there the types that they had. One shard is asked, once for each table.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    import psycopg

_COLUMNS = """
SELECT a.attname,
       format('%%I.%%I', tn.nspname, t.typname),
       CASE WHEN a.attcollation <> 0 AND co.collname <> 'default'
            THEN format('%%I.%%I', cn.nspname, co.collname) END,
       pg_catalog.format_type(b.oid, NULL)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""


class ColumnType(NamedTuple):
    """How a column keeps its values.

    :param sql: the type as SQL names it, with its schema and without length or precision.
    :param collation: the collation as SQL names it; None: the database's own, or none.
    :param base: the type in words, that of a domain below it.
    """

    sql: str
    collation: str | None
    base: str


class ColumnTypes:
    """What is known of the columns of a cluster's tables. Thread-safe.

    :param connect: opens a connection to a shard.
    """

    def __init__(
        self, connect: Callable[[str], AbstractContextManager[psycopg.Connection[Any]]]
    ) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._tables: dict[str, Mapping[str, ColumnType]] = {}

    def of_table(self, name: str, shard: str) -> Mapping[str, ColumnType]:
        """Column name -> type, as ``shard`` has them; empty: it has no such table.

        :param name: the table, as SQL names it.
        """
        with self._lock:
            known = self._tables.get(name)
        if known is None:
            with self._connect(shard) as connection:
                rows = connection.execute(_COLUMNS, (name,)).fetchall()
            known = {row[0]: ColumnType(*row[1:]) for row in rows}
            if known:
                with self._lock:
                    self._tables[name] = known
        return known
