"""Tasks that are cancelled in the middle of an executemany: psycopg has nothing to complain of."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import bindparam, text, update

from tests.shards.asyncio.cancelling import CANCEL
from tests.shards.asyncio.opened import Customer, in_use, key_on, opened, run, sessions, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards import AsyncCluster, AsyncShardedSession
    from tests.shards.asyncio.opened import Servers
    from tests.shards.shop import World

TABLE = Customer.__table__
STATEMENT = update(TABLE).where(TABLE.c.id == bindparam("key")).values(name=bindparam("new"))
TURNS = 30
"""More turns of the event loop than an executemany of three rows takes."""


async def rename(session: AsyncShardedSession, cluster: AsyncCluster, *names: str) -> None:
    rows = [{"key": key_on(cluster, "s1"), "new": name} for name in names]
    await (await session.connection()).execute(STATEMENT, rows)


async def name_of(session: AsyncShardedSession, cluster: AsyncCluster) -> str:
    return (await session.get_one(Customer, key_on(cluster, "s1"), populate_existing=True)).name


@CANCEL
def test_an_executemany_that_is_cancelled_at_any_turn_leaves_no_noise(
    spread_shop: World,
    caplog: pytest.LogCaptureFixture,
    cancel: Callable[[asyncio.Task[Any]], None],
) -> None:
    async def cancelled_after(turns: int, cluster: AsyncCluster) -> bool:
        async with sessions(cluster)() as session:
            before = await name_of(session, cluster)  # is connected
            task = asyncio.ensure_future(rename(session, cluster, "a", "b", "c"))
            for _ in range(turns):
                await asyncio.sleep(0)
            cancel(task)
            await asyncio.wait({task})
            await session.rollback()
            assert await name_of(session, cluster) == before
            await rename(session, cluster, "x", f"after {turns}")
            assert await name_of(session, cluster) == f"after {turns}"
            await session.commit()
            return task.cancelled()

    async def scenario() -> list[bool]:
        async with opened(spread_shop.urls, pool_size=1, max_overflow=0) as cluster:
            return [await cancelled_after(turns, cluster) for turns in range(TURNS)]

    were_cancelled = run(scenario())
    gc.collect()  # what Python ignores is a warning, which is an error here

    assert sum(were_cancelled) > 5
    assert caplog.records == []


@CANCEL
def test_an_executemany_that_waits_for_a_lock_is_cancelled_there(
    spread_shop: World,
    looking: Servers,
    caplog: pytest.LogCaptureFixture,
    cancel: Callable[[asyncio.Task[Any]], None],
) -> None:
    async def scenario() -> str:
        async with opened(spread_shop.urls) as cluster, sessions(cluster)() as session:
            await session.execute(text("SELECT 1"), execution_options={"shard": "s1"})
            await session.rollback()
            with looking.locked("s1"):
                task = asyncio.ensure_future(rename(session, cluster, "a", "b", "c"))
                await until(lambda: looking.waiting() == {"s1"}, "it waits for the lock")
                cancel(task)
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert looking.waiting() == set()
            await session.rollback()
            assert in_use(cluster) == {}
            await rename(session, cluster, "x", "y")
            return await name_of(session, cluster)

    found = run(scenario())
    gc.collect()

    assert found == "y"
    assert caplog.records == []
