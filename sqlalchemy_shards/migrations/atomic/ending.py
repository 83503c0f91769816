"""How a run of all shards or none has ended: what is true of the shards, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy_shards.migrations.turns.origin import INTERRUPTIONS
from sqlalchemy_shards.migrations.workers.messages import in_one_line


class Outcome(Enum):
    """What became of the migrations."""

    NOTHING_DUE = "nothing due"
    """Every shard was there already."""
    MIGRATED = "migrated"
    """They are committed on every shard."""
    UNFINISHED = "unfinished"
    """They are committed; some shards show it when recovery has run."""
    NOTHING_MIGRATED = "nothing migrated"
    """Every shard is where it was; on some, recovery has locks to release."""
    UNKNOWN = "unknown"
    """They are committed on every shard or on none, and recovery finds out which."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run has ended.

    :param migrated: shards that took steps, in their order, where the outcome says so.
    :param unfinished: those of them that recovery finishes.
    :param gid: of the distributed transaction, where there was one.
    :param shard: where it failed, if it failed on one.
    :param revision: the migration that failed there, if it was one.
    :param error: why it failed.
    """

    outcome: Outcome
    migrated: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    gid: str | None = None
    shard: str | None = None
    revision: str | None = None
    error: BaseException | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every shard is where it should be, and shows it."""
        return self.outcome in (Outcome.MIGRATED, Outcome.NOTHING_DUE)

    @property
    def is_interrupted(self) -> bool:
        """Whether somebody stopped it."""
        return isinstance(self.error, INTERRUPTIONS)

    @property
    def needs_recovery(self) -> bool:
        """Whether something may be prepared still."""
        return self.outcome in (Outcome.UNFINISHED, Outcome.UNKNOWN)

    def sentence(self) -> str:
        """Tell it in a sentence, without a full stop.

        >>> Ending(Outcome.MIGRATED, ("s0", "s1")).sentence()
        'all 2 shards were migrated together'
        >>> Ending(Outcome.NOTHING_MIGRATED, shard="s1", revision="a1").sentence()
        "nothing was migrated: revision 'a1' failed on shard 's1', and every shard is where it was"
        """
        if self.outcome is Outcome.NOTHING_DUE:
            return "every shard is there already"
        if self.outcome is Outcome.MIGRATED:
            count = len(self.migrated)
            return f"all {count} shards were migrated together" if count > 1 else "it was migrated"
        if self.outcome is Outcome.UNFINISHED:
            names = ", ".join(map(repr, self.unfinished))
            return f"all {len(self.migrated)} shards are migrated, and {names} will show it soon"
        if self.outcome is Outcome.UNKNOWN:
            return "it is not known yet whether all shards were migrated or none"
        what = "the run" if self.revision is None else f"revision {self.revision!r}"
        where = "" if self.shard is None else f" on shard {self.shard!r}"
        if self.is_interrupted:
            within = "" if self.revision is None else f" in revision {self.revision!r}"
            return f"nothing was migrated: interrupted{within}{where}; every shard is where it was"
        return f"nothing was migrated: {what} failed{where}, and every shard is where it was"

    def next_command(self) -> str | None:
        """The command to go on with, if there is one but running it again.

        >>> Ending(Outcome.UNKNOWN).next_command()
        'shards transactions recover'
        """
        return "shards transactions recover" if self.needs_recovery else None

    def as_dict(self) -> dict[str, Any]:
        """The same in plain types, as ``--json`` prints it."""
        return {
            "outcome": self.outcome.value,
            "complete": self.is_complete,
            "migrated": list(self.migrated),
            "unfinished": list(self.unfinished),
            "gid": self.gid,
            "shard": self.shard,
            "revision": self.revision,
            "error": None if self.error is None else in_one_line(self.error),
            "next": self.next_command(),
        }
