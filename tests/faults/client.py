"""A process of the application, which a test may kill or stop."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.world import DEADLINE_SECONDS, PATIENT, cluster_of, eventually
from tests.mortal import mortal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection

    from sqlalchemy_shards import Cluster, Timeouts


class Client:
    """A process that does something with a cluster of its own, step by step.

    :param steps: what it does; each begins when `go` says so, and its end is awaited by `result`.
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        *steps: Callable[[Cluster], Any],
        timeouts: Timeouts = PATIENT,
        dies_at: str | None = None,
        stops_at: str | None = None,
    ) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        points = {dies_at: signal.SIGKILL, stops_at: signal.SIGSTOP}
        armed = {point: number for point, number in points.items() if point is not None}
        self._process = mortal(_live, theirs, dict(urls), steps, timeouts, armed)
        self._process.start()
        theirs.close()

    def go(self) -> None:
        """Let the next step begin."""
        self._pipe.send(None)

    def result(self) -> Any:
        """What the step has returned; `EOFError`: the process has died in it."""
        assert self._pipe.poll(DEADLINE_SECONDS), "the client has not answered in time"
        return self._pipe.recv()

    @property
    def has_answered(self) -> bool:
        """Whether `result` would not wait."""
        return self._pipe.poll()

    def stop(self) -> None:
        """Stop it until it is resumed, if it is still there."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on, if it is still there."""
        self._signal(signal.SIGCONT)

    def strike_dead(self) -> None:
        """Kill it at once, from any thread, if it is still there."""
        self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """Kill it, as a crash would, and wait until it is gone."""
        self._process.kill()
        self._process.join(DEADLINE_SECONDS)

    def wait_for_death(self) -> None:
        """Wait until it has died by itself."""
        self._process.join(DEADLINE_SECONDS)
        assert self._process.exitcode == -signal.SIGKILL

    def wait_for_stop(self) -> None:
        """Wait until it is stopped."""
        eventually(lambda: self._state == "T", "the stop of the client")

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ValueError, ProcessLookupError):  # it was closed, or is dead
            assert self._process.pid is not None
            os.kill(self._process.pid, number)

    @property
    def _state(self) -> str:
        # Behind the name of the program, which may hold anything.
        status = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8")
        return status.rpartition(")")[2].split()[0]

    def close(self) -> None:
        self.kill()
        self._process.close()
        self._pipe.close()


@contextmanager
def client(
    urls: Mapping[str, str], *steps: Callable[[Cluster], Any], **options: Any
) -> Iterator[Client]:
    """The same, gone at the end."""
    started = Client(urls, *steps, **options)
    try:
        yield started
    finally:
        started.close()


def _live(
    pipe: Connection,
    urls: Mapping[str, str],
    steps: tuple[Callable[[Cluster], Any], ...],
    timeouts: Timeouts,
    armed: Mapping[str, signal.Signals],
) -> None:
    with cluster_of(urls, timeouts) as cluster:
        fail_points = {
            point: lambda _, number=number: os.kill(os.getpid(), number)  # type: ignore[misc]
            for point, number in armed.items()
        }
        for step in steps:
            # The last one is what the fault belongs to; those before it prepare for it.
            cluster.hooks.fail_points = fail_points if step is steps[-1] else None
            pipe.recv()
            pipe.send(step(cluster))
