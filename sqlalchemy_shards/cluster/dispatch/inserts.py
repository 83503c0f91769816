"""Dispatch of an INSERT into a sharded table: each row goes to the shard of its key."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards import _compat
from sqlalchemy_shards.cluster.moved_rows import moved
from sqlalchemy_shards.cluster.options import check_named
from sqlalchemy_shards.errors import MissingShardKey, RoutingError, UnsupportedStatement
from sqlalchemy_shards.plan import GivenOrder, SumOfCounts
from sqlalchemy_shards.planning.refusal import Refusal
from sqlalchemy_shards.planning.row_arrays import ROWS_MIN, row_arrays
from sqlalchemy_shards.planning.values_lists import ValuesList
from sqlalchemy_shards.routing.route import Reason, Route
from sqlalchemy_shards.routing.router import key_of_row, route_of, shard_of_row

from .by_key import known_shard
from .many_sets import work_of_sets
from .one_set import check_scatter, context_values
from .unread import unchanged
from .values import ExecutionValues
from .whereabouts import key_of
from .work import Dispatch, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy_shards.cluster.plans import StatementPlan
    from sqlalchemy_shards.routing.sources import InsertedKey

    from .work import Given, Surroundings


def insert(
    given: Given, plan: StatementPlan, around: Surroundings, named: Route | None
) -> Dispatch:
    """Rows for a sharded table: each goes to the shard of its key."""
    context, inserted = given.context, plan.sources.inserted
    if inserted is not None and inserted.rows:
        return _values_list(given, plan, around, named)
    if inserted is not None and inserted.is_selected and None in inserted.parameters:
        return _moved(given, plan, around, named)
    style = context.execute_style.name
    first, count = 0, len(context.compiled_parameters)
    if style == "INSERTMANYVALUES":
        first, count = _next_batch(given)
    rows: defaultdict[str, list[int]] = defaultdict(list)
    territory = around.territory
    for index in range(first, first + count):
        parameters = context.compiled_parameters[index]
        shard = plan.inserted_key and known_shard(plan.inserted_key, parameters, territory)
        if shard is None:
            try:
                shard = _shard_of(given, plan, around, parameters, named)
            except RoutingError as error:
                raise _of_set(error, given, index) from None
        rows[shard].append(index)
    route = Route(territory.in_order(rows), Reason.KEY)
    if (
        inserted is not None
        and inserted.is_selected
        and _reads_elsewhere(given, plan, around, route)
    ):
        return moved(given, plan, around, named, "its SELECT reads rows of other shards")
    _check_insert(given, plan, around, route, named)
    if style == "INSERTMANYVALUES":
        return unchanged(given, route) if route.is_single else _split_batch(given, rows, route)
    if route.is_single and not given.is_many:
        return unchanged(given, route)
    return _split_sets(given, rows, route)


def check_conflict(given: Given, inserted: InsertedKey) -> None:
    """Refuse an ON CONFLICT that would overlook rows of other shards."""
    if inserted.unseen_conflict is not None:
        raise UnsupportedStatement(
            f"ON CONFLICT of table {inserted.table!r} cannot be kept over all shards: "
            f"{inserted.unseen_conflict}",
            "take the shard key into the unique constraint and into the conflict target",
            statement=given.sql,
        )


def _values_list(
    given: Given, plan: StatementPlan, around: Surroundings, named: Route | None
) -> Dispatch:
    """The rows of ``insert().values([row, row, ...])``."""
    inserted: Any = plan.sources.inserted
    values = context_values(given, plan)
    territory = around.territory
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for index in range(len(inserted.rows)):
        if inserted.lies_beside and named is not None and named.is_single:
            shard = named.shards[0]
        else:
            shard = shard_of_row(inserted, territory.shard_map, values, index)
        rows[shard].append(index)
    route = Route(territory.in_order(rows), Reason.KEY)
    _check_insert(given, plan, around, route, named)
    if route.is_single:
        return unchanged(given, route)
    values_list = ValuesList(given.context)
    try:
        works = [Work(shard, *values_list.part(rows[shard])) for shard in route.shards]
    except Refusal as reason:
        raise UnsupportedStatement(
            f"the rows of the INSERT into {plan.sources.target!r} belong to several shards, and "
            f"it cannot be given to each in part: {reason}",
            "pass the rows as parameter sets: execute(insert(table), [row, row, ...])",
            statement=given.sql,
        ) from None
    return Dispatch(works, route, _order_of(rows, route))


def _order_of(rows: Mapping[str, Sequence[int]], route: Route) -> GivenOrder:
    return GivenOrder(tuple(tuple(rows[shard]) for shard in route.shards))


def _shard_of(
    given: Given,
    plan: StatementPlan,
    around: Surroundings,
    parameters: Mapping[str, Any],
    named: Route | None,
) -> str:
    """The shard of one row, which is remembered where others are to lie beside it."""
    inserted, shard_map = plan.sources.inserted, around.territory.shard_map
    assert inserted is not None
    anchor, identity = inserted.anchor, None
    if inserted.identity is not None:
        identity = tuple(parameters.get(name) for name in inserted.identity)
    if not inserted.lies_beside:
        key = key_of_row(inserted, ExecutionValues(parameters, plan.processors))
        if anchor is not None and identity is not None:
            around.inserted.note(anchor.key, identity, key)
        return shard_map.shard_for(inserted.keyspace, key)
    assert anchor is not None
    known = None if identity is None else key_of(anchor, identity, around)
    if known is not None:
        return shard_map.shard_for(inserted.keyspace, known)
    if named is not None and named.is_single:
        return named.shards[0]
    raise MissingShardKey(
        f"a row for table {inserted.table!r} lies beside the row of {anchor.fullname!r} that it "
        "names, and where that is is not known",
        "insert both in one transaction, or hold the other row's object in the session, or say "
        "where it is with execution_options(shard_key=(Model, key))",
        statement=given.sql,
    )


def _of_set(error: RoutingError, given: Given, index: int) -> RoutingError:
    """The same error, which tells the number of the parameter set, from 1, where there are many."""
    count = len(given.context.compiled_parameters)
    where = f", in parameter set {index + 1} of {count}" if count > 1 else ""
    return type(error)(error.problem + where, error.advice, shard=error.shard, statement=given.sql)


def _next_batch(given: Given) -> tuple[int, int]:
    """Which parameter sets this call of an "insertmanyvalues" execution holds."""
    context: Any = given.context
    page_size = context.execution_options.get(
        "insertmanyvalues_page_size", context.dialect.insertmanyvalues_page_size
    )
    done = getattr(context, "shards_rows_done", 0)
    batch = _compat.insertmanyvalues_batch(context, given.parameters, done, page_size)
    context.shards_rows_done = done + batch.rows
    return batch.first, batch.rows


def _split_sets(given: Given, rows: Mapping[str, Sequence[int]], route: Route) -> Dispatch:
    """Each shard's parameter sets: as arrays, where that is the same."""
    arrays = row_arrays(given.sql) if given.sql is given.context.statement else None
    if arrays is not None and arrays.updates:
        arrays = None
    works = [work_of_sets(shard, given, rows[shard], arrays) for shard in route.shards]
    return Dispatch(works, route, None if route.is_single else SumOfCounts())


