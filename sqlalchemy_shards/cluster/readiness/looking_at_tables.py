"""Asks one shard for its tables: those of the models, and those that nobody declared."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg.rows import tuple_row

from sqlalchemy_shards.catalog.definitions import read_definitions

from .seen import ColumnSeen, TableSeen, TablesSeen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy_shards.catalog.definitions import Definition

    from .seen import TableExpected

# Not to_regclass(): it raises where the role may not use the schema.
_TABLES: Final = """
SELECT c.oid::bigint, n.nspname, c.relname,
       pg_catalog.pg_table_is_visible(c.oid),
       c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_depend d
           WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.objid = c.oid AND d.deptype = 'e'),
       ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p
             WHERE NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                OR NOT pg_catalog.has_table_privilege(c.oid, p))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')
  AND n.nspname NOT IN ('information_schema', 'shards') AND n.nspname !~ '^pg_'
ORDER BY 2, 3
"""

_TYPES: Final = """
SELECT pg_catalog.format_type(oid, modifier)
FROM unnest(%s::oid[], %s::int[]) WITH ORDINALITY AS t (oid, modifier, place) ORDER BY place
"""

_OF_TOOLS: Final = frozenset({"alembic_version"})
"""Tables of tools that no model knows."""


def look_at_tables(driver: psycopg.Connection[Any], wanted: Sequence[TableExpected]) -> TablesSeen:
    """Return the tables that ``wanted`` names, the names of all others, and the own types."""
    with driver.cursor(row_factory=tuple_row) as cursor:
        rows = [_Row(*row) for row in cursor.execute(_TABLES)]
    by_name: dict[tuple[str | None, str], _Row] = {(row.schema, row.relation): row for row in rows}
    by_name |= {(None, row.relation): row for row in rows if row.is_visible}
    found = {table.name: by_name.get((table.schema, table.relation)) for table in wanted}
    oids = {row.oid for row in found.values() if row is not None}
    defined: defaultdict[str | None, list[Definition]] = defaultdict(list)
    for each in read_definitions(driver, ("type", "column", "constraint", "index")):
        defined[each.table].append(each)
    known = {
        name: None if row is None else _seen(defined[row.name], row.lacking)
        for name, row in found.items()
    }
    others = [
        row.name
        for row in rows
        if row.is_own and row.oid not in oids and row.relation not in _OF_TOOLS
    ]
    types = {column.type for table in wanted for column in table.columns.values()}
    return TablesSeen(
        known,
        _types(driver, sorted(types)),
        tuple(others),
        {each.name: json.loads(each.facts).get("definition", "") for each in defined[None]},
    )


class _Row(NamedTuple):
    """A table as the catalog has it; ``is_own``: a user's own, with rows of its own."""

    oid: int
    schema: str
    relation: str
    is_visible: bool
    is_own: bool
    lacking: list[str]

    @property
    def name(self) -> str:
        """As the search path has it."""
        return self.relation if self.is_visible else f"{self.schema}.{self.relation}"


def _seen(definitions: Sequence[Definition], lacking: Sequence[str]) -> TableSeen:
    """A table, of what belongs to it; its rules are what enforces or orders, however named."""
    facts = [(each, json.loads(each.facts)) for each in definitions]
    return TableSeen(
        {
            each.name: ColumnSeen(known["type"], known["nullable"] == "yes", known.get("collation"))
            for each, known in facts
            if each.kind == "column"
        },
        frozenset(known["definition"] for each, known in facts if each.kind != "column"),
        tuple(lacking),
    )


def _types(driver: psycopg.Connection[Any], types: Sequence[str]) -> dict[str, str]:
    """Types as the models write them -> as PostgreSQL does; without those it does not know."""
    try:
        return _written(driver, types)
    except psycopg.Error:
        known: dict[str, str] = {}
        for each in types:
            with suppress(psycopg.Error):
                known |= _written(driver, [each])
        return known


def _written(driver: psycopg.Connection[Any], types: Sequence[str]) -> dict[str, str]:
    if not types:
        return {}
    nulls = ", ".join(f"NULL::{each}" for each in types)
    with driver.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(f"SELECT {nulls} LIMIT 0".encode())
        result = cursor.pgresult
        assert result is not None
        places = range(len(types))
        oids = [result.ftype(place) for place in places]
        modifiers = [result.fmod(place) for place in places]
        rows = cursor.execute(_TYPES, (oids, modifiers)).fetchall()
    return dict(zip(types, (name for (name,) in rows), strict=True))
