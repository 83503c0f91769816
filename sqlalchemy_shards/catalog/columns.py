"""Types and collations of tables' columns, as the catalogs have them.

What the model says of a column is not believed: values that are shipped from shard to workspace
must have there the types that they had. All shards are asked at once, once for each table; a column
that they keep differently, or that only some of them have, is not known. Who misses one may look
again.
"""

from __future__ import annotations

import threading
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy_shards.connections.fan_out import branch_for_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import psycopg

    from sqlalchemy_shards.connections.fan_out import FanOut

    _OnShard = dict[str, tuple["ColumnType", bool]]

LOOK_AGAIN_SECONDS: Final = 5.0
"""How long it takes until it is noticed that all shards have a column that some did not have."""

_SORTS = """pg_catalog.concat_ws(
    ' ', d.datcollate, d.datctype, d.encoding, to_jsonb(d) ->> 'datlocprovider',
    coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale')
)"""
BYTE_ORDER: Final = ("C", "POSIX", "ucs_basic", "pg_c_utf8")
"""PostgreSQL's own collations that compare the bytes of text."""

# Provider "b" (PostgreSQL 17) compares bytes under every locale it has.
_SORTS_BY_CODE_POINT = f"""
pg_catalog.pg_encoding_to_char(d.encoding) = 'UTF8' AND CASE
    WHEN co.collname = 'default'
    THEN coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'b'
      OR coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c' AND d.datcollate IN ('C', 'POSIX')
    ELSE co.collnamespace = 'pg_catalog'::pg_catalog.regnamespace
     AND co.collprovider IN ('b', 'c', 'd') AND co.collname IN {BYTE_ORDER}
END"""
_DATABASE = f"""
SELECT {_SORTS} FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""
_DESCRIBED = f"""
WITH RECURSIVE
columns (attname, atttypid, attcollation, attnum) AS (<columns>),
held (attname, oid, is_domain) AS (
    SELECT attname, atttypid, true FROM columns
    UNION
    SELECT h.attname, i.oid, h.is_domain AND t.typtype = 'd'
    FROM held h JOIN pg_catalog.pg_type t ON t.oid = h.oid CROSS JOIN LATERAL (
        SELECT t.typbasetype WHERE t.typtype = 'd'
        UNION ALL SELECT t.typelem WHERE t.typelem <> 0 AND t.typtype <> 'd'
        UNION ALL SELECT m.atttypid FROM pg_catalog.pg_attribute m
        WHERE t.typtype = 'c' AND m.attrelid = t.typrelid
          AND m.attnum > 0 AND NOT m.attisdropped
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r
        WHERE t.oid IN (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)
    ) AS i (oid)
)
SELECT a.attname,
       format('%%I.%%I', tn.nspname, t.typname),
       CASE WHEN a.attcollation <> 0 AND co.collname <> 'default'
            THEN format('%%I.%%I', cn.nspname, co.collname) END,
       i.base,
       CASE WHEN a.attcollation <> 0 AND co.collname = 'default'
            THEN {_SORTS} END,
       i.types,
       {_SORTS_BY_CODE_POINT},
       coalesce(co.collisdeterministic, true),
       i.is_enum
FROM columns a
JOIN (
    SELECT h.attname,
           pg_catalog.array_agg(pg_catalog.format_type(h.oid, NULL)) AS types,
           pg_catalog.min(pg_catalog.format_type(h.oid, NULL))
               FILTER (WHERE h.is_domain AND b.typtype <> 'd') AS base,
           pg_catalog.bool_or(h.is_domain AND b.typtype = 'e') AS is_enum
    FROM held h JOIN pg_catalog.pg_type b ON b.oid = h.oid
    GROUP BY h.attname
) AS i ON i.attname = a.attname
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
ORDER BY a.attnum
"""
_COLUMNS: Final = _DESCRIBED.replace(
    "<columns>",
    """
    SELECT a.attname, a.atttypid, a.attcollation, a.attnum
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
    """,
)
_TYPES: Final = _DESCRIBED.replace(
    "<columns>", "SELECT * FROM unnest(%s::text[], %s::oid[], %s::oid[]) WITH ORDINALITY"
)


class ColumnType(NamedTuple):
    """How a column keeps its values.

    :param sql: the type as SQL names it, with its schema and without length or precision.
    :param collation: the collation as SQL names it; None: the database's own, or none.
    :param base: the type in words, that of a domain below it.
    :param holds: the type and all types inside it, in words: of domains, arrays, ranges and rows.
    :param database: how the database sorts, where its own collation is the column's.
    :param is_deterministic: its collation, if it has one, calls only the same characters equal.
    :param is_enum: it is an enum, or a domain over one.
    """

    sql: str
    collation: str | None
    base: str
    database: str | None = None
    holds: frozenset[str] = frozenset()
    is_deterministic: bool = False
    is_enum: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it is text, each character of which counts."""
        return self.base in ("character varying", "name", "text")

    @property
    def is_padded(self) -> bool:
        """Whether it is ``char(n)``, or a domain over it: blanks at the end mean nothing."""
        return self.base in ("character", "bpchar")


