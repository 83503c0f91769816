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
from sqlalchemy.sql.selectable import Exists

from sqlalchemy_shards.routing.equalities import equal_pairs
from sqlalchemy_shards.routing.reading import ungrouped
from sqlalchemy_shards.routing.scopes import Occurrence

from .filters import certain_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeAlias

    from sqlalchemy_shards.routing.scopes import Scope

    from .made import Made

    _Equal: TypeAlias = "Iterator[tuple[_Resolved, _Resolved]]"


class Partner(NamedTuple):
    """An occurrence of which some row must equal each row that matters.

    :param pairs: keys of the columns that equal each other: one's own, and the other's.
    :param condition: it asks for a row in a subquery; None: the two are in one FROM list.
    """

    other: Occurrence
    pairs: tuple[tuple[str, str], ...]
    condition: Any = None


class MadePartner(NamedTuple):
    """The same of a block that the shards make rows of, in place of its tables' rows.

    :param pairs: keys of one's own columns, and the names of the columns that are made.
    :param inside: of the pairs whose other columns are columns of occurrences: these occurrences,
        and the pairs of keys.
    """

    made: Made
    pairs: tuple[tuple[str, str], ...]
    condition: Any
    inside: tuple[tuple[Occurrence, tuple[str, str]], ...]


class Partners(NamedTuple):
    """What the rows of an occurrence must have: each of these partners."""

    occurrences: Sequence[Partner] = ()
    made: Sequence[MadePartner] = ()


def partners_of(own: Occurrence, made: Mapping[Any, Made]) -> Partners:
    """The partners that the rows of an occurrence must have.

    :param made: SELECT -> what the shards make of it.
    """
    # Equalities with one and the same row of the other occurrence belong together.
    found: defaultdict[Any, dict[tuple[str, str], _Resolved]] = defaultdict(dict)
    subqueries: dict[Any, Any] = {}
    side = _Side(own, own.scope, made)
    for number, condition in enumerate(certain_of(own)):
        for mine, its in _equal_in(condition, side, own.scope):
            found[its.element, its.rows][mine.key, its.key] = its
        for mine, its in _equal_in_subquery(condition, side):
            subqueries[number] = condition
            found[number, its.rows][mine.key, its.key] = its
    partners, of_blocks = [], []
    for (by, other), pairs in found.items():
        if not isinstance(other, Occurrence):
            inside = tuple(_inside(pairs))
            of_blocks.append(MadePartner(other, tuple(pairs), subqueries.get(by), inside))
        elif other is not own:
            partners.append(Partner(other, tuple(pairs), subqueries.get(by)))
    return Partners(partners, of_blocks)


def _inside(
    pairs: Mapping[tuple[str, str], _Resolved],
) -> Iterator[tuple[Occurrence, tuple[str, str]]]:
    for (mine, _), its in pairs.items():
        inside = its.inside
        if inside is not None and isinstance(inside.rows, Occurrence):
            yield inside.rows, (mine, inside.key)


class _Resolved(NamedTuple):
    """What a plain column is.

    :param element: the FROM element that shows it, and the SELECT in whose FROM list that is.
    :param rows: whose column it is.
    :param is_plain: it is the table, or an alias of it, and no SELECT.
    :param inside: of a block, what it is there.
    """

    element: Any
    rows: Occurrence | Made
    key: str
    is_plain: bool
    inside: _Resolved | None = None


class _Side(NamedTuple):
    """Where one's own columns are looked up.

    :param made: SELECT -> what the shards make of it.
    """

    own: Occurrence
    scope: Scope
    made: Mapping[Any, Made]

    def resolved(self, column: Any, scope: Scope) -> _Resolved | None:
        """Find whose a plain column is, through SELECTs that show it."""
        holder = scope.holder_of(column)
        if holder is None:
            return None
        element, named = (id(holder), column.table), holder.names[column.table]
        if isinstance(named, Occurrence):
            return _Resolved(element, named, column.key, is_plain=True)
        if named is None or len(named.selects) != 1:
            return None
        (select,) = named.selects
        number = _number_of(column, select)
        return None if number is None else self.shown(number, select, element)

    def shown(self, number: int, select: Scope, element: Any = None) -> _Resolved | None:
        """Find whose a column of a SELECT is.

        :param element: as what it is named; None: in a subquery that is asked for a row.
        """
        inside = self.resolved(select.columns[number], select)
        made = self.made.get(select.select)
        if made is not None and len(made.shown) == len(select.columns):
            name = made.shown[number]
            if name is not None:
                return _Resolved(element, made, name, is_plain=False, inside=inside)
        if inside is None or element is None:
            return inside
        return inside._replace(element=element, is_plain=False)


def _number_of(column: ColumnClause[Any], select: Scope) -> int | None:
    """Which column of a SELECT is meant by one of a FROM element."""
    outside: Any = column.table
    keys = [each.key for each in outside.c]
    if len(keys) != len(select.columns) or column.key not in keys:
        return None
    return keys.index(column.key)


def _equal_in(condition: Any, side: _Side, scope: Scope) -> _Equal:
    """The columns of an occurrence that a condition, being true, makes equal to others."""
    for left, right in equal_pairs(condition):
        for one, other in ((left, right), (right, left)):
            yield from _equal(side, one, scope, side.resolved(other, scope))


def _equal(side: _Side, one: Any, scope: Scope, its: _Resolved | None) -> _Equal:
    mine = side.resolved(one, scope)
    if mine and its and mine.rows is side.own and mine.is_plain:
        yield mine, its


def _equal_in_subquery(condition: Any, side: _Side) -> _Equal:
    """The same of occurrences in a subquery that a condition asks for a row of."""
    condition = ungrouped(condition)
    if isinstance(condition, Exists):
        yield from _equal_inside(condition, side)
    elif isinstance(condition, BinaryExpression) and condition.operator in (
        operators.eq,
        operators.in_op,
    ):
        for left, right in ((condition.left, condition.right), (condition.right, condition.left)):
            yield from _equal_to_columns(ungrouped(left), right, side)
            yield from _equal_inside(right, side)


def asks_for_row(condition: Any) -> bool:
    """Whether a condition, being true, says that a subquery gives a row."""
    condition = ungrouped(condition)
    is_in = isinstance(condition, BinaryExpression) and condition.operator is operators.in_op
    return is_in or isinstance(condition, Exists)


def _selects_of(expression: Any, scope: Scope) -> tuple[Scope, ...]:
    """The SELECT that a subquery is; of a set operation none."""
    expression = ungrouped(expression)
    if getattr(expression, "operator", None) is operators.any_op:
        expression = ungrouped(expression.element)
    selects = scope.selects_of(expression)
    return selects if len(selects) == 1 else ()


def _equal_to_columns(left: Any, subquery: Any, side: _Side) -> _Equal:
    """What equals the columns of a subquery, one of whose rows is equal."""
    compared = tuple(left.clauses) if isinstance(left, Tuple) else (left,)
    for select in _selects_of(subquery, side.scope):
        if len(compared) == len(select.columns):
            for number, one in enumerate(compared):
                yield from _equal(side, one, side.scope, side.shown(number, select))


def _equal_inside(subquery: Any, side: _Side) -> _Equal:
    """What is equal wherever a SELECT inside gives a row that stems from rows of its FROM list."""
    for select in _selects_of(subquery, side.scope):
        for condition in select.certain if select.stems_from_rows else ():
            yield from _equal_in(condition, side, select)
