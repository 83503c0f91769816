"""A session over asyncio that nobody holds any more is closed without waiting."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import SAWarning

from tests.shards.asyncio.opened import Customer, in_use, opened, run, sessions

if TYPE_CHECKING:
    from sqlalchemy_shards import AsyncCluster


async def begin_and_forget(cluster: AsyncCluster) -> None:
    session = sessions(cluster)()
    await session.scalar(select(func.count()).select_from(Customer))


def test_its_connections_are_closed_and_others_take_their_places(
    shop_urls: dict[str, str],
) -> None:
    async def work() -> int | None:
        async with opened(shop_urls, pool_size=1, max_overflow=0, pool_timeout=5) as cluster:
            await begin_and_forget(cluster)
            with pytest.warns(SAWarning, match="garbage collector"):
                gc.collect()
            assert in_use(cluster) == {}
            async with sessions(cluster)() as session:
                return await session.scalar(select(func.count()).select_from(Customer))

    assert run(work()) == 0
