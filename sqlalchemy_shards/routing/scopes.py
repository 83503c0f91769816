"""The FROM lists of a statement: which occurrences of tables it reads, and what names them.

A `Scope` is one SELECT (or UPDATE, DELETE) with its FROM elements; a subquery's scope has the
enclosing one as its parent, for correlated columns. Each place of a table in a FROM list is an
`Occurrence`; those of sharded tables are `Source`s, whose conditions decide a route. A `Place` is
the column of a source that a column stands for.

What a name means, what is certain of the rows of an occurrence and of a SELECT, is found once, for
routing and for planning.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Table
from sqlalchemy.sql.elements import ClauseList, ColumnClause, Tuple
from sqlalchemy.sql.selectable import (
    AliasedReturnsRows,
    Exists,
    FromGrouping,
    Join,
    ScalarSelect,
    SelectStatementGrouping,
)

from sqlalchemy_shards import _compat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.sql.selectable import FromClause, Select

    from sqlalchemy_shards.models.distribution import Distribution, Sharded
    from sqlalchemy_shards.models.key_types import KeyFamily

    from .conditions import KeyCondition


class Place(NamedTuple):
    """A column of a source.

    :param source: index of the source.
    :param column: key of the column in its table.
    :param part: which part of the shard key it is, if any.
    :param is_own: the FROM element that shows it stands in this scope, not in an enclosing one.
    :param is_shown: rows of the source with other values of the column make no difference to rows
        with this one, so that a condition on the column restricts the source.
    :param is_alternative: the column may be one of another source instead, as in a UNION.
    """

    source: int
    column: str
    part: int | None
    is_own: bool = True
    is_shown: bool = True
    is_alternative: bool = False

    @property
    def is_direct(self) -> bool:
        """Whether a condition of this scope on the column restricts the source."""
        return self.is_own and self.is_shown


@dataclass(slots=True, eq=False)
class Source:
    """One occurrence of a sharded table while a statement is analysed.

    :param is_eligible_root: it stands in the outermost FROM list, and no outer join fills it with
        NULLs.
    :ivar is_filled: an outer join may fill it with NULLs.
    """

    index: int
    name: str
    table: Table
    sharded: Sharded
    families: tuple[KeyFamily, ...]
    is_eligible_root: bool
    is_filled: bool = False
    conditions: list[KeyCondition] = field(default_factory=list)

    def place(self, column: str) -> Place:
        """Where a column of this source is."""
        key = self.sharded.key
        return Place(self.index, column, key.index(column) if column in key else None)


@dataclass(frozen=True, slots=True, eq=False)
class Occurrence:
    """One place of a table in a FROM list.

    :param element: the table itself, or an alias of it.
    :param scope: the SELECT whose FROM list it stands in.
    :param certain: what its rows must meet to have any part in the answer, all of it.
    :param source: the source that it is, if the table is sharded.
    """

    table: Table
    distribution: Distribution
    element: FromClause
    scope: Scope
    certain: tuple[Any, ...]
    source: Source | None


class Standing(NamedTuple):
    """How an element stands in a FROM list.

    :param is_kept: in the outermost one, and no outer join fills it with NULLs.
    :param is_inner: no outer join of its own FROM list fills it.
    :param certain: what every one of its rows must meet to have any part in the answer.
    """

    is_kept: bool = False
    is_inner: bool = True
    certain: tuple[Any, ...] = ()


@dataclass(slots=True, eq=False)
class Derived:
    """A subquery or CTE in a FROM list.

    :param places: for each of its columns, in order, the places inside that it shows unchanged: of
        a set operation several, one of each member.
    :param sources: sources inside it.
    :param is_simple: each of its rows is a row of its sources, filtered and projected.
    :param is_local: each of its rows comes from rows with one and the same whole shard key.
    :param is_shared: it is named several times, so that no condition on one of them restricts it.
    :param columns: the same places by the keys of the columns outside.
    :param selects: each of its rows is one of these SELECTs; none: that is not known.
    """

    places: tuple[tuple[Place, ...], ...] = ()
    sources: frozenset[int] = frozenset()
    is_simple: bool = False
    is_local: bool = False
    is_shared: bool = False
    columns: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    selects: tuple[Scope, ...] = ()

    def named(self, element: FromClause) -> Derived:
        """The same under the name of a FROM element, with that element's columns."""
        columns = tuple(element.c)
        if len(columns) != len(self.places):
            return replace(self, places=())
        shown = zip(columns, self.places, strict=True)
        return replace(self, columns={column.key: places for column, places in shown})


class OuterJoin(NamedTuple):
    """A LEFT JOIN, which WHERE may turn into an inner one.

    :param left: sources of the preserved side.
    :param right: sources of the side that is filled with NULLs.
    """

    onclause: Any
    left: frozenset[int]
    right: frozenset[int]


