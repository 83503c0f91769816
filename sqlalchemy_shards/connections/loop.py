"""The loop under a fan-out: resumes each branch when the socket it waits for is ready.

One `Hub` serves one fan-out, in the thread that called it, and is gone with it. Invariants:

- Only the loop switches to branches, and a branch switches only to the loop, in `Hub._park`.
- A branch waits for one thing at a time; while it does, its greenlet says for what.
- A branch that has to write looks at its socket itself before it waits, since a pipeline asks
  before each of its commands and is nearly always ready. After `STEPS_IN_A_ROW` of such steps it
  waits all the same: no branch keeps the loop from the others, a deadline or a Ctrl-C.
- Giving up (deadline, Ctrl-C, any error of the loop itself) goes one way: cancel all running
  statements at once, let them drain for ``drain_seconds``, close what is left. Each branch is told
  once, by an exception out of a wait; what it waits for while it unwinds (a rollback) may take
  until the drain ends, after which every wait raises. A statement that ended well although the
  deadline had passed keeps its value, since that is the truth, and the next one is cancelled.
- When `Hub.run` returns or raises, no branch lives, no cancel request is under way that could hit a
  later statement, and no socket is watched.

A signal's exception can come out between any two bytecodes, in the loop or in a branch. So what
lives is read off the greenlets rather than counted, and a statement that was interrupted inside its
branch is drained from there (`Hub._drain_interrupted`).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from math import inf
from selectors import EVENT_WRITE
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import psycopg
from greenlet import GreenletExit, getcurrent
from psycopg.pq import TransactionStatus

from sqlalchemy_shards.connections.cancelling import cancel_in_thread, cancel_steps
from sqlalchemy_shards.connections.fan_out import Branch, DeadlineExceeded, Outcome, run_branch
from sqlalchemy_shards.connections.greenlets import (
    PAUSE_SECONDS,
    STEPS_IN_A_ROW,
    BranchGreenlet,
    SocketWatch,
    Waitable,
    WaitTimedOut,
    ready_now,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

T = TypeVar("T")

CANCEL_AGAIN_SECONDS: Final = 0.5
"""A cancel that reaches a server before its statement is lost, so it is repeated at this rate."""

_ACTIVE = TransactionStatus.ACTIVE
_logger = logging.getLogger(__name__)


class Hub:
    """Runs the branches of one fan-out, ``width`` at a time."""

    def __init__(
        self,
        branches: Sequence[Branch[Any]],
        *,
        width: int,
        drain_seconds: float,
        deadline_seconds: float | None,
    ) -> None:
        self.home = getcurrent()
        self.thread = threading.get_ident()
        self._branches = branches
        self._queue = deque(range(len(branches)))
        self._outcomes: list[Outcome[Any] | None] = [None] * len(branches)
        self._width = width
        self._drain_seconds = drain_seconds
        self._deadline_seconds = deadline_seconds
        self._live: set[BranchGreenlet] = set()
        self._cancelling: set[Waitable] = set()
        self._next_wake = inf
        self._gave_up = False
        self._drain_over = False
        self._cause: BaseException | None = None
        self._interruption: BaseException | None = None
        self._sockets = SocketWatch()

    def run(self) -> list[Outcome[Any]]:
        """Run all branches; return their outcomes, or raise what interrupted them."""
        seconds = self._deadline_seconds
        try:
            if not self._loop(inf if seconds is None else monotonic() + seconds):
                self._give_up(None)
        except BaseException as error:
            self._give_up(error)
            raise
        finally:
            try:
                self._close_rest()
            finally:
                self._close_rest()  # where yet another interruption cut it short
                self._sockets.close()
        return [
            outcome or Outcome(branch.shard, None, self._deadline_error(branch.shard, _UNBEGUN))
            for branch, outcome in zip(self._branches, self._outcomes, strict=True)
        ]

    # What a branch calls, in its own greenlet

    def wait(
        self,
        connection: Waitable,
        steps: Generator[int, int, T],
        interval: float,
        timeout: float | None = None,
    ) -> T:
        """Drive ``steps`` of a statement on ``connection`` to their end.

        :param interval: seconds after which ``steps`` gets a tick (0) where its socket is silent.
        :param timeout: seconds after which `WaitTimedOut` is raised, with ``steps`` left usable.
        """
        branch = self._branch_that_may_wait(connection)
        stop_at = inf if timeout is None else monotonic() + timeout
        branch.connection = connection
        try:
            value = self._drive(branch, steps, interval, stop_at)
        except psycopg.errors.QueryCanceled as error:
            if self._gave_up and not branch.told:
                raise self._notice(branch, _CANCELLED) from error
            raise
        except (psycopg.Error, WaitTimedOut):
            raise
        except BaseException as error:
            try:
                if error is not branch.notice:
                    self._drain_interrupted(branch, steps, error)
            finally:
                branch.told = branch.told or not isinstance(error, Exception)
                if connection.pgconn.transaction_status == _ACTIVE:
                    # Broken off in the middle of its steps: nothing can read the answer any more.
                    connection.pgconn.finish()
            raise
        finally:
            branch.connection = None
            self._sockets.unwatch(branch)
        if self._cause is not None and not branch.told:
            raise self._notice(branch, _CANCELLED)
        return value

    def connect(self, steps: Generator[tuple[int, int], int, T], timeout: float | None) -> T:
        """Drive ``steps`` of an attempt to connect to their end.

        Each step names its socket: libpq may go on to the next address under another one.

        :raises psycopg.errors.ConnectionTimeout: it took longer than ``timeout`` seconds.
        """
        branch = cast("BranchGreenlet", getcurrent())
        if self._gave_up:  # unlike a statement, nothing that unwinding could need
            raise self._notice(branch, _UNBEGUN)
        return self._drive_request(branch, steps, inf if timeout is None else monotonic() + timeout)

    def pause(self, seconds: float) -> None:
        """Let the other branches run for ``seconds``."""
        branch = self._branch_that_may_wait()
        self._park(branch, -1, 0, monotonic() + seconds)

    def _branch_that_may_wait(self, connection: Waitable | None = None) -> BranchGreenlet:
        branch = cast("BranchGreenlet", getcurrent())
        while connection in self._cancelling and not self._drain_over:
            # The cancel must not hit what the branch does to clean up.
            self._park(branch, -1, 0, monotonic() + PAUSE_SECONDS)
        if self._drain_over:
            if connection is not None:
                # Refused in its clean-up, psycopg's idea of its transaction would be wrong.
                connection.pgconn.finish()
            raise self._notice(branch, _CLOSED)
        return branch

    def _drive(
        self, branch: BranchGreenlet, steps: Generator[int, int, T], interval: float, stop_at: float
    ) -> T:
        connection = cast("Waitable", branch.connection)
        fd: int = connection.pgconn.socket
        try:
            events = next(steps)
            while True:
                ready = _ready_to_write(branch, fd, events) or self._park(
                    branch, fd, events, min(monotonic() + interval, stop_at)
                )
                if not ready:
                    # Raises where another thread closed the connection, which no selector tells.
                    fd = connection.pgconn.socket
                    if monotonic() >= stop_at:
                        raise WaitTimedOut
                events = steps.send(ready)
        except StopIteration as stop:
            return cast("T", stop.value)

    def _drive_request(
        self, branch: BranchGreenlet, steps: Generator[tuple[int, int], int, T], stop_at: float
    ) -> T:
        try:
            fd, events = next(steps)
            while True:
                wake_at = min(monotonic() + _TICK_SECONDS, stop_at)
                ready = self._park(branch, fd, events, wake_at)
                # Before the step, which may close this socket and get its number for another one.
                self._sockets.unwatch(branch)
                if not ready and monotonic() >= stop_at:
                    raise psycopg.errors.ConnectionTimeout("connection timeout expired")
                fd, events = steps.send(ready)
        except StopIteration as stop:
            return cast("T", stop.value)
        finally:
            self._sockets.unwatch(branch)
            steps.close()

    def _drain_interrupted(
        self, branch: BranchGreenlet, steps: Generator[int, int, Any], error: BaseException
    ) -> None:
        """Let a statement end that was interrupted within this branch, not within the loop."""
        pgconn = cast("Waitable", branch.connection).pgconn
        if isinstance(error, Exception) or pgconn.transaction_status != _ACTIVE:
            return
        self._interruption = error  # the loop sees it as soon as this branch waits
        self._sockets.unwatch(branch)  # it may have been watched only by half
        with suppress(Exception):
            self._drive(branch, steps, _TICK_SECONDS, inf)

    def _park(self, branch: BranchGreenlet, fd: int, events: int, wake_at: float) -> int:
        """Wait until ``fd`` is ready (returns for what) or it is ``wake_at`` (returns 0)."""
        if branch.fd != fd or branch.events != events:
            self._sockets.watch(branch, fd, events)
        branch.wake_at, branch.steps_left = wake_at, STEPS_IN_A_ROW
        if wake_at < self._next_wake:
            self._next_wake = wake_at
        return cast("int", self.home.switch())

    # The loop, in the greenlet that called `run`

    def _loop(self, until: float) -> bool:
        """Resume branches until all have ended; False where the time ``until`` came first."""
        while True:
            while self._queue and len(self._live) < self._width:
                self._begin(self._queue.popleft())
            if not self._live:
                return True
            timeout = max(0.0, min(self._next_wake, until) - monotonic())
            for branch, ready in self._ready(timeout):
                self._switch(branch, ready)
            now = monotonic()
            if now >= self._next_wake:
                self._wake_sleepers(now)
            if now >= until:
                return not self._live and not self._queue

    def _ready(self, timeout: float) -> list[tuple[BranchGreenlet, int]]:
        return self._sockets.ready(timeout)

    def _begin(self, index: int) -> None:
        branch = self._branches[index]
        self._spawn(partial(self._work, index), branch.shard)

    def _work(self, index: int) -> None:
        """Be the body of a branch's greenlet."""
        try:
            outcome = self._outcomes[index] = run_branch(self._branches[index])
            hidden = _interruption_behind(outcome.error)
            if hidden is not None:
                _close(self._branches[index])
                self._take_interruption(hidden)
        except BaseException as error:
            _close(self._branches[index], only_in_pipeline=True)
            self._take_interruption(error)

    def _take_interruption(self, error: BaseException) -> None:
        """Let the loop see what interrupted the present branch, unless it came from the loop."""
        branch = cast("BranchGreenlet", getcurrent())
        if error is not branch.notice and error is not self._cause:
            self._interruption = error

    def _spawn(self, work: Callable[[], None], shard: str) -> BranchGreenlet:
        branch = self._greenlet(work, shard)
        self._live.add(branch)
        self._switch(branch)
        return branch

    def _greenlet(self, work: Callable[[], None], shard: str) -> BranchGreenlet:
        return BranchGreenlet(self, work, shard)

    def _switch(self, branch: BranchGreenlet, *values: Any) -> None:
        self._after_switch(branch, branch.switch(*values))

    def _after_switch(self, branch: BranchGreenlet, yielded: Any) -> None:
        """Go on in the loop, when a branch has ended, or waits: for what it has ``yielded``."""
        if branch.dead:
            self._live.discard(branch)
            self._sockets.unwatch(branch)
        if self._interruption is not None:
            error, self._interruption = self._interruption, None
            raise error

    def _wake_sleepers(self, now: float) -> None:
        due = [branch for branch in self._live if branch.wake_at <= now]
        later = (branch.wake_at for branch in self._live if branch.wake_at > now)
        self._next_wake = min(later, default=inf)
        for branch in due:
            self._switch(branch, 0)

    # Giving up

    def _give_up(self, cause: BaseException | None) -> None:
        """Cancel and drain; ``cause`` is what interrupted, None for the deadline.

        A second interruption is raised, which cuts the draining short.
        """
        if not self._gave_up:
            self._gave_up, self._cause = True, cause
            self._queue.clear()
            self._cancel_and_drain()

    def _cancel_and_drain(self) -> None:
        until = monotonic() + self._drain_seconds
        while monotonic() < until:
            self._live = {branch for branch in self._live if not branch.dead}
            for branch in tuple(self._live):
                self._interrupt(branch)
            if self._loop(min(until, monotonic() + CANCEL_AGAIN_SECONDS)):
                return

    def _interrupt(self, branch: BranchGreenlet) -> None:
        connection = branch.connection
        if branch.told or branch.dead:
            return
        if connection is None or connection.pgconn.transaction_status != _ACTIVE:
            self._tell(branch, _UNBEGUN)
        elif connection not in self._cancelling:
            self._cancelling.add(connection)
            self._spawn(partial(self._cancel, connection), branch.shard)

    def _cancel(self, connection: Waitable) -> None:
        """Be the body of the greenlet that sends a cancel request."""
        request = cast("BranchGreenlet", getcurrent())
        request.told = True
        # A request that failed is no longer under way, and is made again while the drain lasts.
        with suppress(psycopg.Error, OSError):
            if psycopg.capabilities.has_cancel_safe():
                self._drive_request(request, cancel_steps(connection.pgconn), inf)
            else:
                under_way = cancel_in_thread(connection.pgconn)
                while under_way():
                    self._park(request, -1, 0, monotonic() + PAUSE_SECONDS)
        self._cancelling.discard(connection)

    def _close_rest(self) -> None:
        """Close every connection that still has a statement or a cancel request under way."""
        if not self._live:
            return
        self._drain_over = True
        rest = [branch for branch in self._live if not branch.dead]
        for branch in rest:
            if branch.connection is not None:
                _logger.warning("shard %r: closing a connection that did not drain", branch.shard)
                branch.connection.pgconn.finish()
        for connection in self._cancelling:
            connection.pgconn.finish()
        second: BaseException | None = None
        for branch in rest:
            try:
                self._tell(branch, _CLOSED)
            except BaseException as error:  # the others must be told all the same
                second = error
        if second is not None:
            raise second

    def _tell(self, branch: BranchGreenlet, consequence: str) -> None:
        """Raise in a branch, at its present wait, that the fan-out is given up."""
        yielded = None
        if branch:
            yielded = branch.throw(self._notice(branch, consequence))
        else:  # interrupted before it began: nothing is there to be told
            self._live.discard(branch)
        self._after_switch(branch, yielded)

    def _notice(self, branch: BranchGreenlet, consequence: str) -> BaseException:
        branch.told = True
        if self._cause is not None:
            branch.notice = GreenletExit()
        else:
            branch.notice = self._deadline_error(branch.shard, consequence)
        return branch.notice

    def _deadline_error(self, shard: str, consequence: str) -> DeadlineExceeded:
        return DeadlineExceeded.on(shard, self._deadline_seconds or 0.0, consequence)


