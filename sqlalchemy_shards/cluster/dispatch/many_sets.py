"""Dispatch of an UPDATE or DELETE with many parameter sets: each goes where its values say."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sqlalchemy_shards.plan import SumOfCounts
from sqlalchemy_shards.planning.refusal import Refusal
from sqlalchemy_shards.planning.row_arrays import ROWS_MIN, deleted_arrays
from sqlalchemy_shards.routing.route import Reason, Route
from sqlalchemy_shards.routing.sources import StatementKind

from .by_key import known_shard
from .one_set import routed, unsupported
from .unread import unchanged
from .values import ExecutionValues
from .whereabouts import shards_to_ask
from .work import Dispatch, Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy_shards.cluster.plans import StatementPlan
    from sqlalchemy_shards.planning.row_arrays import RowArrays

    from .work import Given, Surroundings


def many_sets(
    given: Given, plan: StatementPlan, around: Surroundings, named: Route | None
) -> Dispatch:
    """UPDATE or DELETE with many parameter sets: each goes where its values say."""
    if named is not None and named.is_single:
        return unchanged(given, named)
    rows: defaultdict[str, list[int]] = defaultdict(list)
    key = plan.simple_key if named is None else None
    territory = around.territory
    is_believed = is_scattered = False
    for index, parameters in enumerate(given.context.compiled_parameters):
        known = None if key is None else known_shard(key, parameters, territory)
        if known is not None:
            if not given.looks_again:
                rows[known].append(index)
            continue
        values = ExecutionValues(parameters, plan.processors)
        route = named or routed(given, plan, around, values)
        is_believed = is_believed or route.reason is Reason.LOCATOR
        asked = shards_to_ask(given, route, territory)
        is_scattered = is_scattered or len(asked) > 1
        for shard in asked:
            rows[shard].append(index)
    route = Route(territory.in_order(rows), Reason.KEY)
    if is_scattered:
        try:
            plan.prepared(given.context.compiled, around.facts)  # type: ignore[arg-type]
        except Refusal as refusal:
            raise unsupported(refusal, given.sql, route.reason) from None
    arrays = None
    if plan.sources.kind is StatementKind.DELETE and given.sql is given.context.statement:
        arrays = deleted_arrays(given.sql)
    works = [work_of_sets(shard, given, rows[shard], arrays) for shard in route.shards]
    believed = len(given.context.compiled_parameters) if is_believed else None
    merge = None if route.is_single else SumOfCounts()
    return Dispatch(works, route, merge, believed=believed)


def work_of_sets(
    shard: str, given: Given, indexes: Sequence[int], arrays: RowArrays | None
) -> Work:
    """What a shard runs with some parameter sets: with arrays of them, where that is the same.

    :param arrays: how the statement takes them; None: it does not.
    """
    own = [given.parameters[index] for index in indexes]
    batches = None if arrays is None or len(own) < ROWS_MIN else arrays.batches(own)
    if arrays is None or batches is None:
        return Work(shard, given.sql, own, is_many=True)
    return Work(shard, arrays.sql, batches, is_many=True)
