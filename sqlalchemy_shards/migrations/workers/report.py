"""What a run over shards came to, shard by shard."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Outcome(str, Enum):
    """What became of one shard."""

    MIGRATED = "migrated"
    """It was changed, and is where it should be."""

    UNCHANGED = "already there"
    """It had nothing to do, and was not touched."""

    FAILED = "failed"
    """It could not be migrated."""

    INTERRUPTED = "interrupted"
    """It was being migrated when its worker was stopped or died; what was not committed is undone.
    """

    NOT_BEGUN = "not begun"
    """It had no turn."""


@dataclass(frozen=True, slots=True)
class ShardMigration:
    """What a run did with one shard.

    :param before: the heads in its version table before; None: it was not looked at.
    :param after: the heads afterwards; None: it cannot be told, or it was not looked at.
    :param applied: how many revisions were applied and not undone.
    :param seconds: how long its turn was.
    :param error: what went wrong, in one line.
    :param revision: the revision that went wrong.
    """

    shard: str
    outcome: Outcome
    before: tuple[str, ...] | None = None
    after: tuple[str, ...] | None = None
    applied: int = 0
    seconds: float = 0.0
    error: str | None = None
    revision: str | None = None

    @property
    def is_there(self) -> bool:
        """Whether the shard is where it should be."""
        return self.outcome in (Outcome.MIGRATED, Outcome.UNCHANGED)


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What a run came to.

    :param revisions: the target, as it was asked for.
    :param shards: in the order of the cluster, those that were asked for.
    :param workers: how many processes worked at once, at most.
    :param error: what ended the run apart from a shard's failure, in one line.
    :param is_interrupted: somebody stopped it.
    """

    cluster: str
    command: str
    revisions: tuple[str, ...]
    shards: tuple[ShardMigration, ...]
    seconds: float
    workers: int
    error: str | None = None
    is_interrupted: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every shard is where it should be."""
        return self.error is None and all(shard.is_there for shard in self.shards)

    @property
    def failed(self) -> tuple[ShardMigration, ...]:
        """The shards that failed or were interrupted."""
        return tuple(self._with(Outcome.FAILED, Outcome.INTERRUPTED))

    @property
    def not_begun(self) -> tuple[ShardMigration, ...]:
        """The shards that had no turn."""
        return tuple(self._with(Outcome.NOT_BEGUN))

    def as_dict(self) -> dict[str, Any]:
        """The report in plain types, as ``--json`` prints it."""
        return {
            "cluster": self.cluster,
            "command": self.command,
            "revisions": list(self.revisions),
            "complete": self.is_complete,
            "interrupted": self.is_interrupted,
            "error": self.error,
            "seconds": round(self.seconds, 3),
            "workers": self.workers,
            "shards": [_shard_as_dict(shard) for shard in self.shards],
        }

    def _with(self, *outcomes: Outcome) -> Iterator[ShardMigration]:
        return (shard for shard in self.shards if shard.outcome in outcomes)


def _shard_as_dict(shard: ShardMigration) -> dict[str, Any]:
    heads = {
        name: None if value is None else list(value)
        for name, value in (("before", shard.before), ("after", shard.after))
    }
    return {
        **asdict(shard),
        "outcome": shard.outcome.value,
        **heads,
        "seconds": round(shard.seconds, 3),
    }
