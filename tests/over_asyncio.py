"""``python -m pytest -p tests.over_asyncio``: the same tests, over clusters of asyncio.

An asyncio session of SQLAlchemy runs an ordinary session within a greenlet. So each test, with its
fixtures, is run within such a greenlet, and `create_cluster` makes the cluster of an
`AsyncCluster`: all that waits below the session, waits by awaiting. A thread has an event loop of
its own: no pool of these tests is ever waited for, and the lock that SQLAlchemy holds while a pool
makes its first connection, which is for one event loop, is one of threads here.

`sync_only` marks tests of what asyncio has otherwise, as threads.
"""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from sqlalchemy.event import attr
from sqlalchemy.util import greenlet_spawn

import sqlalchemy_shards
from sqlalchemy_shards.connections.hub import acquire_lock

LOOP = pytest.StashKey[asyncio.AbstractEventLoop]()


class ThreadWithLoop(threading.Thread):
    def run(self) -> None:
        asyncio.run(greenlet_spawn(super().run))


class LockOfThreads:
    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        acquire_lock(self._lock)

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def pytest_configure(config: pytest.Config) -> None:
    # Before the modules of the tests are imported, which take it from there.
    asyncio_cluster: Any = partial(sqlalchemy_shards.create_cluster, is_async=True)
    sqlalchemy_shards.create_cluster = asyncio_cluster
    threading.Thread = ThreadWithLoop  # type: ignore[misc]
    attr.AsyncAdaptedLock = LockOfThreads  # type: ignore[misc, assignment]
    # SQLAlchemy's word for a connection of asyncio that was forgotten, which tests may do.
    forgotten = "ignore:The garbage collector is trying to clean up"
    config.addinivalue_line("filterwarnings", forgotten)
    config.stash[LOOP] = asyncio.new_event_loop()


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[LOOP].close()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("sync_only"):
            item.add_marker(pytest.mark.skip(reason=f"not over asyncio: {mark.args[0]}"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test and its fixtures in the greenlet, as pytest runs them elsewhere."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    item.config.stash[LOOP].run_until_complete(
        greenlet_spawn(runtestprotocol, item, nextitem=nextitem)
    )
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
