"""The FROM lists of a statement: which occurrences of tables it reads, and what names them.

A `Scope` is one SELECT (or UPDATE, DELETE) with its FROM elements; a subquery's scope has the
enclosing one as its parent, for correlated columns. A `Place` is what a column resolves to.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Table
from sqlalchemy.sql.elements import ClauseList, ColumnClause
from sqlalchemy.sql.selectable import AliasedReturnsRows, FromGrouping, Join

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy.sql.selectable import FromClause

    from sqlalchemy_shards.models.distribution import Sharded
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
class Occurrence:
    """One occurrence of a sharded table while a statement is analysed."""

    name: str
    table: Table
    sharded: Sharded
    families: tuple[KeyFamily, ...]
    is_eligible_root: bool
    """It stands in the outermost FROM list, and no outer join fills it with NULLs."""
    is_filled: bool = False
    """An outer join may fill it with NULLs."""
    conditions: list[KeyCondition] = field(default_factory=list)

    def place(self, index: int, column: str) -> Place:
        """Where a column of this occurrence is."""
        key = self.sharded.key
        return Place(index, column, key.index(column) if column in key else None)


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
    """

    places: tuple[tuple[Place, ...], ...] = ()
    sources: frozenset[int] = frozenset()
    is_simple: bool = False
    is_local: bool = False
    is_shared: bool = False
    columns: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)

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


@dataclass(slots=True, eq=False)
class Scope:
    """The names that expressions of one SELECT can use."""

    parent: Scope | None = None
    names: dict[FromClause, int | Derived | None] = field(default_factory=dict)
    """FROM element -> index of a source, a derived table, or None: rows alike on every shard."""
    own: set[int] = field(default_factory=set)
    """Sources that a condition of this SELECT restricts."""
    enclosing: frozenset[FromClause] = frozenset()
    directly_enclosing: frozenset[FromClause] = frozenset()
    conjuncts: list[Any] = field(default_factory=list)
    """ON clauses of inner joins: as good as WHERE."""
    outer_joins: list[OuterJoin] = field(default_factory=list)

    def places(self, column: Any, occurrences: list[Occurrence]) -> tuple[Place, ...]:
        """The places of a plain column, looked up here and in the enclosing scopes."""
        scope = self.holder_of(column)
        return () if scope is None else scope._places(column, occurrences, is_own=scope is self)

    def holder_of(self, column: Any) -> Scope | None:
        """The scope that a plain column belongs to: this one, or the nearest enclosing one."""
        if not isinstance(column, ColumnClause) or column.is_literal or column.table is None:
            return None
        scope: Scope | None = self
        while scope is not None and column.table not in scope.names:
            scope = scope.parent
        return scope

    def _places(
        self, column: ColumnClause[Any], occurrences: list[Occurrence], *, is_own: bool
    ) -> tuple[Place, ...]:
        element = self.names[column.table]  # type: ignore[index]
        if element is None:
            return ()
        if isinstance(element, Derived):
            inside = element.columns.get(column.key, ())
            return tuple(place._replace(is_own=is_own) for place in inside)
        return (occurrences[element].place(element, column.key)._replace(is_own=is_own),)


def leaves(element: FromClause) -> list[FromClause]:
    """The FROM elements that can be correlated to: an element, and what a join is made of."""
    if isinstance(element, FromGrouping):  # a join in parentheses, on the right of another
        return leaves(element.element)
    left, right = getattr(element, "left", None), getattr(element, "right", None)
    if left is None or right is None:
        return [element]
    return [element, *leaves(left), *leaves(right)]


def on_conditions(froms: Iterable[FromClause]) -> list[Any]:
    """What the joins in a FROM list are made by."""
    return [
        leaf.onclause for element in froms for leaf in leaves(element) if isinstance(leaf, Join)
    ]


def unlabelled(column: Any) -> Any:
    """A column without the label around it."""
    return column.element if column.__visit_name__ == "label" else column


def grouped_by(clauses: Iterable[Any]) -> Iterator[Any]:
    """The expressions of a GROUP BY clause: SQLAlchemy makes a list of one of a function."""
    for clause in clauses:
        yield from clause.clauses if type(clause) is ClauseList else (clause,)


def table_below(element: Any) -> Table | None:
    """The table that a FROM element is, or an alias of."""
    while isinstance(element, AliasedReturnsRows):
        element = element.element
    return element if isinstance(element, Table) else None
