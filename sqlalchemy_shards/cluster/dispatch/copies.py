"""Dispatch of a write of a reference table, which every shard has a copy of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy_shards.cluster.moved_rows import is_movable, moved
from sqlalchemy_shards.errors import ConfigurationError, RoutingError, UnsupportedStatement
from sqlalchemy_shards.plan import FirstCopy
from sqlalchemy_shards.planning.refusal import Refusal
from sqlalchemy_shards.routing.route import Reason, Route

from .work import Dispatch, Work

if TYPE_CHECKING:
    from sqlalchemy_shards.cluster.plans import StatementPlan
    from sqlalchemy_shards.routing.router import Territory

    from .work import Given, Surroundings


def every_copy(
    given: Given, plan: StatementPlan, around: Surroundings, named: Route | None
) -> Dispatch:
    """A reference table is written on all shards, or on none."""
    shards = around.territory.shards
    check_all_known(around.territory)
    if named is not None and named.shards != shards:
        raise RoutingError(
            f"reference table {plan.sources.target!r} would be written on some shards only",
            'leave the option away, or use shard="*"',
            statement=given.sql,
        )
    try:
        plan.prepared(given.context.compiled, around.facts)  # type: ignore[arg-type]
    except Refusal as refusal:
        if is_movable(given) and plan.sources.unreadable is None:
            return moved(given, plan, around, named, refusal.reason)
        raise UnsupportedStatement(
            f"reference table {plan.sources.target!r} would not become the same on every shard: "
            f"{refusal.reason}",
            refusal.advice or "write plain values",
            statement=given.sql,
        ) from None
    works = [Work(shard, given.sql, given.parameters, given.is_many) for shard in shards]
    return Dispatch(works, Route(shards, Reason.EVERY_COPY), FirstCopy(), is_ordered=True)


def check_all_known(territory: Territory) -> None:
    """Refuse to write copies where this process knows that it does not know all of them.

    It is told when it opens a connection: so this holds of a write whose first shard is enlisted.

    :raises ConfigurationError: a shard is being added that is not in its configuration.
    """
    if territory.unknown:
        raise ConfigurationError(
            f"shard {min(territory.unknown)!r} is being added to the cluster, and this process does"
            " not know it: its copies of reference tables would miss what is written",
            "name it at the end of the shards in the configuration of this process",
        )
