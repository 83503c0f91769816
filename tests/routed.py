"""The route of a statement, found without a server: for golden lists of exact shards.

>>> routed(select(User).where(User.id == 5), territory).shards
('s1',)
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.cluster.dispatch.values import ExecutionValues
from sqlalchemy_shards.cluster.plans import PlanCache
from sqlalchemy_shards.routing.router import Territory, route_of
from sqlalchemy_shards.topology.shard_map import ShardMap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy_shards import Keyspace
    from sqlalchemy_shards.routing.route import Route


def territory_of(
    keyspaces: Mapping[str, Keyspace], shards: Sequence[str] = ("s0", "s1", "s2", "s3")
) -> Territory:
    """Shards with keyspaces; global tables are on the first one."""
    return Territory(tuple(shards), ShardMap.build(keyspaces, tuple(shards)), shards[0])


def routed(
    statement: Any,
    territory: Territory,
    parameters: Mapping[str, Any] | None = None,
    *,
    byte_order: bool = True,
) -> Route:
    """The route of a SELECT, UPDATE or DELETE; its shards are empty where no row can match.

    :param byte_order: the databases order text with a collation "C" by code point.
    """
    dialect = ShardsDialect()
    facts = SimpleNamespace(
        lacks_columns=lambda table: False,
        orders_by_code_point=lambda column: byte_order and column.type.collation == "C",
    )
    plans = PlanCache(dialect, undeclared_is_global=False, facts=facts)
    compiled = statement.compile(dialect=dialect)
    plan = plans.plan_of(compiled)
    if plan.sources.unreadable is not None:
        raise AssertionError(plan.sources.unreadable)
    values = ExecutionValues(compiled.construct_params(parameters), plan.processors)
    return route_of(plan.sources, territory, values, may_be_empty=True)
