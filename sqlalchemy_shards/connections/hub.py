"""The concurrent fan-out, and the connection that can take part in it.

Invariants:

- Nothing is global: a branch's greenlet knows its hub, a connection the branch that waits on it.
- Outside a fan-out a `ShardConnection` is a `psycopg.Connection`, blocking waits included; so is it
  in a greenlet that is no branch (SQLAlchemy's asyncio bridge).
- A connection that another branch uses raises; it is never waited for, which would be for ever.

Written against psycopg 3.2.3 to 3.3. One private name of psycopg is overridden, `_connect_gen`;
were it gone, connecting in a branch would block the branches beside it, and nothing else.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import psycopg
from greenlet import getcurrent
from psycopg.conninfo import conninfo_to_dict, timeout_from_conninfo

from sqlalchemy_shards._compat import in_greenlet
from sqlalchemy_shards.connections.event_loop import sleep
from sqlalchemy_shards.connections.fan_out import Branch, Outcome, run_branch
from sqlalchemy_shards.connections.greenlets import (
    PAUSE_SECONDS,
    BranchGreenlet,
    WaitTimedOut,
    current_branch,
)
from sqlalchemy_shards.connections.loop import Hub
from sqlalchemy_shards.connections.polling import make_poll

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from psycopg.abc import PQGen, PQGenConn
    from typing_extensions import Self

    from sqlalchemy_shards.connections.polling import SelectPoll

T = TypeVar("T")


class GreenletFanOut:
    """Runs branches at once in the calling thread, each in a greenlet, over a selector.

    Branches whose connections are `ShardConnection` wait side by side; what else blocks (Python
    code, another kind of connection, an exhausted pool) holds up the branches beside it. Any number
    of threads may call `run` of one object at the same time.

    :param width: how many branches run at once; the others queue.
    :param drain_seconds: after statements were cancelled, how long their ends are waited for before
     their connections are closed.
    :param hub: what runs the branches.
    """

    def __init__(self, width: int = 64, drain_seconds: float = 5.0, hub: type[Hub] = Hub) -> None:
        self.width = width
        self.drain_seconds = drain_seconds
        self._hub = hub

    def run(
        self, branches: Sequence[Branch[T]], *, deadline_seconds: float | None = None
    ) -> list[Outcome[T]]:
        """Run the branches; return their outcomes in the same order.

        A single branch without a deadline simply runs in the caller. At the deadline, and whenever
        something that is no ordinary error comes out of a branch or interrupts the run, all running
        statements are cancelled on their servers.

        :param deadline_seconds: time for all branches together, from now; the outcome of one that
         did not end in it is a `DeadlineExceeded` error.
        :raises BaseException: what interrupted the run (Ctrl-C), after all connections were drained
         or closed. A second Ctrl-C closes them at once.
        :raises psycopg.ProgrammingError: it was called from within a branch.
        """
        if len(branches) == 1 and deadline_seconds is None:
            return [run_branch(branches[0])]
        if current_branch() is not None:
            raise psycopg.ProgrammingError(
                "a fan-out was begun within a branch of another one; give its branches to the "
                "outer fan-out, or run them one after the other"
            )
        hub = self._hub(
            branches,
            width=self.width,
            drain_seconds=self.drain_seconds,
            deadline_seconds=deadline_seconds,
        )
        return hub.run()


class ShardConnection(psycopg.Connection[Any]):
    """A psycopg connection that lets other branches run while it waits for its server."""

    waits_in_hub: ClassVar[bool] = True
    make_poll: ClassVar[Callable[[], SelectPoll]] = staticmethod(make_poll)
    _waiter: BranchGreenlet | None = None

    @classmethod
    def _connect_gen(cls, conninfo: str = "", **options: Any) -> PQGenConn[Self]:
        # psycopg drives these steps by a module's function, which blocks. In a branch they are
        # driven here, and psycopg gets steps that have nothing left to wait for.
        steps = super()._connect_gen(conninfo, **options)
        drive = cls._connecting()
        if drive is None:
            return steps
        # psycopg 3.2 gives the steps their timeout, 3.3 the function that would have driven them.
        own_timeout = "timeout" in options
        timeout = None if own_timeout else timeout_from_conninfo(conninfo_to_dict(conninfo))
        return _ended(drive(steps, timeout))

    @classmethod
    def _connecting(cls) -> Callable[[Any, float | None], Any] | None:
        """What drives the steps of connecting here; None: psycopg."""
        branch = current_branch()
        return None if branch is None else branch.hub.connect

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Drive ``gen`` to its end; in a branch, let the other branches run meanwhile."""
        branch = getcurrent()
        if type(branch) is not BranchGreenlet:  # `current_branch` written out, for each statement
            if timeout is None:  # 3.2 has no third parameter, and never needs one
                return super().wait(gen, interval)
            return super().wait(gen, interval, timeout)
        if self._waiter is not None and not self._waiter.dead:
            raise self._misuse()
        self._waiter = branch
        try:
            return branch.hub.wait(self, gen, interval, timeout)
        except WaitTimedOut:
            return self._say_timed_out(gen, interval)
        finally:
            self._waiter = None

    def _say_timed_out(self, gen: PQGen[T], interval: float) -> T:
        # Nothing is ready, so this only raises what psycopg raises then.
        return psycopg.Connection.wait(self, gen, interval, 0.0)

    @property
    def lock(self) -> threading.Lock:
        """The lock of the running statement; refused where waiting for it would never end."""
        if self._statement_lock.locked() and self._would_hang():
            raise self._misuse()
        return self._statement_lock

    @lock.setter
    def lock(self, lock: threading.Lock) -> None:
        self._statement_lock = lock

    def close(self) -> None:
        """Close the connection; refused to a branch while another one waits on it."""
        if current_branch() is not None and self._is_waited_on_here():
            raise self._misuse()
        super().close()

    def _would_hang(self) -> bool:
        # A branch that waits for a lock stops its whole thread, whoever holds the lock.
        return current_branch() is not None or self._is_waited_on_here()

    def _is_waited_on_here(self) -> bool:
        waiter = self._waiter
        return waiter is not None and not waiter.dead and waiter.hub.thread == threading.get_ident()

    def _misuse(self) -> psycopg.ProgrammingError:
        user = "another branch" if self._waiter is None else f"the branch of {self._waiter.shard!r}"
        return psycopg.ProgrammingError(
            f"the connection is in use by {user} of the running fan-out; give each branch a "
            "connection of its own"
        )


def acquire_lock(lock: threading.Lock) -> None:
    """Take ``lock``; let other branches and tasks run meanwhile, as one of them may hold it."""
    if current_branch() is None and not in_greenlet():
        lock.acquire()
        return
    while not lock.acquire(blocking=False):
        sleep(PAUSE_SECONDS)


def _ended(value: T) -> Generator[Any, Any, T]:
    """Return steps that are already at their end."""
    yield from ()
    return value
