"""Ids that carry the bucket of a shard key: `IdGenerator`.

Invariants, as long as no two processes that run at the same time have one worker number:

- No id is given twice for one keyspace, over threads, processes and clocks that are set back.
- A forked child never goes on with its parent's number.

How an id is laid out is said in `sqlalchemy_shards.topology.generated_id`, which id comes next in
`id_sequence`.
"""

from __future__ import annotations

import os
import time
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sqlalchemy.engine import ExecutionContext

from sqlalchemy_shards.errors import ConfigurationError, RoutingError
from sqlalchemy_shards.models.id_sequence import IdSequence, SteadyTime
from sqlalchemy_shards.models.row_keys import RowKeyReader
from sqlalchemy_shards.topology.generated_id import (
    BUCKETS_WITH_IDS_MAX,
    EPOCH_UNIX_MILLISECONDS,
    FIRST_MILLISECOND,
    LAST_MILLISECOND,
    WORKERS_MAX,
    IdParts,
    parts_of,
)
from sqlalchemy_shards.topology.keyspace import Keyspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards.topology.partitioners import Partitioner

WAITS_MAX: Final = 10_000
"""Waits of a millisecond for one id, after which the clocks are held to stand still."""

_WAIT_SECONDS: Final = 0.001


class IdGenerator:
    """Makes 64-bit ids, ordered by time, that carry the bucket of a shard key.

    Called with a shard-key value (a tuple of a key of several parts), it returns an id. As
    ``default=`` of a `GeneratedId` column it takes the shard key from the row that is inserted.

    Safe over threads. Over processes it is safe if each has a number of its own: give ``worker=``
    a different number in each, or a callable that finds one, such as `WorkerLease`.

    :param keyspace: the keyspace of the keys, with at most 4,096 buckets; or its name, which the
        cluster that inserts a row knows: then it serves as a default only.
    :param worker: number of this process, 0 to 127: no two processes that run at the same time may
        have the same. A callable is asked once in each process, when it makes its first id.
    :param clock: seconds since 1970, as `time.time`. It may be set back: ids go on from the latest
        time that was read.
    :param elapsed: seconds of a clock that is never set, as `time.monotonic`.
    :raises ConfigurationError: too many buckets, or no such worker number.
    """

    def __init__(
        self,
        keyspace: Keyspace | str,
        *,
        worker: int | Callable[[], int],
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(keyspace, Keyspace | str):
            raise ConfigurationError(
                f"an IdGenerator takes a Keyspace or the name of one, not "
                f"{type(keyspace).__qualname__!r}",
                "write IdGenerator(keyspace, worker=...)",
            )
        if isinstance(keyspace, Keyspace):
            _check_buckets(keyspace.partitioner)
        self._keyspace = keyspace
        self._worker = worker
        self._clock = clock
        self._elapsed = elapsed
        self._row_keys = RowKeyReader()
        self._processes: dict[int, _Process] = {}
        if not callable(worker):
            self._this_process()  # the number is of the process that gave it

    def __call__(self, key: Any) -> int:
        """Return a new id for a shard key.

        :param key: value of the shard key, as the database will hold it; a tuple for a key of
            several parts. SQLAlchemy gives its execution context instead, for a column's default.
        :raises RoutingError: the key has no bucket; see `Partitioner.bucket_of`.
        :raises ConfigurationError: the process was forked and has no worker number of its own, or
            the clock is before 2025 or after 2089.
        """
        if isinstance(key, ExecutionContext):
            return self._id_of_row(key)
        if isinstance(self._keyspace, str):
            raise ConfigurationError(
                f"the IdGenerator knows keyspace {self._keyspace!r} by name only, and no cluster "
                "tells it more here",
                "give the IdGenerator the Keyspace itself, or use it as a column's default",
            )
        return self._id_of(key if type(key) is tuple else (key,), self._keyspace.partitioner)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an IdGenerator cannot be pickled: two processes with one worker number would repeat "
            "ids; make one in each process"
        )

    @staticmethod
    def parts_of(value: int) -> IdParts | None:
        """Return what an id holds (its time, bucket and worker), None: it was not generated."""
        return parts_of(value)

    def _id_of_row(self, context: Any) -> int:
        row = self._row_keys.row_key(context)
        if isinstance(self._keyspace, Keyspace):
            return self._id_of(row.key, self._keyspace.partitioner)
        if row.keyspace != self._keyspace:
            raise ConfigurationError(
                f"the table's rows are placed by keyspace {row.keyspace!r}, and its IdGenerator is "
                f"for {self._keyspace!r}",
                "give the column an IdGenerator of its table's keyspace",
            )
        return self._id_of(row.key, _partitioner_of(context, row.keyspace))

    def _id_of(self, key: tuple[Any, ...], partitioner: Partitioner) -> int:
        bucket = partitioner.bucket_of(key)
        if not 0 <= bucket < partitioner.bucket_count:
            raise RoutingError(
                f"the partitioner answered bucket {bucket!r}, but has {partitioner.bucket_count}",
                "make its bucket_of() return a number from 0 to below its bucket_count",
            )
        process = self._this_process()
        for _ in range(WAITS_MAX):
            made = process.take(bucket, self._clock, self._elapsed)
            if made is not None:
                return made
            time.sleep(_WAIT_SECONDS)
        raise ConfigurationError(
            "no id can be made: the clocks stand still",
            "give the IdGenerator clocks that move",
        )

    def _this_process(self) -> _Process:
        pid = os.getpid()
        process = self._processes.get(pid)
        if process is None:
            # Two threads may come here at once: the first one's is kept, for both.
            process = self._processes.setdefault(pid, self._new_process())
        return process

    def _new_process(self) -> _Process:
        number = self._worker() if callable(self._worker) else self._worker
        if type(number) is not int or not 0 <= number < WORKERS_MAX:
            raise ConfigurationError(
                f"{number!r} is no worker number",
                f"give each process a whole number of its own, from 0 to {WORKERS_MAX - 1}",
            )
        if any(process.sequence.worker == number for process in self._processes.values()):
            raise ConfigurationError(
                f"this process was forked from one that makes ids as worker {number}, and would "
                "repeat them",
                "give worker= a callable that returns another number in each process, such as "
                "WorkerLease(...), or make the IdGenerator after the fork",
            )
        return _Process(number, self._clock, self._elapsed)


