"""Which id comes next for a bucket: the decision, without clocks and locks.

Invariants:

- No id of a bucket is given twice, and each is greater than the one before, whatever the clocks
  say.
- The time in an id is at most `AHEAD_MILLISECONDS_MAX` later than the steady time.
- The steady time never goes back. While the clock of the wall stands behind it, it moves on as fast
  as time elapses.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy_shards.topology.generated_id import (
    FIRST_MILLISECOND,
    SEQUENCE_BITS,
    IdParts,
    id_of,
)

AHEAD_MILLISECONDS_MAX: Final = 1_000
"""How far a bucket's ids may run ahead of the clock when many are made at once."""

_SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1


class SteadyTime:
    """The time of a wall clock that is kept from going back.

    :param wall: first reading of the wall clock, in milliseconds.
    :param elapsed: reading of a clock that is never set, at the same moment, in milliseconds.
    """

    __slots__ = ("_elapsed", "_wall")

    def __init__(self, wall: int, elapsed: int) -> None:
        self._wall = wall
        self._elapsed = elapsed

    def at(self, wall: int, elapsed: int) -> int:
        """Return the steady time for new readings of both clocks."""
        expected = self._wall + max(0, elapsed - self._elapsed)
        if wall >= expected:
            self._wall, self._elapsed = wall, elapsed
            return wall
        return expected


class IdSequence:
    """The ids of one worker.

    :param buckets: how many buckets the keyspace has.
    :param worker: number of the worker.
    """

    __slots__ = ("_next", "worker")

    def __init__(self, buckets: int, worker: int) -> None:
        self.worker = worker
        # For each bucket, milliseconds and sequence, as one number, that are still free.
        self._next = [FIRST_MILLISECOND << SEQUENCE_BITS] * buckets

    def take(self, bucket: int, now: int) -> int | None:
        """Return the next id of a bucket, or None: the bucket's ids are too far ahead.

        :param now: the steady time, in milliseconds since the epoch of ids.
        """
        slot = max(self._next[bucket], now << SEQUENCE_BITS)
        milliseconds = slot >> SEQUENCE_BITS
        if milliseconds > now + AHEAD_MILLISECONDS_MAX:
            return None
        self._next[bucket] = slot + 1
        return id_of(IdParts(milliseconds, bucket, self.worker, slot & _SEQUENCE_MASK))
