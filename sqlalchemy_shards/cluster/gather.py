"""Gather: the rows that a statement needs are brought to the workspace, which runs it there.

    statement -> parts (planning) -> one statement per shard -> rows -> workspace -> answer

`gathered` decides what each shard ships, `answer` performs it. What is shipped is read in the
session's transaction, so it holds the session's own changes; the parts of one shard are one
snapshot. Shards that wait for keys of others (`key_lists`) ship after them.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards import _compat
from sqlalchemy_shards.errors import ShardsError, UnsupportedStatement
from sqlalchemy_shards.execution.arrived import AMBIGUOUS_ENCODINGS
from sqlalchemy_shards.execution.foreign_order import order_statement
from sqlalchemy_shards.execution.merge import windowed
from sqlalchemy_shards.execution.shadows import Shadow
from sqlalchemy_shards.plan import ForeignOrder, Gather, KeyList, Shipped
from sqlalchemy_shards.routing.route import Reason, Route
from sqlalchemy_shards.routing.router import route_of, vaguest

from .arrival import Arrival, taken
from .key_lists import second_stage, shipments
from .limits import GatherLimit, asked_gather_limit, limit_exceeded
from .moments import tell_time
from .observing import AT_WORKSPACE, observed
from .quoting import without_placeholders
from .values import ExecutionValues
from .work import Dispatch, Work
from .workspace import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy_shards.planning.parts import Gathering, Part
    from sqlalchemy_shards.planning.stages import Shipment
    from sqlalchemy_shards.routing.sources import StatementSources

    from .connection import ClusterConnection
    from .transaction_log import Told
    from .work import Given, Surroundings

NO_KEYS: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(slots=True)
class GatherStep:
    """What the workspace is given to run, once the rows are there.

    :param waiting: shard -> what it ships when the keys have come that it waits for.
    :param render: the statement of a shipment, with keys by the names of their parameters.
    """

    gathering: Gathering
    sql: str
    parameters: Any
    limit: GatherLimit
    waiting: Mapping[str, Shipment]
    render: Callable[[Shipment, Mapping[str, Any]], Work]


def gathered(given: Given, gathering: Gathering, around: Surroundings, whole: Route) -> Dispatch:
    """Decide which shards ship what.

    :param whole: where the statement as a whole belongs; shards that an option names are all that
        is read.
    """
    context = given.context
    limit = asked_gather_limit(context.execution_options, around.gather_limit)
    values = _compat.raw_parameters(context)

    def render(shipment: Shipment, keys: Mapping[str, Any] = NO_KEYS) -> Work:
        derived = gathering.shipment(shipment.indexes, shipment.beside, shipment.lists)
        return Work(shipment.shard, *derived.render(context, values, keys))

    routes = _routes(gathering, values, around, whole)
    found, key_lists = shipments(gathering, [each.shards for each in routes], around, render)
    of_shard = {shipment.shard: shipment for shipment in found}
    works = [render(of_shard[shard]) for shard in around.territory.in_order(of_shard)]
    rewritten = gathering.rewritten
    sql, parameters = given.sql, given.parameters
    if rewritten is not None:
        sql, parameters = rewritten.render(context, values)
    waiting = {each.shard: each for each in found if each.lists}
    step = GatherStep(gathering, sql, parameters, limit, waiting, render)
    reason = vaguest([each.reason for each in routes])
    route = Route(tuple(work.shard for work in works), reason)
    merge = _merge_of(gathering, routes, key_lists)
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
    shipped = (
        Shipped(part.origin, part.columns, part.kind, route.shards)
        for part, route in zip(gathering.parts, routes, strict=True)
    )
    rewritten = gathering.rewritten if gathering.is_partial else None
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
        return _of_named(named, plan.sources, around)
    return route_of(
        plan.sources,
        around.territory,
        ExecutionValues(alone.values(values), plan.processors),
        enlisted=(*chosen, *around.enlisted),
    )


def _of_named(named: Route, sources: StatementSources, around: Surroundings) -> Route:
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
    with failing_alike(connection, decided):
        tell_time(connection, [step, *decided.works])
    arrival = Arrival(
        [part.origin for part in parts], [len(part.columns) for part in parts], step.limit
    )
    arrival.ship(connection, [work for work in decided.works if work.shard not in step.waiting])
    if step.waiting:
        arrival.ship(connection, _second_works(connection, decided, step, arrival))
    preparer = connection.dialect.identifier_preparer

    def quote(name: str) -> str:
        return without_placeholders(preparer.quote(name))

    shadows = [
        Shadow(
            quote(part.name),
            tuple(map(quote, part.columns)),
            part.types,
            arrived,
            tuple(map(quote, part.key)),
            tuple(map(quote, part.lookups)),
        )
        for part, arrived in zip(parts, arrival.parts, strict=True)
    ]
    with failing_alike(connection, decided):
        return observed(
            connection.observer,
            AT_WORKSPACE,
            None,
            lambda: connection.cluster.workspace.run(
                step.sql,
                step.parameters,
                shadows,
                _settings(connection, decided.works),
                told=_told(connection, parts),
                needs_tables=step.gathering.needs_tables,
                stream=stream,
                deadline_seconds=connection.cluster.timeouts.statement_seconds,
            ),
        )


def _second_works(
    connection: ClusterConnection, decided: Dispatch, step: GatherStep, arrival: Arrival
) -> list[Work]:
    """What is shipped by the shards that have waited, now that the keys are here."""
    first = [work for work in decided.works if work.shard not in step.waiting]
    with failing_alike(connection, decided):
        _settings(connection, first)
        encoding = connection.enlisted[first[0].shard].driver.info.encoding
        works = second_stage(step.gathering, step.waiting, arrival.parts, encoding, step.render)
        tell_time(connection, works)
    return works


@contextmanager
def failing_alike(connection: ClusterConnection, decided: Dispatch) -> Iterator[None]:
    """Let an error fail the transaction, as it would on one PostgreSQL; a refusal does not."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, ShardsError):
            connection.note_error(decided.works[0].shard, error, is_shared=True)
        raise


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
        with failing_alike(connection, decided):
            numbers = observed(
                connection.observer,
                AT_WORKSPACE,
                None,
                lambda: connection.cluster.workspace.order(
                    sql,
                    parameters,
                    _settings(connection, decided.works),
                    connection.cluster.timeouts.statement_seconds,
                ),
            )
        rows = [rows[number - 1] for number in numbers]
    return windowed((row[: merge.visible] for row in rows), merge.window, decided.values or {})


def _told(connection: ClusterConnection, parts: Sequence[Part]) -> list[Told]:
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


def _settings(connection: ClusterConnection, works: Sequence[Work]) -> dict[str, str]:
    """How the shards write and read values; it must be the same on all that ship."""
    found: dict[str, str] = {}
    for work in works:
        info = connection.enlisted[work.shard].driver.info
        for name in SETTINGS:
            value = info.parameter_status(name) or ""
            if name == "DateStyle" and not value.startswith("ISO"):
                raise UnsupportedStatement(
                    f"DateStyle is {value!r}, which writes times that cannot be read for certain",
                    "set DateStyle to ISO",
                    shard=work.shard,
                )
            if value in AMBIGUOUS_ENCODINGS:
                raise UnsupportedStatement(
                    f"client_encoding is {value!r}, in which a character may hold a backslash",
                    "set client_encoding to UTF8",
                    shard=work.shard,
                )
            if found.setdefault(name, value) != value:
                raise UnsupportedStatement(
                    f"shards have different values of {name}, so that their values cannot be put "
                    "together",
                    f"give {name} the same value on all shards",
                    shard=work.shard,
                )
    return found
