"""Gather: the rows that a statement needs are brought to the workspace, which runs it there.

    statement -> parts (planning) -> one statement per shard -> rows -> workspace -> answer

`gathered` decides what each shard ships, `answer` performs it. What is shipped is read in the
session's transaction, so it holds the session's own changes; the parts of one shard are one
snapshot. Keys of other shards may choose in them (`key_lists`, `shipping`).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards import _compat
from sqlalchemy_shards.cluster.dispatch.values import ExecutionValues
from sqlalchemy_shards.cluster.dispatch.work import Dispatch, Work
from sqlalchemy_shards.cluster.enlistment.moments import tell_time
from sqlalchemy_shards.cluster.enlistment.on_shards import failing_alike
from sqlalchemy_shards.cluster.explain.observing import AT_WORKSPACE, observed
from sqlalchemy_shards.cluster.limits import GatherLimit, asked_gather_limit, limit_exceeded
from sqlalchemy_shards.cluster.quoting import without_placeholders
from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.execution.foreign_order import order_statement
from sqlalchemy_shards.execution.merge import windowed
from sqlalchemy_shards.execution.shadows import Shadow
from sqlalchemy_shards.plan import ForeignOrder, Gather, KeyList, Shipped, ShippedRows
from sqlalchemy_shards.routing.route import Reason, Route
from sqlalchemy_shards.routing.router import route_of, vaguest

from .agreement import settings_of
from .arrival import taken
from .key_lists import decide
from .shipping import shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.cluster.dispatch.work import Given, Surroundings
    from sqlalchemy_shards.cluster.enlistment.transaction_log import Told
    from sqlalchemy_shards.execution.arrived import ArrivedRows
    from sqlalchemy_shards.planning.asked_keys import Source
    from sqlalchemy_shards.planning.parts import Gathering, Part, Question
    from sqlalchemy_shards.planning.stages import Shipment
    from sqlalchemy_shards.routing.sources import StatementSources

NO_KEYS: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(slots=True)
class GatherStep:
    """What the workspace is given to run, once the rows are there.

    :param shipments: what each shard ships.
    :param render: the statement of a shipment, with keys by the names of their parameters.
    :param sources: the keys that are asked for before anything is shipped.
    :param asking: the statements that ask for them.
    """

    gathering: Gathering
    sql: str
    parameters: Any
    limit: GatherLimit
    shipments: Sequence[Shipment]
    render: Callable[[Shipment, Mapping[str, Any]], Work]
    sources: Sequence[Source] = ()
    asking: Sequence[Work] = ()


def gathered(given: Given, gathering: Gathering, around: Surroundings, whole: Route) -> Dispatch:
    """Decide which shards ship what.

    :param whole: where the statement as a whole belongs; shards that an option names are all that
        is read.
    """
    context = given.context
    limit = asked_gather_limit(context.execution_options, around.gather_limit)
    values = _compat.raw_parameters(context)

    def render(shipment: Shipment, keys: Mapping[str, Any] = NO_KEYS) -> Work:
        lists = (*shipment.lists, *shipment.asked)
        derived = gathering.shipment(shipment.indexes, shipment.beside, lists)
        return Work(shipment.shard, *derived.render(context, values, keys))

    def in_question(question: Question, shard: str) -> Work:
        return Work(shard, *gathering.asked_of_planner(question).render(context, values))

    routes = _routes(gathering, values, around, whole)
    chosen = decide(gathering, [each.shards for each in routes], around, in_question)
    of_shard = {shipment.shard: shipment for shipment in chosen.shipments}
    shipments = [of_shard[shard] for shard in around.territory.in_order(of_shard)]
    works = [render(shipment) for shipment in shipments]
    rewritten = gathering.rewritten
    sql, parameters = given.sql, given.parameters
    if rewritten is not None:
        sql, parameters = rewritten.render(context, values)
    step = GatherStep(gathering, sql, parameters, limit, shipments, render)
    if chosen.sources:
        step.sources = chosen.sources
        numbered = tuple(enumerate(chosen.sources))
        step.asking = [
            Work(shipment.shard, *gathering.asked(own).render(context, values))
            for shipment in shipments
            if (own := tuple(each for each in numbered if each[1].part in shipment.indexes))
        ]
    reason = vaguest([each.reason for each in routes])
    route = Route(tuple(work.shard for work in works), reason)
    merge = _merge_of(gathering, routes, chosen.key_lists)
    return Dispatch(works, route, merge, writes=False, gather=step)


def _routes(gathering: Gathering, values: Any, around: Surroundings, whole: Route) -> list[Route]:
    """Where the rows of each part are."""
    if gathering.is_partial:
        return [whole] * len(gathering.parts)
    named = whole if whole.reason is Reason.OPTION else None
    routes: list[Route] = []
    for index in range(len(gathering.parts)):
        chosen = tuple(dict.fromkeys(shard for each in routes for shard in each.shards))
        routes.append(_route_of_part(index, gathering, values, around, chosen, named))
    return routes


def _merge_of(
    gathering: Gathering, routes: Sequence[Route], key_lists: tuple[KeyList, ...]
) -> Gather:
    chosen_by_keys = {keys.origin for keys in key_lists if keys.is_given}
    shipped = (
        Shipped(
            part.origin,
            part.columns,
            ShippedRows.MATCHING
            if part.kind is ShippedRows.ALL and part.origin in chosen_by_keys
            else part.kind,
            route.shards,
        )
        for part, route in zip(gathering.parts, routes, strict=True)
    )
    rewritten = gathering.rewritten if gathering.is_split else None
    return Gather(tuple(shipped), key_lists, None if rewritten is None else rewritten.sql)


def _route_of_part(
    index: int,
    gathering: Gathering,
    values: Any,
    around: Surroundings,
    chosen: tuple[str, ...],
    named: Route | None,
) -> Route:
    """Where the rows of one part are; of a reference table, one copy."""
    alone = gathering.shipment((index,))
    plan = around.plans.plan_of(alone.compiled)
    if plan.sources.unreadable is not None:
        raise UnsupportedStatement(
            f"it cannot be told where its parts are: {plan.sources.unreadable}",
            'name one shard with execution_options(shard="...")',
        )
    if named is not None:
        return of_named(named, plan.sources, around)
    return route_of(
        plan.sources,
        around.territory,
        ExecutionValues(alone.values(values), plan.processors),
        enlisted=(*chosen, *around.enlisted),
    )


def of_named(named: Route, sources: StatementSources, around: Surroundings) -> Route:
    """Which of the shards that an option names have rows of a part; the option is believed."""
    if sources.roots:
        return named
    if not sources.reads_global:
        return Route(named.shards[:1], named.reason)
    home = around.territory.global_shard
    if home not in named.shards:
        raise UnsupportedStatement(
            "it reads a global table, which the shards that the option names do not have",
            f"name {home!r}, too, or no shard",
        )
    return Route((home,), named.reason)


def answer(connection: ClusterConnection, decided: Dispatch, stream: str | None) -> Any:
    """Bring the rows together and run the statement over them.

    :param stream: name of a server-side cursor, where the answer is to be streamed.
    :return: a cursor of the driver, with all rows in it; or a `StreamedAnswer`.
    :raises GatherLimitExceeded: there are too many.
    """
    step = decided.gather
    assert step is not None
    parts = step.gathering.parts
    with failing_alike(connection, decided.works[0].shard):
        tell_time(connection, [step])
    arrival = shipped(connection, step, decided.works)
    shadows = shadows_of(connection, parts, arrival.parts)
    with failing_alike(connection, decided.works[0].shard):
        return observed(
            connection.observer,
            AT_WORKSPACE,
            None,
            lambda: connection.cluster.workspace.run(
                step.sql,
                step.parameters,
                shadows,
                settings_of(connection, decided.works),
                told=told_of(connection, parts),
                needs_tables=step.gathering.needs_tables,
                stream=stream,
                deadline_seconds=connection.cluster.timeouts.statement_seconds,
            ),
        )


def shadows_of(
    connection: ClusterConnection, parts: Sequence[Part], arrived: Sequence[ArrivedRows]
) -> list[Shadow]:
    """The rows of parts, as they are to stand where tables would."""
    preparer = connection.dialect.identifier_preparer

    def quote(name: str) -> str:
        return without_placeholders(preparer.quote(name))

    return [
        Shadow(
            quote(part.name),
            tuple(map(quote, part.columns)),
            part.types,
            rows,
            tuple(map(quote, part.key)),
            tuple(map(quote, part.lookups)),
        )
        for part, rows in zip(parts, arrived, strict=True)
    ]


def in_order(
    connection: ClusterConnection,
    decided: Dispatch,
    arriving: Sequence[Iterator[tuple[Any, ...]]],
) -> Iterator[tuple[Any, ...]]:
    """The shards' rows in the order that the workspace says, without their sort keys.

    :raises GatherLimitExceeded: there are too many.
    """
    merge, limit = decided.merge, decided.limit
    assert isinstance(merge, ForeignOrder)
    assert limit is not None
    rows = taken(arriving, decided.works, limit)
    if len(rows) > 1:
        driver = connection.enlisted[decided.works[0].shard].driver
        sql, parameters = order_statement(merge, rows, driver.info.encoding)
        size = sum(keys.size for keys in parameters.values())
        if size > limit.bytes:
            told = f"{len(rows)} rows with {size} bytes of sort keys"
            raise limit_exceeded(limit, "put in order", [told])
        with failing_alike(connection, decided.works[0].shard):
            numbers = observed(
                connection.observer,
                AT_WORKSPACE,
                None,
                lambda: connection.cluster.workspace.order(
                    sql,
                    parameters,
                    settings_of(connection, decided.works),
                    connection.cluster.timeouts.statement_seconds,
                ),
            )
        rows = [rows[number - 1] for number in numbers]
    return windowed((row[: merge.visible] for row in rows), merge.window, decided.values or {})


def told_of(connection: ClusterConnection, parts: Sequence[Part]) -> list[Told]:
    """What the transaction was set to: the workspace is told it, as a shard that joins late is."""
    told = list(connection.settings())
    has_bare_name = any(part.follows_search_path for part in parts)
    if has_bare_name and any(each.may_change_search_path for each in told):
        raise UnsupportedStatement(
            "search_path is set within the transaction, so that the names of tables may mean "
            "others than those that were looked up",
            "give the tables their schema",
        )
    return told