def _split_batch(given: Given, rows: Mapping[str, Sequence[int]], route: Route) -> Dispatch:
    compiled: Any = given.context.compiled
    if _compat.insertmanyvalues_sorts_by_server_key(compiled):
        raise UnsupportedStatement(
            "rows that are returned in the order of keys made by the server cannot be matched to "
            "their parameters over several shards",
            "give the primary key a client-side default",
            statement=given.sql,
        )
    context: Any = given.context
    arrays = row_arrays(context.statement)
    works = []
    for shard in route.shards:
        own = rows[shard]
        parameters = None
        if arrays is not None and len(own) >= ROWS_MIN:
            parameters = arrays.parameters([context.parameters[index] for index in own])
        if arrays is None or parameters is None:
            works.append(Work(shard, *_compat.render_insertmanyvalues(context, own)))
        else:
            works.append(Work(shard, arrays.sql, parameters))
    return Dispatch(works, route, _order_of(rows, route))


def _check_insert(
    given: Given,
    plan: StatementPlan,
    around: Surroundings,
    route: Route,
    named: Route | None,
) -> None:
    """Rows must not land beside their shard, nor be computed from rows of another."""
    sources = plan.sources
    check_named(route, named, sources.target, given.sql)
    if sources.unreadable is not None:
        raise _unreadable(given, plan)
    if _reads_elsewhere(given, plan, around, route):
        raise UnsupportedStatement(
            f"the INSERT into {sources.target!r} reads tables of other shards than its row's",
            "read first, and insert plain values",
            statement=given.sql,
        )


def _reads_elsewhere(given: Given, plan: StatementPlan, around: Surroundings, route: Route) -> bool:
    """Whether an INSERT reads rows that do not lie where its own are to lie."""
    sources, context = plan.sources, given.context
    if sources.unreadable is not None or not (sources.roots or sources.reads_global):
        return False
    values = ExecutionValues(context.compiled_parameters[0], plan.processors)
    read = route_of(sources, around.territory, values)
    inserted: Any = sources.inserted
    is_one_row = len(context.compiled_parameters) == 1 and len(inserted.rows) < 2
    return not is_one_row or not read.is_single or read.shards != route.shards


def _moved(
    given: Given, plan: StatementPlan, around: Surroundings, named: Route | None
) -> Dispatch:
    """Rows whose keys only their SELECT tells."""
    sources = plan.sources
    if sources.unreadable is not None:
        raise _unreadable(given, plan)
    if named is None:
        route = route_of(sources, around.territory, context_values(given, plan))
        if not route.is_single and route.reason is Reason.UNKNOWN_KEY:
            check_scatter(given, plan, around)
    return moved(given, plan, around, named, "the keys of its rows are not those of their shards")


def _unreadable(given: Given, plan: StatementPlan) -> UnsupportedStatement:
    return UnsupportedStatement(
        f"it cannot be told what the INSERT reads: {plan.sources.unreadable}",
        "insert plain values",
        statement=given.sql,
    )
