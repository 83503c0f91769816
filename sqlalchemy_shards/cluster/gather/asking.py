"""What planning asks PostgreSQL about one execution of a statement, and what it may be kept for.

The type of an expression follows from the types of columns and parameters. Where a parameter is not
written with its type, the driver takes it from the value: then the answer holds for such values.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import psycopg

from sqlalchemy_shards import _compat
from sqlalchemy_shards.catalog.expressions import oids_returned, types_returned
from sqlalchemy_shards.planning.splitting import NotSplittable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Table
    from sqlalchemy.engine.default import DefaultExecutionContext

    from sqlalchemy_shards.catalog.catalog import Catalog
    from sqlalchemy_shards.catalog.columns import ColumnType
    from sqlalchemy_shards.catalog.expressions import Relation
    from sqlalchemy_shards.catalog.functions import Doubt
    from sqlalchemy_shards.cluster.dispatch.values import Processors
    from sqlalchemy_shards.cluster.dispatch.work import Surroundings
    from sqlalchemy_shards.planning.derived import Derived
    from sqlalchemy_shards.routing.calls import Call
    from sqlalchemy_shards.routing.sources import StatementSources

T = TypeVar("T")

_SELF_EVIDENT: Final = frozenset(
    [bool, bytes, date, Decimal, float, str, time, timedelta, type(None), UUID]
)
"""Types of Python that the driver gives the same type of PostgreSQL, whatever the value is."""

_INTEGER_BITS: Final = (15, 31, 63)
"""The driver gives an integer the smallest of PostgreSQL's types that it fits into."""


class Asking:
    """The facts that `planning.partial` needs, for one execution."""

    def __init__(self, context: DefaultExecutionContext, around: Surroundings) -> None:
        self._context = context
        self._catalog: Catalog = around.facts
        self._plans = around.plans
        self._ask = around.ask
        self._values = _compat.raw_parameters(context)

    @property
    def catalog(self) -> Catalog:
        """What a plan for several shards is made with."""
        return self._catalog

    def sources_of(self, compiled: Any) -> StatementSources:
        """The tables of a statement that a `ShardsCompiler` has compiled."""
        return self._plans.plan_of(compiled).sources

    def columns_of(self, table: Table) -> Mapping[str, ColumnType]:
        """The columns of a table, as all shards have them."""
        return self._catalog.columns_of(table)

    def depending(self, calls: Iterable[Call]) -> Sequence[Doubt]:
        """Those of the calls that depend on when or where they run."""
        return self._catalog.functions.depending(calls)

    def scalar(self, names: Iterable[str]) -> Collection[str]:
        """Those of the functions that are no aggregates, and give no sets."""
        return self._catalog.functions.scalar(names)

    def builtin(self, names: Iterable[str]) -> Collection[str]:
        """Those of the functions that have no namesakes besides PostgreSQL's own."""
        return self._catalog.functions.builtin(names)

    def types_of(
        self, statement: Derived, over: Sequence[Relation], width: int
    ) -> list[ColumnType | None]:
        """The types of what a statement returns.

        :raises NotSplittable: PostgreSQL does not take the statement.
        """
        sql, parameters = statement.render(self._context, self._values)
        return self._answer(lambda asked: types_returned(asked, sql, parameters, over, width))

    def returned(self, statement: Derived, over: Sequence[Relation]) -> Sequence[int]:
        """What the driver would be told of the types that a statement returns.

        :raises NotSplittable: PostgreSQL does not take the statement.
        """
        sql, parameters = statement.render(self._context, self._values)
        return self._answer(lambda asked: oids_returned(asked, sql, parameters, over))

    def _answer(self, question: Callable[[Any], T]) -> T:
        try:
            return self._ask(question)  # type: ignore[no-any-return]
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise NotSplittable(str(error.diag.message_primary)) from None


def untyped_parameters(compiled: Any) -> tuple[str, ...]:
    """Names of the parameters whose values tell their types."""
    return tuple(
        name
        for bind, name in compiled.bind_names.items()
        if not _compat.is_cast(bind, compiled.dialect)
    )


def kinds_of(
    names: Sequence[str], values: Mapping[str, Any], processors: Processors
) -> tuple[Any, ...] | None:
    """What the values of parameters tell of their types; None: it is not known what they tell.

    :param values: before bind processing.
    """
    kinds = tuple(_kind(_processed(name, values.get(name), processors)) for name in names)
    return None if None in kinds else kinds


def _processed(name: str, value: Any, processors: Processors) -> Any:
    if name not in processors:
        return value
    return processors[name](value) if not isinstance(value, list) else object()


def _kind(value: Any) -> Any:
    if type(value) is int:
        bits = (value if value >= 0 else ~value).bit_length()
        return int, sum(bits > each for each in _INTEGER_BITS)
    if type(value) is datetime:
        return datetime, value.tzinfo is None
    if isinstance(value, (list, tuple)):
        inside = tuple(map(_kind, value))
        return None if None in inside else (list, *dict.fromkeys(inside))
    return type(value) if type(value) in _SELF_EVIDENT else None
