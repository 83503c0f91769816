"""Commands that compare with the models: ``check`` and ``revision --autogenerate``.

They look at one shard, the global one, which holds tables of every kind; so the others must be at
the same revisions. What is ours in a database is never compared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from alembic.util import CommandError

from sqlalchemy_shards.cluster.schema import tables_on
from sqlalchemy_shards.migrations.env.naming import selecting, shards_named
from sqlalchemy_shards.migrations.turns.run import JustLooking

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.migrations.env.invocation import Invocation
    from sqlalchemy_shards.migrations.turns.run import Turn

_OURS: Final = "shards"
"""The schema in which everything of ours is."""


def compares(environment: EnvironmentContext) -> bool:
    """Whether the command at hand writes a revision, or would."""
    return "revision_context" in environment.context_opts


def compared_shard(cluster: Cluster, shards: Sequence[str]) -> str:
    """The global shard, else the first."""
    return cluster.global_shard if cluster.global_shard in shards else shards[0]


def compare(invocation: Invocation, shards: Sequence[str]) -> None:
    """Run the command at hand on one of the shards, if all of them are at the heads.

    :raises CommandError: some are not. Of a cluster of one shard Alembic says so.
    """
    compared = compared_shard(invocation.cluster, shards)
    environment = invocation.environment
    options = environment.context_opts
    options_there = options_on(invocation.cluster, compared, invocation.options)
    comparing = replace(invocation, options=options_there)
    if not options["revision_context"].command_args["autogenerate"]:
        comparing.visit(JustLooking([compared]), comparing.run)
        return
    if len(invocation.cluster.shards) > 1:
        _refuse_behind(invocation, shards)
    comparing.visit(JustLooking([compared]), comparing.run)


def options_on(cluster: Cluster, shard: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ``context.configure()``, and what is not to be compared on a shard."""
    wanted_name, wanted_object = options.get("include_name"), options.get("include_object")

    def include_name(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
        schema = name if kind == "schema" else parents.get("schema_name")
        return schema != _OURS and (wanted_name is None or wanted_name(name, kind, parents))

    def include_object(
        item: Any, name: str | None, kind: str, reflected: bool, beside: Any
    ) -> bool:
        if kind == "table" and not reflected and not tables_on(cluster, shard, [item]):
            return False
        return wanted_object is None or wanted_object(item, name, kind, reflected, beside)

    return {**options, "include_name": include_name, "include_object": include_object}


def _refuse_behind(invocation: Invocation, shards: Sequence[str]) -> None:
    """Look at all before any is compared, so that no log blames the one that is compared."""
    behind: list[str] = []

    def look(turn: Turn) -> None:
        if not _is_at_heads(invocation.environment.get_context()):
            behind.append(turn.shard)

    invocation.visit(JustLooking(shards), look)
    if behind:
        verb = "are" if len(behind) > 1 else "is"
        raise CommandError(
            f"Target database is not up to date: {shards_named(behind)} {verb} behind; run alembic"
            f" {selecting(shards, invocation.cluster)}upgrade heads"
        )


def _is_at_heads(context: MigrationContext) -> bool:
    script = context.script
    assert script is not None
    current = script.get_revisions(context.get_current_heads())
    return set(current) == set(script.get_revisions("heads"))