class _Process:
    """What one process has given out. A forked child never looks at its parent's lock."""

    __slots__ = ("_lock", "_time", "sequence")

    def __init__(
        self, worker: int, clock: Callable[[], float], elapsed: Callable[[], float]
    ) -> None:
        self._lock = Lock()
        self._time = SteadyTime(_milliseconds(clock), _milliseconds(elapsed))
        self.sequence = IdSequence(BUCKETS_WITH_IDS_MAX, worker)

    def take(
        self, bucket: int, clock: Callable[[], float], elapsed: Callable[[], float]
    ) -> int | None:
        """The next id of a bucket, None: not yet."""
        with self._lock:
            now = self._time.at(_milliseconds(clock), _milliseconds(elapsed))
            now -= EPOCH_UNIX_MILLISECONDS
            if not FIRST_MILLISECOND <= now <= LAST_MILLISECOND - _MARGIN:
                raise ConfigurationError(
                    "the clock is outside the years 2025 to 2089, of which ids are made",
                    "set the clock of this machine",
                )
            return self.sequence.take(bucket, now)


_MARGIN: Final = 60_000


def _milliseconds(clock: Callable[[], float]) -> int:
    return int(clock() * 1000)


def _check_buckets(partitioner: Partitioner) -> None:
    if partitioner.bucket_count > BUCKETS_WITH_IDS_MAX:
        raise ConfigurationError(
            f"a generated id cannot carry one of {partitioner.bucket_count} buckets",
            f"choose a keyspace with at most {BUCKETS_WITH_IDS_MAX}",
        )


def _partitioner_of(context: Any, keyspace: str) -> Partitioner:
    """The partitioner that the cluster has, through which a row is inserted."""
    cluster = getattr(context.dialect, "cluster", None)
    if cluster is None:
        raise ConfigurationError(
            f"keyspace {keyspace!r} is known by name only, and this engine has no cluster",
            "give the IdGenerator the Keyspace itself",
        )
    found = cluster.shard_map.keyspaces.get(keyspace)
    if found is None:
        raise ConfigurationError(
            f"there is no keyspace {keyspace!r}", "name one that the cluster has"
        )
    partitioner: Partitioner = found.partitioner
    _check_buckets(partitioner)
    return partitioner
