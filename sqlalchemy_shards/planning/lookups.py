"""Which columns a statement looks rows up by, once for each row of another SELECT.

A correlated subquery that PostgreSQL does not turn into a join reads its table again for each row
outside. An application has an index for that; at the workspace, where tables are new, one is made.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards.routing.equalities import equal_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Table

    from sqlalchemy_shards.catalog.columns import ColumnType
    from sqlalchemy_shards.routing.scopes import Occurrence, Scope

INDEXED: Final = frozenset(
    """
    bigint bpchar bytea character date integer numeric smallint text uuid
    """.split()
) | {"character varying", "timestamp with time zone", "timestamp without time zone"}
"""Types of which a column can certainly have an index."""


def lookups_of(found: Mapping[Table, Sequence[Occurrence]]) -> Mapping[Table, frozenset[str]]:
    """Table -> names of its columns that equal something outside of the SELECT that it is in.

    :param found: the occurrences of each table.
    """
    lookups: defaultdict[Table, set[str]] = defaultdict(set)
    for table, occurrences in found.items():
        for occurrence in occurrences:
            lookups[table].update(_looked_up(occurrence))
    return {table: frozenset(names) for table, names in lookups.items()}


def indexed(
    columns: Iterable[str], types: Mapping[str, ColumnType], lookups: Iterable[str]
) -> tuple[str, ...]:
    """Those of the columns that rows are looked up by, and that can have an index."""
    wanted = set(lookups)
    return tuple(name for name in columns if name in wanted and types[name].base in INDEXED)


def _looked_up(occurrence: Occurrence) -> Iterable[str]:
    scope = occurrence.scope
    if scope.parent is None:
        return
    for condition in scope.certain:
        for left, right in equal_pairs(condition):
            for own, other in ((left, right), (right, left)):
                if _is_of(own, occurrence) and _is_outside(other, scope):
                    yield own.name


def _is_of(column: Any, occurrence: Occurrence) -> bool:
    return isinstance(column, ColumnClause) and bool(column.table == occurrence.element)


def _is_outside(expression: Any, scope: Scope) -> bool:
    columns = [node for node in iterate(expression) if isinstance(node, ColumnClause)]
    return bool(columns) and not any(column.table in scope.names for column in columns)
