"""What the passes of the planner work on: a statement, what is known of it, what was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Interval, TypeDecorator
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.types import NullType

from sqlalchemy_shards.plan import Window
from sqlalchemy_shards.routing.scopes import unlabelled

from .rewriting import rewrite
from .spelling import speller

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Table
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import ColumnElement

    from sqlalchemy_shards import _compat
    from sqlalchemy_shards.catalog.columns import ColumnType
    from sqlalchemy_shards.plan import Aggregate, Scatter
    from sqlalchemy_shards.routing.calls import Call
    from sqlalchemy_shards.routing.sources import StatementSources

    from .groups import Grouping
    from .ordering import Ordering
    from .rewriting import Rewritten


class Facts(Protocol):
    """What only the shards' catalogs know."""

    def orders_by_code_point(self, expression: ColumnElement[Any]) -> bool:
        """Whether a text expression's collation orders as Python orders strings."""

    def type_of(self, expression: ColumnElement[Any]) -> ColumnType | None:
        """The type of a plain column; None: it is not known, or no plain column."""

    def columns_of(self, table: Table) -> Mapping[str, ColumnType]:
        """The columns of a table, also those that its model does not have."""

    def lacks_columns(self, table: Any) -> bool:
        """Whether it is known that not all shards have all columns of a table's model alike."""

    def row_wise(self, calls: Iterable[Call]) -> Collection[str]:
        """Names of called functions that make one value of one row's, drawn or alike anywhere."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan for several shards, kept beside the compiled statement.

    :param scatter: the plan, as data.
    :param rewritten: the statement for the shards, where it is another.
    """

    scatter: Scatter
    rewritten: Rewritten | None = None


@dataclass(slots=True)
class Draft:
    """What the passes have found.

    :param grouping: how groups that lie on several shards are made one, rows of DISTINCT among
        them; None: there are none.
    :param key_types: of the sort keys, where Python does not order them as PostgreSQL does.
    :param is_timed: it asks for the time, which all shards are to be told.
    """

    sources: StatementSources
    compiled: SQLCompiler
    statement: Any
    facts: Facts
    shape: _compat.SelectShape | None = None
    aggregates: tuple[Aggregate, ...] | None = None
    grouping: Grouping | None = None
    orderings: tuple[Ordering, ...] = ()
    window: Window = field(default_factory=Window)
    key_types: tuple[ColumnType, ...] = ()
    is_timed: bool = False
    _spelled: Callable[[Any], str] | None = None

    @property
    def is_as_given(self) -> bool:
        """Whether shards may run the statement as it is: they all give all rows, at any time."""
        return self.window == Window() and not self.is_timed

    def index_of(self, expression: Any, among: Sequence[Any]) -> int | None:
        """Where an expression is, among others, that is the same to PostgreSQL."""
        expression = unlabelled(expression)
        others = [unlabelled(each) for each in among]
        same = [index for index, each in enumerate(others) if each is expression]
        if same or not others:
            return same[0] if same else None
        self._spelled = spelled = self._spelled or speller(self.compiled)
        text = spelled(expression)
        return next((n for n, each in enumerate(others) if spelled(each) == text), None)

    def known_type(self, expression: Any) -> ColumnType | None:
        """The type that the catalogs give a plain column."""
        # Under a schema_translate_map the column may be another one at each execution.
        return None if self.compiled.schema_translate_map else self.facts.type_of(expression)

    def is_byte_order(self, expression: Any) -> bool:
        """Whether a text expression's collation certainly orders as Python orders strings."""
        is_column = isinstance(expression, ColumnClause)
        if is_column and self.compiled.schema_translate_map:
            return False
        return self.facts.orders_by_code_point(expression)

    def rewritten(self, more: Sequence[Any], *, keeps_window: bool = True) -> Rewritten:
        """The statement that the shards run, with more columns.

        :param keeps_window: each shard leaves out rows that are beyond the limit.
        :raises Refusal: it cannot be derived.
        """
        return rewrite(
            self.statement,
            self.compiled,
            more,
            self.window,
            keeps_window=keeps_window,
            is_timed=self.is_timed,
        )


def plain_type(expression: Any) -> Any:
    """The type of an expression as the model says it, without a decorator of the application's."""
    type_ = getattr(expression, "type", None) or NullType()
    # SQLAlchemy's Interval decorates a timestamp, for databases that have no intervals.
    while isinstance(type_, TypeDecorator) and not isinstance(type_, Interval):
        type_ = type_.impl_instance
    return type_
