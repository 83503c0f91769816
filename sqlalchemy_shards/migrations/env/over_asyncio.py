"""Migrations of an asyncio cluster: an ``env.py`` is ordinary code, whose waits need a loop.

- Where no event loop runs, one runs until the migrations are done.
- In a greenlet of SQLAlchemy (``run_sync()``) the loop is there already.
- Elsewhere in a running loop they would block it: refused.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy.util import greenlet_spawn

from sqlalchemy_shards._compat import in_greenlet
from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards.cluster.async_cluster import AsyncCluster


def run_over_asyncio(cluster: AsyncCluster, work: Callable[[], None]) -> None:
    """Do ``work`` in a greenlet.

    :raises ConfigurationError: an event loop runs here, outside of a greenlet.
    """
    if in_greenlet():
        work()
    elif _is_in_loop():
        raise ConfigurationError(
            "run_migrations() was given an AsyncCluster while an event loop runs",
            "call Alembic by asyncio.to_thread(), or within run_sync()",
        )
    else:
        asyncio.run(_run(cluster, work))


async def _run(cluster: AsyncCluster, work: Callable[[], None]) -> None:
    try:
        await greenlet_spawn(work)
    finally:
        # Its connections are this event loop's, which ends here.
        await cluster.engine.dispose()


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
