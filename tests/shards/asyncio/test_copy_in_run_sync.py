"""The same copies under asyncio: the waits go to the event loop, a cancelled task stops them."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from sqlalchemy_shards import AsyncShardedSession, create_async_cluster
from tests.shards.shop import DECLARED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping


def rows(count: int) -> Iterator[dict[str, Any]]:
    return ({"id": n, "name": "x" * 500, "version": 1} for n in range(1, count + 1))


def run(urls: Mapping[str, str], work: Callable[[AsyncShardedSession], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        cluster = create_async_cluster(dict(urls), name="shop")
        try:
            async with AsyncShardedSession(cluster) as session:
                return await work(session)
        finally:
            await cluster.dispose()

    return asyncio.run(main())


def test_rows_are_copied_in_and_out(shop_urls: Mapping[str, str]) -> None:
    async def work(session: AsyncShardedSession) -> tuple[int, int, str]:
        file = io.StringIO()
        result = await session.run_sync(lambda sync: sync.copy_from(DECLARED.Customer, rows(5000)))
        count = await session.run_sync(lambda sync: sync.copy_to(DECLARED.Customer, file))
        with pytest.raises(IntegrityError) as raised:
            await session.run_sync(lambda sync: sync.copy_from(DECLARED.Customer, rows(1)))
        return result.rows, count, str(raised.value)

    copied, written, told = run(shop_urls, work)

    assert copied == written == 5000
    assert "in row 1\n" in told


def test_a_cancelled_task_stops_the_copy_everywhere(shop_urls: Mapping[str, str]) -> None:
    async def work(session: AsyncShardedSession) -> Any:
        given = 0

        def counted() -> Iterator[dict[str, Any]]:
            nonlocal given
            for row in rows(10**9):
                given += 1
                yield row

        task = asyncio.create_task(
            session.run_sync(lambda sync: sync.copy_from(DECLARED.Customer, counted()))
        )
        while given < 20_000:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await session.rollback()
        return await session.scalar(select(func.count()).select_from(DECLARED.Customer))

    assert run(shop_urls, work) == 0
