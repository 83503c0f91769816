"""What a fan-out takes and gives, and the one that runs its branches one after the other.

Invariants of every `FanOut`:

- there is one outcome for each branch, in the order of the branches;
- an ordinary error of one branch is its outcome and lets the others run to their end;
- what is no ordinary error (`KeyboardInterrupt`, `SystemExit`, …) is raised by ``run``, after no
  branch has a statement running any more.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")


class DriverConnection(Protocol):
    """What a fan-out needs of a driver's connection."""

    def cancel(self) -> None:
        """Ask the server, from any thread, to cancel the running statement."""


def not_connected() -> None:
    """Answer for a branch that has no connection yet."""


@dataclass(frozen=True, slots=True)
class Branch(Generic[T]):
    """The part of a fan-out that runs on one shard.

    :param shard: name of the shard, for errors.
    :param work: does the part and returns its value. It must use no connection of another branch.
    :param connection: gives the connection that ``work`` will use, or None where it has yet to
     connect.
    """

    shard: str
    work: Callable[[], T]
    connection: Callable[[], DriverConnection | None] = not_connected


def branch_for_each(shards: Iterable[str], work: Callable[[str], T]) -> list[Branch[T]]:
    """A branch for each shard, whose work is given its name, and connects by itself."""
    return [Branch(shard, partial(work, shard)) for shard in shards]


# Not frozen: three times as quick to make, and one is made for every statement on a single shard.
@dataclass(slots=True)
class Outcome(Generic[T]):
    """How a branch ended: with a value, or with an error."""

    shard: str
    value: T | None
    error: Exception | None

    def result(self) -> T:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


class FanOut(Protocol):
    """Runs branches and keeps all their outcomes."""

    def run(
        self, branches: Sequence[Branch[T]], *, deadline_seconds: float | None = None
    ) -> list[Outcome[T]]:
        """Run the branches; return their outcomes in the same order.

        :param deadline_seconds: time for all of them together, from now. The outcome of a branch
         that did not end in it is a `DeadlineExceeded` error.
        """


class DeadlineExceeded(psycopg.errors.QueryCanceled):
    """The deadline of a fan-out passed before this branch ended.

    A driver's error of the class that a cancelled statement has (SQLSTATE 57014), so that
    SQLAlchemy and callers treat it as one.
    """

    shard: str | None = None

    @classmethod
    def on(cls, shard: str, deadline_seconds: float, consequence: str) -> DeadlineExceeded:
        """Return the error for a shard; ``consequence`` says what became of its statement."""
        error = cls(
            f"the deadline of {deadline_seconds:g} s passed on shard {shard!r}; {consequence}"
        )
        error.shard = shard
        return error


def run_branch(branch: Branch[T]) -> Outcome[T]:
    """Run one branch in the caller and return its outcome."""
    try:
        return Outcome(branch.shard, branch.work(), None)
    except Exception as error:
        return Outcome(branch.shard, None, error)


class SequentialFanOut:
    """Runs branches one after the other, with any driver.

    At the deadline the running statement is cancelled through its branch's connection and the
    branches that remain are not begun. A server that does not answer the cancel is waited for.
    """

    def run(
        self, branches: Sequence[Branch[T]], *, deadline_seconds: float | None = None
    ) -> list[Outcome[T]]:
        """Run the branches as `FanOut.run` says."""
        if deadline_seconds is None:
            return [run_branch(branch) for branch in branches]
        watch = _DeadlineWatch(deadline_seconds)
        try:
            return [watch.run(branch) for branch in branches]
        finally:
            watch.stop()


class AdaptiveFanOut:
    """Runs branches at once where all their connections can, else one after the other."""

    def __init__(self, concurrent: FanOut, sequential: FanOut | None = None) -> None:
        self.concurrent = concurrent
        self.sequential: FanOut = SequentialFanOut() if sequential is None else sequential

    def run(
        self, branches: Sequence[Branch[T]], *, deadline_seconds: float | None = None
    ) -> list[Outcome[T]]:
        """Run the branches as `FanOut.run` says."""
        if len(branches) == 1 and deadline_seconds is None:
            return [run_branch(branches[0])]
        chosen = choose_fan_out(branches, concurrent=self.concurrent, sequential=self.sequential)
        return chosen.run(branches, deadline_seconds=deadline_seconds)


def choose_fan_out(
    branches: Sequence[Branch[Any]], *, concurrent: FanOut, sequential: FanOut
) -> FanOut:
    """Return ``concurrent`` if each branch has yet to connect or can wait in a hub."""
    for branch in branches:
        connection = branch.connection()
        if connection is not None and not getattr(connection, "waits_in_hub", False):
            return sequential
    return concurrent


class _DeadlineWatch:
    """Cancels the branch that runs when the deadline passes, from a timer's thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = monotonic() + seconds
        # Held while cancelling, so that the cancel cannot hit the statement of a later branch.
        self._lock = threading.Lock()
        self._running: Branch[Any] | None = None
        self._timer = threading.Timer(seconds, self._cancel)
        self._timer.daemon = True
        self._timer.start()

    def run(self, branch: Branch[T]) -> Outcome[T]:
        if monotonic() >= self._deadline:
            consequence = "nothing was begun there"
            return Outcome(branch.shard, None, self._error(branch, consequence))
        with self._lock:
            self._running = branch
        try:
            outcome = run_branch(branch)
        finally:
            with self._lock:
                self._running = None
        if monotonic() >= self._deadline and isinstance(
            outcome.error, psycopg.errors.QueryCanceled
        ):
            error = self._error(branch, "its statement was cancelled")
            error.__cause__ = outcome.error
            return Outcome(branch.shard, None, error)
        return outcome

    def stop(self) -> None:
        self._timer.cancel()
        self._timer.join()

    def _cancel(self) -> None:
        with self._lock:
            connection = self._running.connection() if self._running is not None else None
            if connection is not None:
                # A connection that is gone has nothing to cancel: its branch has its own error.
                with suppress(Exception):
                    connection.cancel()

    def _error(self, branch: Branch[Any], consequence: str) -> DeadlineExceeded:
        return DeadlineExceeded.on(branch.shard, self._seconds, consequence)
