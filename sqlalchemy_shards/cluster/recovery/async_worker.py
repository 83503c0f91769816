"""Recovery from time to time, as a task of asyncio: the runs of a `RecoveryWorker`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy.util import greenlet_spawn

from sqlalchemy_shards.cluster.async_cluster import AsyncCluster
from sqlalchemy_shards.connections.event_loop import running_loop
from sqlalchemy_shards.errors import ConfigurationError

from .runs import EVERY, OLDER_THAN, STOP_SECONDS, RecoveryRuns

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType

    from typing_extensions import Self

    from sqlalchemy_shards.transactions.reports import TransactionGauges


class AsyncRecoveryWorker:
    """Runs ``await cluster.recover(older_than)`` again and again, from `start` to `stop`.

    An asynchronous context manager, too. It is a task of the event loop that runs when it is
    started, and ends with it. `AsyncCluster.dispose` stops it.

    :param every: the pause between two runs, a ``timedelta`` or seconds. Each is up to a fifth
        shorter or longer, and while no shard answers they become up to eight times as long.
    :param older_than: leave alone what was prepared more recently: a ``timedelta`` or seconds, and
        longer than a commit takes, or commits that are under way are aborted.
    :raises ConfigurationError: one of them is no time, or the cluster is none for asyncio.
    """

    def __init__(
        self,
        cluster: AsyncCluster,
        *,
        every: timedelta | float = EVERY,
        older_than: timedelta | float = OLDER_THAN,
    ) -> None:
        if not isinstance(cluster, AsyncCluster):
            raise ConfigurationError(
                f"an AsyncRecoveryWorker was given a {type(cluster).__name__}",
                "create the cluster with create_async_cluster(), or use RecoveryWorker",
            )
        self._cluster = cluster
        self._runs = RecoveryRuns(cluster.sync_cluster, every, older_than)
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def is_running(self) -> bool:
        """Whether its task runs."""
        return self._task is not None and not self._task.done()

    @property
    def gauges(self) -> TransactionGauges:
        """What the latest recovery of this process found: `AsyncCluster.transaction_gauges`."""
        return self._cluster.transaction_gauges()

    def start(self) -> Self:
        """Begin; the first run comes soon. Does nothing where it runs already.

        :raises ConfigurationError: the cluster is disposed, or no event loop of asyncio runs here.
        """
        self._cluster.sync_cluster.check_open()
        loop = running_loop()
        if not self.is_running:
            self._stopping = asyncio.Event()
            self._cluster.workers.add(self)
            name = f"shards-recovery-{self._cluster.name}"
            self._task = loop.create_task(self._run(self._stopping), name=name)
        return self

    async def stop(self) -> None:
        """End; a run that is under way is waited for, and cancelled after 15 seconds."""
        task = self._task
        self._stopping.set()
        self._cluster.workers.discard(self)
        # A listener may stop it, from within.
        if task is None or task is asyncio.current_task():
            return
        _, running = await asyncio.wait({task}, timeout=STOP_SECONDS)
        for each in running:
            each.cancel()
            await asyncio.wait({each})

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _run(self, stopping: asyncio.Event) -> None:
        pause = self._runs.first_pause()
        while not await _is_set(stopping, pause):
            pause = await greenlet_spawn(self._runs.run, stopping.is_set)


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; return whether it came in time."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True
