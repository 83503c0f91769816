"""What the targets of a run mean, found out once, before any shard is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy_shards.cli.failures import refused_as_wrong_usage
from sqlalchemy_shards.migrations.relative import is_relative
from sqlalchemy_shards.migrations.workers.addresses import addresses_of
from sqlalchemy_shards.migrations.workers.targets import (
    check_targets,
    read_scripts,
    revisions_on,
    settled_for_all,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.script import ScriptDirectory

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.migrations.turns.run import Task
    from sqlalchemy_shards.migrations.workers.addresses import Addresses
    from sqlalchemy_shards.migrations.workers.messages import Command


class Asked(NamedTuple):
    """What ``env.py`` says, and where shards are, if a target depends on it."""

    addresses: Addresses
    script: ScriptDirectory
    found: dict[str, tuple[str, ...]]


def question(
    revisions: tuple[str, ...], named: list[str] | None
) -> Callable[[Cluster, Task], Asked]:
    """What to ask of ``env.py``.

    :param named: the shards that are meant; None: all.
    """

    def ask(cluster: Cluster, task: Task) -> Asked:
        found = {}
        if any(map(is_relative, revisions)):
            meant = [shard for shard in cluster.shards if not named or shard in named]
            found = revisions_on(cluster, meant, task.options)
        return Asked(addresses_of(cluster), task.script, found)

    return ask


def targets_of(asked: Asked, command: Command, revisions: tuple[str, ...]) -> tuple[str, ...]:
    """The targets, each a revision that the scripts know, and the same for every shard.

    :raises typer.Exit: one is not.
    :raises ConfigurationError: the scripts cannot be read.
    """
    read_scripts(asked.script)
    with refused_as_wrong_usage():
        check_targets(asked.script, revisions)
    targets = []
    for revision in revisions:
        if asked.found and is_relative(revision):
            with refused_as_wrong_usage():
                targets.append(settled_for_all(asked.script, command, revision, asked.found))
        else:
            targets.append(revision)
    return tuple(targets)