class Subquery(NamedTuple):
    """A query in an expression.

    :param query: it is held, since it is known by its id.
    :param selects: each of its rows is one of these SELECTs; none: that is not known.
    """

    query: Any
    selects: tuple[Scope, ...]


@dataclass(slots=True, eq=False)
class Scope:
    """One SELECT: what its expressions can name, and what is certain of it.

    :param parent: the one around it, whose names its expressions can use as well.
    :ivar select: what it was found as, before the ORM has worked on it; None: no SELECT.
    :ivar names: FROM element -> what it is; None: nothing whose rows are looked into.
    :ivar own: sources that a condition of this SELECT restricts.
    :ivar certain: what every combination of rows of its FROM list meets that its rows are made of.
    :ivar columns: what it selects.
    :ivar group_by: what it groups by.
    :ivar stems_from_rows: it gives no row but of such combinations.
    :ivar subqueries: those in its expressions, by the id of the query.
    """

    parent: Scope | None = None
    select: Any = None
    enclosing: frozenset[FromClause] = frozenset()
    directly_enclosing: frozenset[FromClause] = frozenset()
    names: dict[FromClause, Occurrence | Derived | None] = field(default_factory=dict)
    own: set[int] = field(default_factory=set)
    certain: list[Any] = field(default_factory=list)
    outer_joins: list[OuterJoin] = field(default_factory=list)
    columns: Sequence[Any] = ()
    group_by: Sequence[Any] = ()
    stems_from_rows: bool = False
    subqueries: dict[int, Subquery] = field(default_factory=dict)

    def selects_of(self, subquery: Any) -> tuple[Scope, ...]:
        """The SELECTs one of which each row of a subquery in its expressions is."""
        found = self.subqueries.get(id(unwrapped_query(subquery)))
        return () if found is None else found.selects

    def places(self, column: Any) -> tuple[Place, ...]:
        """The places of a plain column, looked up here and in the enclosing scopes."""
        scope = self.holder_of(column)
        return () if scope is None else scope._places(column, is_own=scope is self)

    def holder_of(self, column: Any) -> Scope | None:
        """The scope that a plain column belongs to: this one, or the nearest enclosing one."""
        if not isinstance(column, ColumnClause) or column.is_literal or column.table is None:
            return None
        scope: Scope | None = self
        while scope is not None and column.table not in scope.names:
            scope = scope.parent
        return scope

    def _places(self, column: ColumnClause[Any], *, is_own: bool) -> tuple[Place, ...]:
        element = self.names[column.table]  # type: ignore[index]
        if isinstance(element, Derived):
            inside = element.columns.get(column.key, ())
            return tuple(place._replace(is_own=is_own) for place in inside)
        if element is None or element.source is None:
            return ()
        return (element.source.place(column.key)._replace(is_own=is_own),)


def leaves(element: FromClause) -> list[FromClause]:
    """The FROM elements that can be correlated to: an element, and what a join is made of."""
    if isinstance(element, FromGrouping):  # a join in parentheses, on the right of another
        return leaves(element.element)
    left, right = getattr(element, "left", None), getattr(element, "right", None)
    if left is None or right is None:
        return [element]
    return [element, *leaves(left), *leaves(right)]


def conditions_of(select: Select[Any]) -> list[Any]:
    """By what a SELECT chooses rows: WHERE, and what the joins in its FROM list are made by."""
    where = [] if select.whereclause is None else [select.whereclause]
    elements = [leaf for each in _compat.from_list(select) for leaf in leaves(each)]
    return where + [each.onclause for each in elements if isinstance(each, Join)]


def ungrouped_query(query: Any) -> Any:
    """A SELECT or set operation without the parentheses around it."""
    while isinstance(query, SelectStatementGrouping):
        query = query.element
    return query


def unwrapped_query(query: Any) -> Any:
    """A SELECT or set operation without what it is wrapped in where it stands in an expression."""
    while isinstance(query, (Exists, ScalarSelect, SelectStatementGrouping)):
        query = query.element
    return query


def unlabelled(column: Any) -> Any:
    """A column without the label around it."""
    return column.element if column.__visit_name__ == "label" else column


def grouped_by(clauses: Iterable[Any]) -> Iterator[Any]:
    """The expressions of a GROUP BY clause: a list is made of a function, and of a `Bundle`."""
    for clause in clauses:
        if isinstance(clause, ClauseList) and not isinstance(clause, Tuple):
            yield from grouped_by(clause.clauses)
        else:
            yield clause


def table_below(element: Any) -> Table | None:
    """The table that a FROM element is, or an alias of."""
    while isinstance(element, AliasedReturnsRows):
        element = element.element
    return element if isinstance(element, Table) else None
