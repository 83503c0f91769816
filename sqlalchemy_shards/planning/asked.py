"""What the planning of statements that are split asks of others, in one execution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Table

    from sqlalchemy_shards.catalog.columns import ColumnType
    from sqlalchemy_shards.catalog.expressions import Relation
    from sqlalchemy_shards.catalog.functions import Doubt
    from sqlalchemy_shards.routing.calls import Call
    from sqlalchemy_shards.routing.sources import StatementSources

    from . import draft
    from .derived import Derived


class Facts(Protocol):
    """What only the shards' catalogs know, and PostgreSQL about one execution of a statement."""

    @property
    def catalog(self) -> draft.Facts:
        """What a plan for several shards is made with."""

    def sources_of(self, compiled: Any) -> StatementSources:
        """The tables of a statement that a `ShardsCompiler` has compiled."""

    def columns_of(self, table: Table) -> Mapping[str, ColumnType]:
        """The columns of a table, as all shards have them."""

    def depending(self, calls: Iterable[Call]) -> Sequence[Doubt]:
        """Those of the calls that depend on when or where they run."""

    def scalar(self, names: Iterable[str]) -> Collection[str]:
        """Those of the functions that are no aggregates, and give no sets."""

    def builtin(self, names: Iterable[str]) -> Collection[str]:
        """Those of the functions that have no namesakes besides PostgreSQL's own."""

    def types_of(
        self, statement: Derived, over: Sequence[Relation], width: int
    ) -> list[ColumnType | None]:
        """The types of a statement's columns; None: one without a name, or not certain.

        :raises NotSplittable: PostgreSQL does not take the statement.
        """

    def returned(self, statement: Derived, over: Sequence[Relation]) -> Sequence[int]:
        """What the driver would be told of the types that a statement returns.

        :raises NotSplittable: PostgreSQL does not take the statement.
        """
