"""The quick way: a statement that was seen before, with its key compared with one parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.cluster.plans import KeyReader
from sqlalchemy_shards.transactions.fail_points import AFTER_STATEMENT, BEFORE_STATEMENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine.default import DefaultExecutionContext

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.cluster.enlistment.enlisted import EnlistedShard
    from sqlalchemy_shards.cluster.plans import SimpleKey
    from sqlalchemy_shards.routing.router import Territory

    from .work import Surroundings


def shard_by_key(context: DefaultExecutionContext, around: Surroundings) -> str | None:
    """Decide the quick way, as `dispatch` would: the statement was seen before, and its key is
    compared with one parameter. None: it is not so simple.
    """
    plan = getattr(context.compiled, "plan", None)
    if plan is None or plan.simple_key is None or plan.cache is not around.plans:
        return None
    options = context.execution_options
    if "shard" in options or "shard_key" in options or context.current_parameters is not None:
        return None  # the last: it is a column's default, which SQLAlchemy runs on its own
    return known_shard(plan.simple_key, context.compiled_parameters[0], around.territory)


def enlisted_by_key(
    context: DefaultExecutionContext, connection: ClusterConnection
) -> EnlistedShard | None:
    """The shard that a read by key goes to, where it takes part in the transaction already.

    It decides as `shard_by_key` does, in the fewest steps that there are. None: it needs more.
    """
    plan = getattr(context.compiled, "plan", None)
    if plan is None or plan.reader is None:
        return None
    territory, name, kind, shard_of = plan.reader
    if territory is not connection.cluster.territory:
        if plan.cache is connection.plans:
            plan.reader = KeyReader.of(plan.simple_key, connection.cluster.territory)
        return None  # the next execution may find it
    options, sets = context.execution_options, context.compiled_parameters
    if "shard" in options or "shard_key" in options or len(sets) > 1:
        return None
    try:
        value = sets[0][name]
        return connection.enlisted.get(shard_of(value)) if type(value) is kind else None
    except Exception:  # the long way tells what is wrong with it
        return None


def known_shard(key: SimpleKey, parameters: Mapping[str, Any], territory: Territory) -> str | None:
    """The shard of one parameter set; None: the long way tells what is wrong with it, or widens."""
    keyspace, name, plain_type, key_type = key
    try:
        value = parameters[name]
        if type(value) is not plain_type:
            value = key_type.stored_value(value)
        return territory.shard_map.keyspaces[keyspace].shard_for((value,))
    except Exception:
        return None


def read_by_key(
    connection: ClusterConnection,
    context: DefaultExecutionContext,
    shard: str,
    sql: str,
    parameters: Any,
) -> None:
    """Read from one shard, and let SQLAlchemy have that shard's cursor in place of the cluster's.

    It holds all rows already. So a shard that joins the transaction is read from; where it takes
    part already, SQLAlchemy has its cursor from the beginning (`ShardsExecutionContext`).
    """
    try:
        enlisted = connection.enlisted.get(shard) or connection.enlist(shard)
        cursor: Any = enlisted.driver.cursor()
        context.cursor = cursor
        hooks = connection.cluster.hooks
        hooks.reach(BEFORE_STATEMENT, shard)
        cursor.execute(sql, parameters)
        hooks.reach(AFTER_STATEMENT, shard)
    except BaseException as error:
        connection.note_error(shard, error, is_shared=False)
        raise
