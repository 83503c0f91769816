"""The concurrent fan-out of an asyncio cluster: its loop waits on asyncio's.

The same branches, cancelling and draining as of any fan-out (`loop`). What is added:

- The selector of all branches is one descriptor, which asyncio's event loop watches. Whatever the
  branches find ready, other tasks have their turn every `BUSY_SECONDS`.
- A branch may await, as a pool does that waits for a connection: what it awaits becomes a task, and
  the others go on.
- When the caller's task is cancelled, the statements of all branches are cancelled and drained.
  Further cancellations do not cut that short: libraries repeat them until the task has ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from selectors import EVENT_READ, EVENT_WRITE
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards._compat import await_only, check_may_await, let_await
from sqlalchemy_shards.connections.event_loop import running_loop, unwatch, watch
from sqlalchemy_shards.connections.loop import Hub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy_shards.connections.fan_out import Outcome
    from sqlalchemy_shards.connections.greenlets import BranchGreenlet

BUSY_SECONDS: Final = 0.005
"""How long branches may go on without a turn for other tasks."""


class EventLoopHub(Hub):
    """Runs the branches of one fan-out within a task of asyncio."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._awaited: dict[BranchGreenlet, asyncio.Future[Any]] = {}
        self._ended: deque[tuple[BranchGreenlet, asyncio.Future[Any]]] = deque()
        self._alarm: asyncio.Future[None] | None = None
        self._yielded_at = -inf

    def run(self) -> list[Outcome[Any]]:
        """Run all branches: nothing is begun where it could not be waited for."""
        check_may_await(self.home)
        return super().run()

    def _greenlet(self, work: Callable[[], None], shard: str) -> BranchGreenlet:
        branch = super()._greenlet(work, shard)
        let_await(branch)
        return branch

    def _ready(self, timeout: float) -> list[tuple[BranchGreenlet, int]]:
        is_busy = monotonic() - self._yielded_at > BUSY_SECONDS
        found = [] if is_busy else self._sockets.ready(0)
        if not found and not self._ended:
            self._wait(timeout)
            found = self._sockets.ready(0)
        self._resume_ended()
        return found

    def _wait(self, timeout: float) -> None:
        try:
            await_only(self._until_anything(timeout))
        except asyncio.CancelledError:
            if not self._gave_up:
                raise

    async def _until_anything(self, timeout: float) -> None:
        loop = running_loop()
        self._alarm = loop.create_future()
        timer = None if timeout == inf else loop.call_later(timeout, self._ring)
        watched = []
        try:
            for each, events in self._descriptors():
                watch(loop, each, events & EVENT_READ, events & EVENT_WRITE, self._ring)
                watched.append((each, events))
            await self._alarm
        finally:
            self._alarm = None
            for each, events in watched:
                unwatch(loop, each, events & EVENT_READ, events & EVENT_WRITE)
            if timer is not None:
                timer.cancel()
            self._yielded_at = monotonic()

    def _descriptors(self) -> list[tuple[int, int]]:
        """What the event loop watches for all branches, and for which events."""
        selector: Any = self._sockets.selector
        if hasattr(selector, "fileno"):
            return [(selector.fileno(), EVENT_READ)]
        # Of Windows, where a selector is no descriptor.
        return [(key.fd, key.events) for key in selector.get_map().values()]

    def _ring(self, event: int = 0) -> None:
        del event
        if self._alarm is not None and not self._alarm.done():
            self._alarm.set_result(None)

    # Branches that await

    def _after_switch(self, branch: BranchGreenlet, yielded: Any) -> None:
        while self._drain_over and not branch.dead and yielded:
            _forget(yielded)
            yielded = branch.throw(asyncio.CancelledError())
        if yielded and not branch.dead:
            self._await(branch, yielded)
        super()._after_switch(branch, yielded)

    def _await(self, branch: BranchGreenlet, awaitable: Awaitable[Any]) -> None:
        self._sockets.unwatch(branch)
        branch.wake_at = inf
        future = self._awaited[branch] = asyncio.ensure_future(awaitable)
        future.add_done_callback(lambda future: self._note_end(branch, future))

    def _note_end(self, branch: BranchGreenlet, future: asyncio.Future[Any]) -> None:
        self._ended.append((branch, future))
        self._ring()

    def _resume_ended(self) -> None:
        while self._ended:
            branch, future = self._ended.popleft()
            error = asyncio.CancelledError() if future.cancelled() else future.exception()
            if self._awaited.get(branch) is not future:
                continue  # told meanwhile that the fan-out is given up
            del self._awaited[branch]
            if error is not None:
                self._after_switch(branch, branch.throw(error))
            else:
                self._switch(branch, future.result())

    def _tell(self, branch: BranchGreenlet, consequence: str) -> None:
        awaited = self._awaited.pop(branch, None)
        if awaited is not None:
            awaited.cancel()
        super()._tell(branch, consequence)


def _forget(awaitable: Any) -> None:
    if asyncio.iscoroutine(awaitable):
        awaitable.close()
    else:
        awaitable.cancel()
