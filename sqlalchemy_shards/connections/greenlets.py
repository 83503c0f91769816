"""The greenlet of a branch, and the sockets that greenlets wait for.

Nothing here is global: a branch's greenlet carries its hub, so that whatever runs in it finds the
hub without asking the thread, and a copy of its caller's context variables.
"""

from __future__ import annotations

import selectors
from contextlib import suppress
from contextvars import copy_context
from math import inf
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Any, Final, Protocol

from greenlet import getcurrent, greenlet

from sqlalchemy_shards.connections.polling import READ, WRITE, make_poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards.connections.loop import Hub
    from sqlalchemy_shards.connections.polling import SelectPoll

PAUSE_SECONDS: Final = 0.002
"""How often a branch looks again at what no socket tells it."""

STEPS_IN_A_ROW: Final = 64
"""How many steps a branch takes on a socket that is ready before the others have their turn."""


class Waitable(Protocol):
    """What the loop needs of a connection."""

    @property
    def pgconn(self) -> Any:
        """Its libpq connection."""


class WaitTimedOut(Exception):
    """The time given to one wait is over; its generator can go on."""


class BranchGreenlet(greenlet):  # type: ignore[misc]
    """The greenlet of one branch: carries its hub and a context of its own."""

    def __init__(self, hub: Hub, work: Callable[[], None], shard: str) -> None:
        super().__init__(work, hub.home)
        self.gr_context = copy_context()
        self.hub = hub
        self.shard = shard
        self.connection: Waitable | None = None
        self.fd = -1
        self.events = 0
        self.wake_at = inf
        self.steps_left = STEPS_IN_A_ROW
        self.told = False  # it knows that the fan-out is given up, and is unwinding
        self.notice: BaseException | None = None  # how it was told


def current_branch() -> BranchGreenlet | None:
    """Return the branch that the caller runs in, if it runs in one."""
    current = getcurrent()
    return current if type(current) is BranchGreenlet else None


def ready_now(fd: int, events: int, make: Callable[[], SelectPoll] = make_poll) -> int:
    """For which of ``events`` a socket is ready, 0 for none; one with an error is for all.

    It is looked at without waiting, and without a selector.
    """
    poll = make()
    poll.register(fd, (events & EVENT_READ and READ) | (events & EVENT_WRITE and WRITE))
    for _, found in poll.poll(0):
        return events & (bool(found & ~WRITE) * EVENT_READ | bool(found & ~READ) * EVENT_WRITE)
    return 0


class SocketWatch:
    """Tells which branches' sockets are ready; each branch waits for one at a time.

    A branch's ``fd`` is the socket that is watched for it, -1 for none. It is changed before the
    selector, so that what an interruption leaves half done is found by the next `watch`.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, branch: BranchGreenlet, fd: int, events: int) -> None:
        """Watch ``fd`` for ``branch`` instead of what was watched for it; -1 for nothing."""
        self.unwatch(branch)
        if fd < 0:
            return
        branch.fd, branch.events = fd, events
        try:
            self._selector.register(fd, events, branch)
        except (KeyError, OSError):
            self._begin_anew(branch)

    def unwatch(self, branch: BranchGreenlet) -> None:
        """Watch nothing for ``branch``."""
        fd = branch.fd
        if fd >= 0:
            branch.fd = -1
            try:  # noqa: SIM105  a context manager costs as much as the rest
                self._selector.unregister(fd)
            except KeyError:  # interrupted before it was registered
                pass

    def ready(self, timeout: float) -> list[tuple[BranchGreenlet, int]]:
        """Wait up to ``timeout`` seconds; return the branches whose sockets are ready for what."""
        return [(key.data, events) for key, events in self._selector.select(timeout)]

    @property
    def selector(self) -> selectors.BaseSelector:
        """What watches the sockets now."""
        return self._selector

    def close(self) -> None:
        """Let go of the selector."""
        self._selector.close()

    def _begin_anew(self, branch: BranchGreenlet) -> None:
        """Replace a selector whose idea of its sockets was broken by an interruption."""
        others = [key.data for key in self._selector.get_map().values()]
        self._selector.close()
        self._selector = selectors.DefaultSelector()
        for other in others:
            if other is not branch and other.fd >= 0:
                # A socket that was closed meanwhile is found out by its own branch.
                with suppress(OSError):
                    self._selector.register(other.fd, other.events, other)
        self._selector.register(branch.fd, branch.events, branch)
