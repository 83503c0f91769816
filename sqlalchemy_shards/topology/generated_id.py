"""The layout of generated ids: 63 bits that hold a time, a bucket, a worker and a sequence.

    bit 63   62 ............ 22   21 ........ 10   9 ....... 3   2 .. 0
    0        milliseconds: 41     bucket: 12       worker: 7     sequence: 3

Invariants, which no release may break, since ids outlive every configuration:

- The layout is fixed. Nothing in it can be configured, so nothing that made an id has to be known
  to read it. Ids are positive; a later millisecond is a greater id.
- The milliseconds count from 2020, and no id is from before 2025: a smaller number, such as one of
  an old sequence, is recognised as not generated and says nothing of a bucket.
- Two ids that are equal have the same bucket.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Final, NamedTuple

WORKER_BITS: Final = 7
SEQUENCE_BITS: Final = 3
BUCKET_BITS: Final = 12
TIME_BITS: Final = 41

BUCKETS_WITH_IDS_MAX: Final = 1 << BUCKET_BITS
"""Buckets that a keyspace may have if generated ids are to carry them."""

WORKERS_MAX: Final = 1 << WORKER_BITS
"""Worker numbers that there are, from 0."""

IDS_PER_MILLISECOND: Final = 1 << SEQUENCE_BITS
"""Ids that one worker has for one bucket in each millisecond."""

EPOCH: Final = datetime(2020, 1, 1, tzinfo=timezone.utc)
"""The moment from which the milliseconds of an id count."""

EPOCH_UNIX_MILLISECONDS: Final = int(EPOCH.timestamp()) * 1000

FIRST_MILLISECOND: Final = int(datetime(2025, 1, 1, tzinfo=timezone.utc).timestamp()) * 1000 - (
    EPOCH_UNIX_MILLISECONDS
)
"""No id is from before this one."""

LAST_MILLISECOND: Final = (1 << TIME_BITS) - 1
"""The last one that an id can hold: in September 2089."""

_BUCKET_SHIFT: Final = WORKER_BITS + SEQUENCE_BITS
_TIME_SHIFT: Final = BUCKET_BITS + _BUCKET_SHIFT
_BUCKET_MASK: Final = BUCKETS_WITH_IDS_MAX - 1
_FIRST_ID: Final = FIRST_MILLISECOND << _TIME_SHIFT
_LAST_ID: Final = (1 << 63) - 1


class IdParts(NamedTuple):
    """What a generated id holds.

    :param milliseconds: since `EPOCH`.
    :param bucket: of the shard key for which it was made.
    :param worker: number of the process that made it.
    :param sequence: tells the ids of one worker, bucket and millisecond apart.
    """

    milliseconds: int
    bucket: int
    worker: int
    sequence: int

    @property
    def time(self) -> datetime:
        """When it was made, in UTC."""
        return EPOCH + timedelta(milliseconds=self.milliseconds)


def id_of(parts: IdParts) -> int:
    """Return the id that holds ``parts``, which must be in range.

    >>> id_of(IdParts(FIRST_MILLISECOND, bucket=5, worker=1, sequence=2))
    662082630451205130
    """
    return (
        parts.milliseconds << _TIME_SHIFT
        | parts.bucket << _BUCKET_SHIFT
        | parts.worker << SEQUENCE_BITS
        | parts.sequence
    )


def parts_of(value: int) -> IdParts | None:
    """Return what an id holds, None for a number that was certainly not generated.

    >>> parts_of(662082630451205130)
    IdParts(milliseconds=157852800000, bucket=5, worker=1, sequence=2)
    >>> parts_of(12)
    """
    if not _FIRST_ID <= value <= _LAST_ID:
        return None
    return IdParts(
        milliseconds=value >> _TIME_SHIFT,
        bucket=value >> _BUCKET_SHIFT & _BUCKET_MASK,
        worker=value >> SEQUENCE_BITS & (WORKERS_MAX - 1),
        sequence=value & (IDS_PER_MILLISECOND - 1),
    )


def bucket_of_id(value: int) -> int | None:
    """Return the bucket that an id carries, None for a number that was certainly not generated."""
    if _FIRST_ID <= value <= _LAST_ID:
        return value >> _BUCKET_SHIFT & _BUCKET_MASK
    return None
