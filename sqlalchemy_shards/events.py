"""What happened, as data; who is told; and the places where tests may make it fail.

An event is a frozen record without passwords or row values. `Hooks` belongs to one cluster: its
listeners are called in the thread where the thing happened, right after it happened, and an
exception in one is the caller's.

A fail-point is a named place that a protocol passes. Disarmed, it costs one attribute read.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EventT = TypeVar("EventT", bound="Event")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the cluster called ``cluster``."""

    cluster: str


@dataclass(frozen=True, slots=True)
class DistributedCommit(Event):
    """A transaction was committed on several shards, and finished on all of them."""

    gid: str
    participants: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class CommitUnfinished(Event):
    """A transaction was committed, but the shards in ``unfinished`` did not yet confirm it."""

    gid: str
    unfinished: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TransactionRecovered(Event):
    """Recovery finished the part of a distributed transaction on one shard."""

    gid: str
    shard: str
    outcome: str


@dataclass(frozen=True, slots=True)
class RecoveryRun(Event):
    """A recovery ended.

    :param recovered: parts that it finished.
    :param in_doubt: distributed transactions that stay prepared.
    :param failed: parts that are settled and could not be finished.
    :param unreachable: shards that did not answer.
    """

    recovered: int
    in_doubt: int
    failed: int
    unreachable: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class RecoveryFailed(Event):
    """A run of a `RecoveryWorker` was broken off by an error; it goes on trying."""

    error: str


@dataclass(frozen=True, slots=True)
class SnapshotsTaken(Event):
    """A transaction began whose snapshots show the same transactions on all ``shards``.

    :param attempts: how often snapshots were taken and compared.
    """

    shards: tuple[str, ...]
    attempts: int
    seconds: float


class Hooks:
    """Listeners and fail-points of one cluster."""

    def __init__(self) -> None:
        self._listeners: list[tuple[type[Event], Callable[[Event], None]]] = []
        self.fail_points: Mapping[str, Callable[[str], None]] | None = None

    def listen(self, event_type: type[EventT], function: Callable[[EventT], None]) -> None:
        """Call ``function`` with every event of ``event_type`` or a subclass of it."""
        self._listeners.append((event_type, function))  # type: ignore[arg-type]

    def unlisten(self, event_type: type[EventT], function: Callable[[EventT], None]) -> None:
        """Call it no more. Nothing happens if it was not called."""
        with suppress(ValueError):
            self._listeners.remove((event_type, function))  # type: ignore[arg-type]

    def publish(self, event: Event) -> None:
        """Tell the listeners, in the order in which they were added."""
        for event_type, function in self._listeners:
            if isinstance(event, event_type):
                function(event)

    def reach(self, fail_point: str, shard: str | None = None) -> None:
        """Pass the place named ``fail_point``; run what a test has put there, if anything.

        :param shard: whose arrow it is, where several shards have one of that name.
        """
        if (armed := self.fail_points) is not None:
            name = fail_point if shard is None else at(fail_point, shard)
            if name in armed:
                armed[name](name)


def at(fail_point: str, shard: str) -> str:
    """Return the name of a fail-point on one shard's arrow."""
    return f"{fail_point}:{shard}"
