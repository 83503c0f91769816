"""Long statements of tests: watched from other connections, and interrupted by Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from sqlalchemy_shards.connections.hub import ShardConnection

FOREVER = "SELECT pg_sleep(300)"
SHORT = "SELECT pg_sleep(0.3)"
ACTIVE = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query = %s"
LIMIT_SECONDS = 20.0


class Watcher:
    """Looks at the servers from connections of its own."""

    def __init__(self, connections: list[psycopg.Connection[Any]]) -> None:
        self.connections = connections

    def active(self, sql: str = FOREVER) -> list[int]:
        return [
            pid
            for connection in self.connections
            for (pid,) in connection.execute(ACTIVE, [sql]).fetchall()
        ]

    def wait_until_active(self, count: int, sql: str = FOREVER) -> list[int]:
        deadline = time.monotonic() + LIMIT_SECONDS
        while len(pids := self.active(sql)) != count:
            assert time.monotonic() < deadline, f"{len(pids)} statements run, not {count}"
        return pids

    @contextmanager
    def ending(self, pids: list[int]) -> Iterator[None]:
        """Let processes of the servers go on that were stopped, and end them."""
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
                for connection in self.connections:
                    connection.execute("SELECT pg_terminate_backend(%s)", [pid])
            self.wait_until_active(0)

    @contextmanager
    def once_active(self, count: int, action: Callable[[list[int]], object]) -> Iterator[None]:
        """Do `action` from another thread when `count` statements run."""
        thread = threading.Thread(target=lambda: action(self.wait_until_active(count)))
        thread.start()
        try:
            yield
        finally:
            thread.join()


def press_ctrl_c(_pids: list[int]) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def usable(connection: ShardConnection) -> bool:
    connection.rollback()
    return connection.execute("SELECT 1").fetchall() == [(1,)]
