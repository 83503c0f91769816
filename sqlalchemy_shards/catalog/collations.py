"""Which text columns order as Python orders strings: by code point.

What the model says of a column is not believed; the catalogs of all shards are asked, once for
each table, and only when an order has to be merged.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Table
from sqlalchemy.sql.elements import BinaryExpression, CollationClause, ColumnClause

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import psycopg

_BYTE_ORDER = frozenset({"C", "POSIX", "ucs_basic", "pg_c_utf8"})

_COLUMNS = """
SELECT a.attname,
       CASE WHEN c.collname = 'default' THEN NULL
            WHEN c.collnamespace = 'pg_catalog'::regnamespace THEN c.collname
            ELSE 'of the application' END,
       c.collprovider
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""

_DATABASE = """
SELECT d.datcollate, d.datlocprovider, pg_encoding_to_char(d.encoding)
FROM pg_catalog.pg_database d WHERE d.datname = current_database()
"""

_DATABASE_BEFORE_15 = _DATABASE.replace("d.datlocprovider", "'c'")


class Collations:
    """What is known of the collations of a cluster's tables. Thread-safe.

    :param shards: names of all shards: one of them may have been set up differently.
    :param connect: opens a connection to a shard.
    :param quote: writes a table's name as SQL does.
    """

    def __init__(
        self,
        shards: Sequence[str],
        connect: Callable[[str], AbstractContextManager[psycopg.Connection[Any]]],
        quote: Callable[[Table], str],
    ) -> None:
        self._shards = shards
        self._connect = connect
        self._quote = quote
        self._lock = threading.Lock()
        self._tables: dict[str, dict[str, bool]] = {}
        self._is_utf8: bool | None = None

    def orders_by_code_point(self, expression: Any) -> bool:
        """Whether a text expression certainly sorts as Python strings do.

        True for a plain column whose collation says so, and for ``collate(..., "C")``.
        """
        if isinstance(expression, BinaryExpression) and isinstance(
            expression.right, CollationClause
        ):
            name = str(expression.right.collation).strip('"')
            return name in _BYTE_ORDER and self._keeps_text_as_utf8()
        if not isinstance(expression, ColumnClause) or expression.table is None:
            return False
        table: Any = getattr(expression.table, "element", expression.table)
        if not isinstance(table, Table):
            return False
        column = table.c.get(expression.key)
        return column is not None and self._columns_of(table).get(column.name, False)

    def _columns_of(self, table: Table) -> dict[str, bool]:
        name = self._quote(table)
        with self._lock:
            known = self._tables.get(name)
        if known is None:
            on_shards = [self._read(shard, name) for shard in self._shards]
            known = {
                column: all(each.get(column, False) for each in on_shards)
                for column in on_shards[0]
            }
            if known:
                with self._lock:
                    self._tables[name] = known
        return known

    def _keeps_text_as_utf8(self) -> bool:
        """Whether bytes order as code points on every shard; in other encodings they do not."""
        with self._lock:
            known = self._is_utf8
        if known is None:
            known = all(self._database(shard).encoding == "UTF8" for shard in self._shards)
            with self._lock:
                self._is_utf8 = known
        return known

    def _database(self, shard: str) -> _Database:
        with self._connect(shard) as connection:
            return _database(connection)

    def _read(self, shard: str, name: str) -> dict[str, bool]:
        with self._connect(shard) as connection:
            database = _database(connection)
            rows = connection.execute(_COLUMNS, (name,)).fetchall()
        return {
            column: database.orders_by_code_point
            if collation is None
            else database.encoding == "UTF8" and _is_byte_order(collation, provider)
            for column, collation, provider in rows
        }


def _is_byte_order(collation: str, provider: str | bytes) -> bool:
    provider = provider.decode() if isinstance(provider, bytes) else provider
    return provider in ("c", "b", "d") and collation in _BYTE_ORDER


class _Database(NamedTuple):
    """How a database keeps and sorts text."""

    encoding: str
    orders_by_code_point: bool


def _database(connection: psycopg.Connection[Any]) -> _Database:
    query = _DATABASE if connection.info.server_version >= 150000 else _DATABASE_BEFORE_15
    row = connection.execute(query).fetchone()
    assert row is not None
    collate, provider, encoding = row
    provider = provider.decode() if isinstance(provider, bytes) else provider
    # Provider "b" (PostgreSQL 17) compares bytes under every locale it has.
    by_bytes = provider == "b" or (provider == "c" and collate in ("C", "POSIX"))
    return _Database(encoding, by_bytes and encoding == "UTF8")