class TableColumns(NamedTuple):
    """What the shards have of a table.

    :param types: column -> type, as all shards that have the table keep it; in the order that
        they have on the first of them.
    :param ordered_by_code_point: columns of text that sort on all shards as Python's strings do.
    """

    types: Mapping[str, ColumnType]
    ordered_by_code_point: frozenset[str]


class ColumnTypes:
    """What is known of the columns of a cluster's tables. Thread-safe.

    :param shards: names of all shards.
    :param connect: opens a connection to a shard.
    :param fan_out: asks the shards.
    """

    def __init__(
        self,
        shards: Sequence[str],
        connect: Callable[[str], AbstractContextManager[psycopg.Connection[Any]]],
        fan_out: FanOut,
    ) -> None:
        self._shards = shards
        self._connect = connect
        self._fan_out = fan_out
        self._lock = threading.Lock()
        self._tables: dict[str, TableColumns] = {}
        self._looked_again: dict[str, float] = {}

    def of_table(self, name: str) -> TableColumns:
        """What the shards have of a table; they may have none.

        :param name: the table, as SQL names it.
        """
        with self._lock:
            known = self._tables.get(name)
        return self._look(name) if known is None else known

    def knows(self, name: str) -> bool:
        """Whether anything is known of a table, without looking."""
        return name in self._tables

    def look_again(self, name: str) -> TableColumns:
        """What the shards have of a table now, or had when it was last looked at again."""
        with self._lock:
            known, now = self._tables.get(name), monotonic()
            due = self._looked_again.get(name, now) <= now
            if due or known is None:
                self._looked_again[name] = now + LOOK_AGAIN_SECONDS
        return self._look(name) if due or known is None else known

    def _look(self, name: str) -> TableColumns:
        reads = branch_for_each(self._shards, partial(self._read, name))
        on_shards = [outcome.result() for outcome in self._fan_out.run(reads)]
        known = TableColumns(_alike(on_shards), _ordered_by_code_point(on_shards))
        if any(on_shards):
            with self._lock:
                self._tables[name] = known
        return known

    def _read(self, table: str, shard: str) -> _OnShard:
        with self._connect(shard) as connection:
            rows = connection.execute(_COLUMNS.encode(), (table,)).fetchall()
        return _as_types(rows)


def _as_types(rows: Iterable[Any]) -> _OnShard:
    return {
        name: (ColumnType(sql, collation, base, database, frozenset(holds), *told), is_ordered)
        for name, sql, collation, base, database, holds, is_ordered, *told in rows
    }


def _alike(on_shards: Sequence[_OnShard]) -> dict[str, ColumnType]:
    # A global table is on one shard only.
    found = [each for each in on_shards if each]
    return {
        column: type_
        for column, (type_, _) in (found[0] if found else {}).items()
        if all(column in other and other[column][0] == type_ for other in found)
    }


def _ordered_by_code_point(on_shards: Sequence[_OnShard]) -> frozenset[str]:
    ordered = [
        # Blanks at the end of a char(n) do not count; those of a string of Python do.
        {name for name, (type_, is_ordered) in each.items() if is_ordered and not type_.is_padded}
        for each in on_shards
    ]
    return frozenset(set.intersection(*ordered))


def types_by_oid(
    connection: psycopg.Connection[Any], known: Mapping[str, tuple[int, int]]
) -> dict[str, ColumnType]:
    """Describe values by the OIDs of their types and collations.

    :param known: a name for each, type and collation; no collation is 0.
    """
    oids = [type_ for type_, _ in known.values()]
    collations = [collation for _, collation in known.values()]
    rows = connection.execute(_TYPES.encode(), (list(known), oids, collations)).fetchall()
    return {name: type_ for name, (type_, _) in _as_types(rows).items()}


def sorting_of(connection: psycopg.Connection[Any]) -> str:
    """How a database sorts text that has no other collation."""
    row = connection.execute(_DATABASE.encode()).fetchone()
    assert row is not None
    return str(row[0])
