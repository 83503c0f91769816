"""The connection of an asyncio cluster: psycopg's own, whose waits are those of the event loop.

It is a `psycopg.Connection`, not an ``AsyncConnection``: what is called is what is called in any
cluster, from within SQLAlchemy's greenlets, and each wait lets other tasks go on.

- A task that is cancelled cancels its statement on the server, and drains the connection or closes
  it, before it goes on to unwind.
- The pipeline of an ``executemany`` is left in order then, within the time of a drain; or the
  connection is closed, and psycopg has nothing to tell of a pipeline that has no connection.
- Used by two tasks at once it raises; waiting for the other would be for ever.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from inspect import GEN_CLOSED, getgeneratorstate
from math import inf
from selectors import EVENT_READ
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psycopg
from greenlet import getcurrent
from psycopg.pq import ConnStatus, TransactionStatus

from sqlalchemy_shards._compat import await_only, check_may_await, in_greenlet
from sqlalchemy_shards.connections.cancelling import cancel_steps
from sqlalchemy_shards.connections.event_loop import EventLoopPoll, drive_request, until_ready
from sqlalchemy_shards.connections.event_loop_hub import EventLoopHub
from sqlalchemy_shards.connections.fan_out import Branch
from sqlalchemy_shards.connections.greenlets import BranchGreenlet, current_branch
from sqlalchemy_shards.connections.hub import GreenletFanOut, ShardConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from psycopg.abc import Params, PQGen, Query

T = TypeVar("T")


class AsyncShardCursor(psycopg.Cursor[Any]):
    """A cursor that SQLAlchemy's asyncio sessions may use."""

    def executemany(
        self, query: Query, params_seq: Iterable[Params], *, returning: bool = False
    ) -> None:
        """Run a statement for each row, in a pipeline that is left in order in any case."""
        connection = cast("AsyncShardConnection", self.connection)
        has_pipeline = psycopg.capabilities.has_pipeline()
        connection.runs_many = has_pipeline and not connection.pgconn.pipeline_status
        try:
            super().executemany(query, params_seq, returning=returning)
        finally:
            connection.runs_many = connection.leaves_pipeline = False

    async def _async_soft_close(self) -> None:
        """Close nothing: all rows are in the cursor."""


class AsyncShardServerCursor(psycopg.ServerCursor[Any]):
    """A server-side cursor that SQLAlchemy's asyncio sessions may use."""

    def close(self) -> None:
        """Close it; where nothing can be awaited, it ends on the server with its transaction."""
        if in_greenlet():
            super().close()
        else:  # as a result is that was left in the middle
            psycopg.Cursor.close(self)

    async def _async_soft_close(self) -> None:
        """Close nothing: the rows are on the server."""


class AsyncShardConnection(ShardConnection):
    """A psycopg connection that lets other tasks and other branches run while it waits."""

    make_poll = EventLoopPoll
    runs_many = False
    """Whether an ``executemany`` runs, in a pipeline of its own."""
    leaves_pipeline = False
    """Whether that was given up, so that nothing but the pipeline's end is left of it."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.cursor_factory = AsyncShardCursor
        self.server_cursor_factory = AsyncShardServerCursor

    @classmethod
    def _connecting(cls) -> Callable[[Any, float | None], Any]:
        return super()._connecting() or drive_request

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Drive ``gen`` to its end; let other tasks and branches run meanwhile."""
        current = getcurrent()
        if type(current) is BranchGreenlet:
            return super().wait(gen, interval, timeout)
        check_may_await(current)  # before anything is sent
        if self.leaves_pipeline:
            return self._leave_pipeline(gen)
        stop_at = inf if timeout is None else monotonic() + timeout
        events: int = EVENT_READ
        try:
            events = next(gen)
            while True:
                seconds = min(interval, stop_at - monotonic())
                # Raises where another task closed the connection, which no event loop tells.
                ready = await_only(until_ready(self.pgconn.socket, events, seconds))
                if not ready and monotonic() >= stop_at:
                    return self._say_timed_out(gen, interval)
                events = gen.send(ready)
        except StopIteration as stop:
            value: T = stop.value
            return value
        except Exception:
            raise
        except BaseException:
            self._give_up(gen, events)
            raise

    def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Cancel the running statement, without blocking the event loop."""
        if current_branch() is None and psycopg.capabilities.has_cancel_safe():
            drive_request(cancel_steps(self.pgconn), timeout)
        else:
            super().cancel_safe(timeout=timeout)

    def _would_hang(self) -> bool:
        return True  # whoever holds the lock needs the event loop of this thread

    def _misuse(self) -> psycopg.ProgrammingError:
        return psycopg.ProgrammingError(
            "the connection is in use by another task; give each task a session of its own"
        )

    def _give_up(self, gen: PQGen[Any], events: Any) -> None:
        """Cancel a statement that was broken off, and drain the connection, or close it."""
        if self.runs_many:
            # Active or not: what psycopg believes to be prepared is only so where its steps end.
            self.leaves_pipeline = True
            self._drain(_resumed(gen, events))
        elif self._is_active():
            try:
                self._drain(_resumed(gen, events))
            finally:
                if self._is_active():
                    self.pgconn.finish()
        _close(gen)

    def _leave_pipeline(self, gen: PQGen[T]) -> T:
        """Drive the end of a pipeline; its errors are those of what was given up."""
        if self.pgconn.status == ConnStatus.OK:
            self._drain(gen)
            _close(gen)
        return cast("T", None)

    def _drain(self, steps: PQGen[Any]) -> None:
        """Cancel what runs and drive ``steps`` to their end, or close the connection."""
        branch = Branch("", partial(self.wait, steps), lambda: self)
        try:
            GreenletFanOut(hub=EventLoopHub).run([branch], deadline_seconds=0.0)
        finally:
            if getgeneratorstate(cast("Any", steps)) != GEN_CLOSED:
                self.pgconn.finish()

    def _is_active(self) -> bool:
        return self.pgconn.transaction_status == TransactionStatus.ACTIVE


def _resumed(steps: PQGen[T], events: Any) -> Generator[Any, Any, T]:
    """The steps that are left, of which the next waits for these events."""
    try:
        while True:
            ready = yield events
            events = steps.send(ready)
    except StopIteration as stop:
        value: T = stop.value
        return value


def _close(gen: PQGen[Any]) -> None:
    """Close steps here; where Python does, it would print what those of a pipeline raise."""
    with suppress(Exception):
        gen.close()
