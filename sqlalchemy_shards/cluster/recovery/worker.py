"""Recovery from time to time, in a thread of its own.

A thread does not live on in a forked child: there `start` begins another.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from sqlalchemy_shards.errors import ConfigurationError

from .runs import EVERY, OLDER_THAN, STOP_SECONDS, RecoveryRuns

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType

    from typing_extensions import Self

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.transactions.reports import TransactionGauges


class RecoveryWorker:
    """Runs ``cluster.recover(older_than)`` again and again, from `start` to `stop`.

    A context manager, too. The thread is a daemon: it keeps no process alive. `Cluster.dispose`
    stops it. After a fork it runs in the parent only; the child may start its own.

    :param every: the pause between two runs, a ``timedelta`` or seconds. Each is up to a fifth
        shorter or longer, and while no shard answers they become up to eight times as long.
    :param older_than: leave alone what was prepared more recently: a ``timedelta`` or seconds, and
        longer than a commit takes, or commits that are under way are aborted.
    :raises ConfigurationError: one of them is no time, or the cluster is one for asyncio.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        every: timedelta | float = EVERY,
        older_than: timedelta | float = OLDER_THAN,
    ) -> None:
        if getattr(cluster, "is_async", True):
            raise ConfigurationError(
                f"a RecoveryWorker was given the {type(cluster).__name__} of an event loop",
                "use AsyncRecoveryWorker(async_cluster), which is a task",
            )
        self._cluster = cluster
        self._runs = RecoveryRuns(cluster, every, older_than)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._pid = os.getpid()

    @property
    def is_running(self) -> bool:
        """Whether it runs, in this process."""
        thread = self._thread
        return thread is not None and self._pid == os.getpid() and thread.is_alive()

    @property
    def gauges(self) -> TransactionGauges:
        """What the latest recovery of this process found: `Cluster.transaction_gauges`."""
        return self._cluster.transaction_gauges()

    def start(self) -> Self:
        """Begin; the first run comes soon. Does nothing where it runs already.

        :raises ConfigurationError: the cluster is disposed.
        """
        self._cluster.check_open()
        if self._pid != os.getpid():
            # The lock may have been held in the parent when it forked.
            self._lock = threading.Lock()
            self._pid, self._thread = os.getpid(), None
        with self._lock:
            if not self.is_running:
                self._stopping = threading.Event()
                self._cluster.workers.add(self)
                self._thread = threading.Thread(
                    target=self._run,
                    args=(self._stopping,),
                    name=f"shards-recovery-{self._cluster.name}",
                    daemon=True,
                )
                self._thread.start()
        return self

    def stop(self) -> None:
        """End; a run that is under way is waited for, for 15 seconds at most."""
        if not self.is_running:
            return
        with self._lock:
            thread = self._thread
            self._stopping.set()
            self._cluster.workers.discard(self)
        # A listener may stop it, from within.
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self, stopping: threading.Event) -> None:
        pause = self._runs.first_pause()
        while not stopping.wait(pause):
            pause = self._runs.run(stopping.is_set)
