"""What the messages of workers come to, shard by shard. No I/O, no clock: times are given.

Invariant: a shard is counted as migrated or already there only if its worker said that it is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy_shards.migrations.workers.messages import Applied, Began, Done, Failed
from sqlalchemy_shards.migrations.workers.report import Outcome, ShardMigration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy_shards.migrations.workers.messages import Message


@dataclass
class _Turn:
    started: float
    ended: float | None = None
    before: tuple[str, ...] | None = None
    steps: tuple[str, ...] = ()
    applied: int = 0
    end: Done | Failed | None = None


class Tally:
    """Notes what happens to each shard.

    :param shards: all that were asked for.
    """

    def __init__(self, shards: Sequence[str]) -> None:
        self._shards = tuple(shards)
        self._turns: dict[str, _Turn] = {}

    def given(self, shard: str, at: float) -> None:
        """A worker was told to take a shard.

        :param at: seconds of a monotonic clock.
        """
        self._turns[shard] = _Turn(at)

    def note(self, message: Message, at: float) -> None:
        """A worker said something."""
        if not isinstance(message, (Began, Applied, Done, Failed)) or message.shard is None:
            return
        turn = self._turns[message.shard]
        if isinstance(message, Began):
            # A shard that has its turn again begins anew: the first attempt was rolled back.
            turn.before = message.before if turn.before is None else turn.before
            turn.steps, turn.applied = message.steps, 0
        elif isinstance(message, Applied):
            turn.applied += 1
        else:
            turn.ended, turn.end = at, message

    def results(self, at: float) -> tuple[ShardMigration, ...]:
        """What happened to each shard so far."""
        return tuple(self._result(shard, at) for shard in self._shards)

    def _result(self, shard: str, at: float) -> ShardMigration:
        turn = self._turns.get(shard)
        if turn is None:
            return ShardMigration(shard, Outcome.NOT_BEGUN)
        seconds = (at if turn.ended is None else turn.ended) - turn.started
        end = turn.end or Failed(shard, "it was not heard of again", is_interrupted=True)
        before = end.after if turn.before is None else turn.before
        if isinstance(end, Done):
            outcome = Outcome.MIGRATED if turn.steps else Outcome.UNCHANGED
            return ShardMigration(shard, outcome, before, end.after, turn.applied, seconds)
        return ShardMigration(
            shard,
            Outcome.INTERRUPTED if end.is_interrupted else Outcome.FAILED,
            before,
            end.after,
            0 if end.after in (None, before) else turn.applied,
            seconds,
            end.error,
            end.revision,
        )
