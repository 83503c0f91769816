"""What a statement would do, told before it does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import assert_never

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.plan import (
    AggregateRow,
    Concatenate,
    FirstCopy,
    ForeignOrder,
    Gather,
    GivenOrder,
    OrderedMerge,
    SumOfCounts,
    Tier,
    Window,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy_shards.plan import Merge, Shipped
    from sqlalchemy_shards.routing.router import Locator

    from .cluster import Cluster
    from .work import Dispatch


@dataclass(frozen=True, slots=True)
class ShardStep:
    """What one shard runs."""

    shard: str
    sql: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a statement runs and how its result is made; ``str()`` is a readable tree.

    :param tier: how much work stands between the shards' rows and the answer.
    :param shards: the shards, in the cluster's order; none: the answer has no rows.
    :param reason: why these.
    :param steps: what each shard runs; parameters are shown by name.
    :param merge: how the shards' answers become one, None where one shard answers alone.
    :param workspace: where shipped rows are brought, None where none are.
    """

    tier: Tier
    shards: tuple[str, ...]
    reason: str
    steps: tuple[ShardStep, ...]
    merge: Merge | None
    workspace: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "tier": self.tier.value,
            "shards": list(self.shards),
            "reason": self.reason,
            "steps": [{"shard": step.shard, "sql": step.sql} for step in self.steps],
            "merge": None if self.merge is None else spoken_merge(self.merge),
            **({"workspace": self.workspace} if self.workspace else {}),
        }

    def branches(self) -> list[tuple[str, str]]:
        """The lines below the first one of its tree: a title, and what it says."""
        by_sql: dict[str, list[str]] = {}
        for step in self.steps:
            by_sql.setdefault(" ".join(step.sql.split()), []).append(step.shard)
        found = [(", ".join(names), sql) for sql, names in by_sql.items()]
        if self.merge is None:
            return found
        if not isinstance(self.merge, Gather):
            return [*found, ("merge", spoken_merge(self.merge))]
        shipped = [(f"ships {each.origin}", _spoken_shipment(each)) for each in self.merge.shipped]
        last = f"on {self.workspace}, {spoken_merge(self.merge)}"
        return [*shipped, *found, ("workspace", last)]

    def __str__(self) -> str:
        shards = ", ".join(self.shards)
        lines = [f"{self.tier.value}: {shards or 'no shard'}, because {self.reason}"]
        branches = self.branches()
        for index, (title, text) in enumerate(branches):
            branch = "└─" if index == len(branches) - 1 else "├─"
            lines.append(f"{branch} {title}: {text}")
        return "\n".join(lines)


EXPLAINED_OPTIONS: Final = (
    "shard",
    "shard_key",
    "scatter",
    "gather_limit",
    "schema_translate_map",
)
"""The execution options that a decision depends on."""


class _Stop(Exception):
    """Carries the decision out of an execution that goes no further."""

    def __init__(self, decided: Dispatch) -> None:
        super().__init__()
        self.decided = decided


def explain_statement(
    cluster: Cluster,
    statement: Any,
    parameters: Mapping[str, Any],
    options: Mapping[str, Any],
    locator: Locator | None = None,
) -> Explanation:
    """Decide on a statement exactly as an execution would, and stop before it is performed.

    :raises ConfigurationError: an option is none, or not available yet.
    """
    for name in options:
        if name not in EXPLAINED_OPTIONS:
            raise ConfigurationError(
                f"explain() has no option {name!r}",
                f"use one of {', '.join(map(repr, EXPLAINED_OPTIONS))}",
            )

    def stop(decided: Dispatch) -> None:
        raise _Stop(decided)

    with cluster.engine.connect() as connection:
        cluster_connection: Any = connection.connection.driver_connection
        cluster_connection.locator = locator
        cluster_connection.on_dispatch = stop
        try:
            connection.execute(statement, dict(parameters), execution_options=options)
        except _Stop as stopped:
            return _explanation(stopped.decided, cluster.workspace.place)
        finally:
            cluster_connection.on_dispatch = None
    raise AssertionError("the statement was not dispatched")


def _explanation(decided: Dispatch, workspace: str) -> Explanation:
    merge = decided.merge
    tier = Tier.SCATTER
    if not decided.works:
        tier = Tier.NO_QUERY
    elif merge is None:
        tier = Tier.SINGLE_SHARD
    elif isinstance(merge, FirstCopy):
        tier = Tier.EVERY_COPY
    elif isinstance(merge, Gather):
        tier = Tier.GATHER
    return Explanation(
        tier=tier,
        shards=decided.route.shards,
        reason=decided.route.reason.value,
        steps=tuple(ShardStep(work.shard, str(work.sql)) for work in decided.works),
        merge=merge,
        workspace=workspace if tier is Tier.GATHER else None,
    )


def spoken_merge(merge: Merge) -> str:
    """A merge in words."""
    match merge:
        case Concatenate(window):
            return "rows one after another" + _spoken_window(window)
        case OrderedMerge(keys, _, window):
            names = ", ".join(
                f"sort key {index}{' descending' if key.descending else ''}"
                for index, key in enumerate(keys)
            )
            return f"k-way merge by {names}" + _spoken_window(window)
        case ForeignOrder(keys, _, window):
            spoken = ", ".join(
                f"sort key {index}{' descending' if key.descending else ''}"
                for index, key in enumerate(keys)
            )
            return f"put in order by PostgreSQL by {spoken}" + _spoken_window(window)
        case AggregateRow(functions):
            return "one row: " + ", ".join(_SPOKEN[function.value] for function in functions)
        case SumOfCounts():
            return "row counts add up"
        case Gather(shipped):
            origins = ", ".join(each.origin for each in shipped)
            return f"PostgreSQL runs the statement over the shipped rows of {origins}"
        case GivenOrder():
            return "row counts add up, returned rows in the order given"
        case FirstCopy():
            return "the first shard's answer stands for all"
        case _:
            assert_never(merge)


def _spoken_shipment(shipped: Shipped) -> str:
    columns, shards = ", ".join(shipped.columns), ", ".join(shipped.shards)
    return f"{shipped.rows.value}, with {columns}, from {shards}"


_SPOKEN = {
    "count": "counts add up",
    "sum": "sums add up",
    "min": "the least",
    "max": "the greatest",
}


def _spoken_window(window: Window) -> str:
    parts = []
    if window.offset is not None:
        parts.append("OFFSET")
    if window.limit is not None:
        parts.append("LIMIT")
    return f", {' and '.join(parts)} applied afterwards" if parts else ""
