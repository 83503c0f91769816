"""Which rows cannot have a partner in a join, and so need not be shipped.

A condition that is certain of an occurrence's rows (`filters`) may be an equality of a column of
its own and one of another occurrence: a row matters only if some row of the other one equals it,
and among the others' rows those that matter suffice. Such an equality is one of a join or of WHERE,
with an outer row, with a column of ``IN (SELECT ...)``, or stands inside an EXISTS.

SQL before:  SELECT ... FROM orders JOIN users ON orders.user_id = users.id WHERE users.score > 3
SQL shipped: SELECT ... FROM orders WHERE EXISTS (
                 SELECT 1 FROM users WHERE users.id = orders.user_id AND users.score > 3)

A column that an outer join has filled with NULLs equals nothing, so a partner is always a row. That
the other side's rows are fewer by then does no harm: rows that do not matter are left out one after
another, and each time the answer stays as it is.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, ColumnClause, Tuple
from sqlalchemy.sql.selectable import Exists, SelectBase

from sqlalchemy_shards.routing.equalities import equal_pairs
from sqlalchemy_shards.routing.predicates import SUBQUERIES
from sqlalchemy_shards.routing.reading import ungrouped

from .filters import Level, Occurrence

if TYPE_CHECKING:
    from collections.abc import Iterator


class Partner(NamedTuple):
    """An occurrence of which some row must equal each row that matters.

    :param pairs: keys of the columns that equal each other: one's own, and the other's.
    """

    other: Occurrence
    pairs: tuple[tuple[str, str], ...]


def partners_of(own: Occurrence) -> list[Partner]:
    """The partners that the rows of an occurrence must have, each one of them."""
    # Equalities with one and the same row of the other occurrence belong together.
    found: defaultdict[Any, dict[tuple[str, str], None]] = defaultdict(dict)
    for number, condition in enumerate(own.certain):
        for left, right in equal_pairs(condition):
            for one, other in ((left, right), (right, left)):
                mine, its = _resolved(one, own.level), _resolved(other, own.level)
                if mine and its and mine.occurrence is own and mine.is_plain:
                    found[its.element, its.occurrence][mine.key, its.key] = None
        for occurrence, key, its_key in _pairs_with_subquery(own, condition):
            found[number, occurrence][key, its_key] = None
    return [Partner(other, tuple(pairs)) for (_, other), pairs in found.items() if other is not own]


class _Resolved(NamedTuple):
    """What a plain column is.

    :param element: the FROM element that shows it.
    :param is_plain: it is the table, or an alias of it, and no SELECT.
    """

    element: Any
    occurrence: Occurrence
    key: str
    is_plain: bool


def _resolved(column: Any, level: Level) -> _Resolved | None:
    """Find the occurrence that a plain column's values come from, through SELECTs that show it."""
    if not isinstance(column, ColumnClause) or column.is_literal or column.table is None:
        return None
    at: Level | None = level
    while at is not None and column.table not in at.names:
        at = at.parent
    if at is None:
        return None
    named = at.names[column.table]
    if isinstance(named, Occurrence):
        return _Resolved((id(at), column.table), named, column.key, is_plain=True)
    shown: Any = None if named is None else _shown(column, named)
    inside = None if named is None else _resolved(shown, named)
    if inside is None:
        return None
    return inside._replace(element=(id(at), column.table), is_plain=False)


def _shown(column: ColumnClause[Any], level: Level) -> Any:
    """The expression inside a SELECT that one of its columns is."""
    outside: Any = column.table
    columns = tuple(outside.c)
    if len(columns) != len(level.columns):
        return None
    return next(
        (
            inside
            for each, inside in zip(columns, level.columns, strict=True)
            if each.key == column.key
        ),
        None,
    )


def _pairs_with_subquery(own: Occurrence, condition: Any) -> Iterator[tuple[Occurrence, str, str]]:
    """The occurrences in a subquery that a condition asks for a row of, and what is equal."""
    condition = ungrouped(condition)
    if isinstance(condition, Exists):
        level = _level_of(condition, own.level)
        if level is not None and level.stems_from_rows:
            yield from _pairs_inside(own, level)
    elif isinstance(condition, BinaryExpression) and condition.operator in (
        operators.eq,
        operators.in_op,
    ):
        for left, right in ((condition.left, condition.right), (condition.right, condition.left)):
            level = _level_of(right, own.level)
            if level is not None:
                yield from _pairs_compared(own, ungrouped(left), level)
                if level.stems_from_rows:
                    yield from _pairs_inside(own, level)


def _level_of(expression: Any, level: Level) -> Level | None:
    """The SELECT that a subquery is."""
    expression = ungrouped(expression)
    if getattr(expression, "operator", None) is operators.any_op:
        expression = ungrouped(expression.element)
    while isinstance(expression, SUBQUERIES):
        expression = expression.element
    if not isinstance(expression, SelectBase):
        return None
    return level.all_levels.get(id(expression))


def _pairs_compared(
    own: Occurrence, left: Any, level: Level
) -> Iterator[tuple[Occurrence, str, str]]:
    """What equals the columns of a subquery, one of whose rows is equal."""
    compared = tuple(left.clauses) if isinstance(left, Tuple) else (left,)
    if len(compared) != len(level.columns):
        return
    for one, other in zip(compared, level.columns, strict=True):
        mine, its = _resolved(one, own.level), _resolved(other, level)
        if mine and its and mine.occurrence is own and mine.is_plain:
            yield its.occurrence, mine.key, its.key


def _pairs_inside(own: Occurrence, level: Level) -> Iterator[tuple[Occurrence, str, str]]:
    """What is equal wherever a SELECT inside gives a row that stems from rows of its FROM list."""
    for condition in level.certain:
        for left, right in equal_pairs(condition):
            for one, other in ((left, right), (right, left)):
                mine, its = _resolved(one, level), _resolved(other, level)
                if mine and its and mine.occurrence is own and mine.is_plain:
                    yield its.occurrence, mine.key, its.key
