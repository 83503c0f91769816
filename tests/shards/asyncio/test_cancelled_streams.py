"""Streams that are cancelled: their cursors are closed, and the driver has nothing to warn of."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select

from sqlalchemy_shards import AsyncShardedSession
from tests.shards.asyncio.cancelling import CANCEL, cancel_while_locked
from tests.shards.asyncio.opened import Customer, in_use, key_on, opened, run, sessions
from tests.shards.asyncio.test_cancelled_tasks import ALL

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from sqlalchemy_shards import AsyncCluster
    from tests.shards.asyncio.opened import Servers
    from tests.shards.shop import World

GATHERED = select(Customer.id, func.rank().over(order_by=Customer.name)).order_by(Customer.id)


async def single(session: AsyncShardedSession, cluster: AsyncCluster) -> None:
    await read(session, select(Customer).where(Customer.id == key_on(cluster, "s1")))


async def merged(session: AsyncShardedSession, cluster: AsyncCluster) -> None:
    await read(session, select(Customer).order_by(Customer.id))


async def gathered(session: AsyncShardedSession, cluster: AsyncCluster) -> None:
    await read(session, GATHERED)


async def in_parts(session: AsyncShardedSession, cluster: AsyncCluster) -> None:
    statement = select(Customer).execution_options(yield_per=2)
    await session.run_sync(lambda sync: list(sync.scalars(statement)))


async def read(session: AsyncShardedSession, statement: Any) -> None:
    async for _ in await session.stream(statement, execution_options={"yield_per": 2}):
        pass


@CANCEL
@pytest.mark.parametrize(
    ("work", "shards"),
    [(single, {"s1"}), (merged, ALL), (gathered, ALL), (in_parts, ALL)],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_a_stream_that_waits_for_locks_leaves_no_cursor_open(
    spread_shop: World,
    looking: Servers,
    work: Callable[[Any, AsyncCluster], Awaitable[None]],
    shards: set[str],
    cancel: Callable[[asyncio.Task[Any]], None],
) -> None:
    async def scenario() -> list[int]:
        async with opened(spread_shop.urls) as cluster, AsyncShardedSession(cluster) as session:
            await session.scalars(GATHERED)  # all is connected, and known of the tables
            await session.rollback()
            await cancel_while_locked(looking, shards, work(session, cluster), cancel)
            await session.rollback()
            return list(await session.scalars(select(Customer.id).order_by(Customer.id)))

    assert run(scenario()) == list(range(1, 13))
    gc.collect()  # where the driver would warn, and warnings are errors


@pytest.mark.parametrize("statement", [select(Customer.id), GATHERED], ids=["merged", "gathered"])
def test_a_stream_whose_connection_is_thrown_away_leaves_no_cursor_open(
    spread_shop: World, statement: Any
) -> None:
    async def scenario() -> None:
        async with opened(spread_shop.urls) as cluster:
            async with sessions(cluster)() as session:
                options = {"yield_per": 2}
                stream = await session.stream(statement, execution_options=options)
                await stream.fetchone()
                await session.invalidate()
            del stream
            assert in_use(cluster) == {}

    run(scenario())
    gc.collect()
