"""The revisions that a run is to lead to: known before any shard is touched, and alike for all.

- A target that is relative to where a shard is (``+1``, ``-1``, ``app@+1``) is settled once, where
  it means the same on all shards, and is a revision from then on: a run that is repeated then moves
  no shard twice.
- What is settled takes exactly the steps that Alembic takes for what was asked, or is refused.
- Reads revision scripts, and asks shards only where they are.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Final

from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError, RevisionError
from alembic.util import CommandError

from sqlalchemy_shards.connections.fan_out import branch_for_each
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.relative import is_relative
from sqlalchemy_shards.migrations.turns.version_table import revisions_in
from sqlalchemy_shards.migrations.workers.messages import in_one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.migrations.workers.alembic_settings import AlembicSettings
    from sqlalchemy_shards.migrations.workers.messages import Command

LOOK_SECONDS: Final = 30.0
"""How long all shards together are waited for to tell where they are."""

_STEPS_FROM: Final = re.compile(r"(?P<start>.*\w)[+-]\d+")


def read_scripts(script: ScriptDirectory) -> None:
    """Read all revision scripts, and see that each follows one that is there.

    :raises ConfigurationError: they cannot be read.
    """
    try:
        script.get_heads()
    except Exception as error:  # whatever stands in them
        what = f"a revision comes after {error}, which no script has"
        if not isinstance(error, KeyError):  # Alembic's, of a revision that is missing
            what = in_one_line(error)
        raise ConfigurationError(
            f"the revision scripts cannot be read: {what}", "mend them; no shard was touched"
        ) from error


def check_targets(script: ScriptDirectory, targets: Sequence[str]) -> None:
    """Make sure that the scripts know all targets that are not relative to where a shard is.

    :raises ConfigurationError: they do not know one, or one may mean several.
    """
    for target in targets:
        if is_relative(target):
            continue
        counted = _STEPS_FROM.fullmatch(target)
        try:
            script.get_revisions(target if counted is None else counted["start"])
        except CommandError as error:
            is_unknown = isinstance(error.__cause__, ResolutionError)
            what = "no script has it" if is_unknown else error
            raise ConfigurationError(
                f"the target {target!r} leads nowhere: {what}",
                "`alembic history` lists the revisions; no shard was touched",
            ) from error


def check_targets_of(settings: AlembicSettings, targets: Sequence[str]) -> None:
    """The same, of the scripts of a configuration; leaves Python's search path as it was."""
    path = list(sys.path)
    try:
        script = ScriptDirectory.from_config(settings.config())
        read_scripts(script)
        check_targets(script, targets)
    except CommandError as error:
        raise ConfigurationError(
            f"the revisions cannot be read: {error}", "see to Alembic's configuration"
        ) from error
    finally:
        sys.path[:] = path


def revisions_on(
    cluster: Cluster, shards: Sequence[str], options: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Where shards are: what their version tables tell.

    :param options: what ``env.py`` says to ``context.configure()``: they name the version table.
    :raises ShardUnavailable: one cannot be asked.
    """

    def look(shard: str) -> tuple[str, ...]:
        with cluster.reach(shard) as driver:
            return revisions_in(driver, options)

    outcomes = cluster.fan_out.run(
        branch_for_each(shards, look),
        deadline_seconds=LOOK_SECONDS,
    )
    return {outcome.shard: outcome.result() for outcome in outcomes}


def settled_for_all(
    script: ScriptDirectory,
    command: Command,
    target: str,
    found: Mapping[str, tuple[str, ...]],
) -> str:
    """The revision that a relative target means on every one of some shards.

    :param found: shard -> what its version table tells.
    :raises ConfigurationError: it means another one on two of them, or none.
    """
    meant: dict[tuple[str, ...], str | None] = {}
    for current in dict.fromkeys(found.values()):
        try:
            meant[current] = settled(script, command, target, current)
        except ConfigurationError:
            if len(set(found.values())) == 1:
                raise
            meant[current] = None
    first, *others = found
    for other in others:
        if found[other] != found[first] and (
            meant[found[other]] is None or meant[found[other]] != meant[found[first]]
        ):
            raise ConfigurationError(
                f"{target} would mean different revisions: shard {first!r} is at"
                f" {_named(found[first])}, shard {other!r} at {_named(found[other])}; no shard was"
                " changed",
                f"name the revision that all of them shall have, or one shard by --shard {other}",
            )
    return str(meant[found[first]])


def settled(
    script: ScriptDirectory, command: Command, target: str, current: tuple[str, ...]
) -> str:
    """The revision that a relative target means for shards that are all at the same revisions.

    :param current: what their version tables tell.
    :raises ConfigurationError: it leads nowhere, or to no single revision.
    """
    label = target.rpartition("@")[0] or None
    if command == "stamp":
        raise _nowhere(target, current, "what is stamped has to be named")
    if len(current) > 1 and label is None:
        raise _nowhere(target, current, "it names no single revision")
    try:
        steps = _steps(script, command, target, current)
    except (CommandError, RevisionError, AssertionError) as error:
        # Alembic asserts that a label leads to one revision.
        raise _nowhere(target, current, str(error) or "it names no single revision") from error
    for candidate in _candidates(script, command, steps, label):
        if _takes(script, command, candidate, current) == steps:
            return candidate
    raise _nowhere(target, current, "it names no single revision")


def _steps(
    script: ScriptDirectory, command: Command, target: str, current: tuple[str, ...]
) -> list[str]:
    """The revisions that Alembic would run, in their order."""
    if command == "upgrade":
        found = script.iterate_revisions(target, current, implicit_base=True)
        return [each.revision for each in found][::-1]
    found = script.iterate_revisions(current, target, select_for_downgrade=True)
    return [each.revision for each in found]


def _takes(
    script: ScriptDirectory, command: Command, target: str, current: tuple[str, ...]
) -> list[str] | None:
    try:
        script.get_revisions(target)
        return _steps(script, command, target, current)
    except (CommandError, RevisionError, AssertionError):
        return None


def _candidates(
    script: ScriptDirectory, command: Command, steps: list[str], label: str | None
) -> list[str]:
    if not steps:
        return []
    if command == "upgrade":
        return [steps[-1]]
    last = script.get_revision(steps[-1])
    down = None if last is None else last.down_revision
    if isinstance(down, (tuple, list)):  # it has merged others
        return []
    below = down or "base"
    return [below] if label is None else [below, f"{label}@{below}"]


def _nowhere(target: str, current: tuple[str, ...], reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"the target {target!r} leads nowhere from {_named(current)}: {reason}",
        "name the revision that all shards shall have; no shard was touched",
    )


def _named(revisions: Sequence[str]) -> str:
    return ", ".join(sorted(revisions)) or "base"
