"""Supplies the shards that write with rows of others, as `planning.supplying` has planned it.

    answers of subqueries, rows of tables -> CTEs before the statement -> the shards of the target

Everything is read within the session's own transaction, so that its own changes are seen, and
before anything is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards import _compat
from sqlalchemy_shards.cluster.dispatch.work import Dispatch, Work
from sqlalchemy_shards.cluster.enlistment.moments import tell_time
from sqlalchemy_shards.cluster.enlistment.on_shards import failing_alike, on_shards
from sqlalchemy_shards.cluster.limits import asked_gather_limit, limit_exceeded
from sqlalchemy_shards.execution.arrived import ArrivedRows
from sqlalchemy_shards.execution.shadows import Shadow, TextArray, TextArrayDumper, with_ctes
from sqlalchemy_shards.plan import Gather, SumOfCounts

from .agreement import settings_of
from .gather import gathered, shadows_of, told_of
from .shipping import shipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine.default import DefaultExecutionContext

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.cluster.dispatch.work import Given, Surroundings
    from sqlalchemy_shards.cluster.enlistment.enlisted import EnlistedShard
    from sqlalchemy_shards.cluster.limits import GatherLimit
    from sqlalchemy_shards.plan import Shipped
    from sqlalchemy_shards.planning.supplying import Answer, Supply
    from sqlalchemy_shards.routing.route import Route


@dataclass(slots=True)
class SupplyStep:
    """What is brought to the shards that write.

    :param supply: how it was planned.
    :param values: of the statement's parameters.
    :param shipping: what the shards ship; None: nothing.
    """

    supply: Supply
    context: DefaultExecutionContext
    values: Mapping[str, Any]
    limit: GatherLimit
    shipping: Dispatch | None

    @property
    def shipped(self) -> tuple[Shipped, ...]:
        """What is shipped, as `explain()` tells it."""
        merge = None if self.shipping is None else self.shipping.merge
        return merge.shipped if isinstance(merge, Gather) else ()

    @property
    def asked(self) -> tuple[str, ...]:
        """The subqueries that are answered before, as `explain()` tells them."""
        dialect = self.context.dialect
        return tuple(str(each.rows.compile(dialect=dialect)) for each in self.supply.answers)


def supplied(
    given: Given, supply: Supply, around: Surroundings, target: Route, whole: Route
) -> Dispatch:
    """Decide what the shards of a route write, and what they are given.

    :param target: where the rows are that are written.
    :param whole: where the statement as a whole belongs; shards that an option names are all that
        is read.
    """
    context, gathering = given.context, supply.gathering
    values = _compat.raw_parameters(context)
    limit = asked_gather_limit(context.execution_options, around.gather_limit)
    shipping = gathered(given, gathering, around, whole) if gathering.parts else None
    sql, parameters = given.sql, given.parameters
    if gathering.rewritten is not None:
        sql, parameters = gathering.rewritten.render(context, values)
    return Dispatch(
        [Work(shard, sql, parameters) for shard in target.shards],
        target,
        SumOfCounts(),
        supply=SupplyStep(supply, context, values, limit, shipping),
    )


def supplied_works(
    connection: ClusterConnection, decided: Dispatch, step: SupplyStep
) -> list[Work]:
    """What the shards run, with what they are supplied with.

    :raises GatherLimitExceeded: it would be too much.
    """
    works = decided.works
    # Before the subqueries, which may be answered without asking any shard.
    on_shards(connection, works, _taught)
    shadows = _answered(connection, step, works[0].shard)
    if step.shipping is not None:
        gather, parts = step.shipping.gather, step.supply.gathering.parts
        assert gather is not None
        told_of(connection, parts)
        arrival = shipped(connection, gather, step.shipping.works)
        shadows += shadows_of(connection, parts, arrival.parts)
    with failing_alike(connection, works[0].shard):
        everywhere = [Work(shard, "", None) for shard in connection.enlisted]
        settings_of(connection, everywhere if shadows else ())
        tell_time(connection, works)
    sql, cells = with_ctes(works[0].sql, shadows) if shadows else (works[0].sql, {})
    return [Work(each.shard, sql, {**each.parameters, **cells}) for each in works]


def _taught(_work: Work, enlisted: EnlistedShard) -> None:
    """Let a shard's driver write what it is supplied with; the shard is enlisted by that."""
    enlisted.driver.adapters.register_dumper(TextArray, TextArrayDumper)


def _answered(connection: ClusterConnection, step: SupplyStep, shard: str) -> list[Shadow]:
    """The rows of subqueries that are answered before, each as a statement of its own.

    :param shard: one that writes; all others are found to have the same encoding.
    """
    shadows: list[Shadow] = []
    encoding = connection.enlisted[shard].driver.info.encoding
    observer, connection.observer = connection.observer, None
    try:
        for answer in step.supply.answers:
            rows = _rows_of(answer, step)
            arrived = ArrivedRows.of(rows, encoding)
            shadows.append(Shadow(answer.name, answer.columns, answer.types, arrived))
            _check_limit(step.limit, shadows)
    finally:
        connection.observer = observer
    return shadows


def _rows_of(answer: Answer, step: SupplyStep) -> Sequence[Sequence[str | None]]:
    """Ask for the rows of a subquery, by the way of any statement."""
    values = {key: step.values[name] for key, name in answer.names}
    rows = answer.rows.params(values)
    options = {
        name: step.context.execution_options[name]
        for name in ("shard", "shard_key", "scatter", "gather_limit")
        if name in step.context.execution_options
    }
    # The statement's own, which has been given these options, is not asked again.
    connection = step.context.root_connection
    return connection.execute(rows, execution_options=options).all()


def _check_limit(limit: GatherLimit, shadows: Sequence[Shadow]) -> None:
    rows = sum(each.rows.count for each in shadows)
    size = sum(each.rows.size for each in shadows)
    if rows > limit.rows or size > limit.bytes:
        told = (f"{each.rows.count} rows of a subquery" for each in reversed(shadows))
        raise limit_exceeded(limit, "brought to the shards that write", told)