def _ready_to_write(branch: BranchGreenlet, fd: int, events: int) -> int:
    """For what a branch that has to write can go on at once; 0: it has to wait for its turn."""
    if not events & EVENT_WRITE or branch.steps_left == 0:
        return 0
    branch.steps_left -= 1
    return ready_now(fd, events)


def _interruption_behind(error: BaseException | None) -> BaseException | None:
    """The interruption in whose clean-up an ordinary error was raised, which hides it.

    psycopg makes an `AssertionError` of one at the beginning or the end of a pipeline.
    """
    # A branch's greenlet begins without a context, so that this is nobody else's.
    while isinstance(error, Exception):
        error = error.__context__
    return None if isinstance(error, GeneratorExit) else error


def _close(branch: Branch[Any], *, only_in_pipeline: bool = False) -> None:
    """Close a connection that was interrupted where psycopg is not ready for it.

    :param only_in_pipeline: if it was left in a pipeline, and would take no statement any more.
    """
    pgconn = getattr(branch.connection(), "pgconn", None)
    is_in_pipeline = psycopg.capabilities.has_pipeline() and pgconn and pgconn.pipeline_status
    if pgconn is not None and (is_in_pipeline or not only_in_pipeline):
        pgconn.finish()


_TICK_SECONDS = 0.1
_UNBEGUN = "nothing more was begun there"
_CANCELLED = "its statement was cancelled"
_CLOSED = "its connection was closed, since the server did not answer the cancel"
