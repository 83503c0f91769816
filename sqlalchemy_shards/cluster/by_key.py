"""The quick way: a statement that was seen before, with its key compared with one parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy_shards import _compat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine.default import DefaultExecutionContext

    from sqlalchemy_shards.routing.router import Territory

    from .plans import SimpleKey
    from .work import Surroundings


def shard_by_key(context: DefaultExecutionContext, around: Surroundings) -> str | None:
    """Decide the quick way, as `dispatch` would: the statement was seen before, and its key is
    compared with one parameter. None: it is not so simple.
    """
    plan = getattr(context.compiled, "plan", None)
    if plan is None or plan.simple_key is None or plan.cache is not around.plans:
        return None
    options = context.execution_options
    if "shard" in options or "shard_key" in options or _compat.is_pre_executed_default(context):
        return None
    return known_shard(plan.simple_key, context.compiled_parameters[0], around.territory)


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
