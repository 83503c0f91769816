"""uvloop's event loop in place of asyncio's own; `tox -e uvloop` runs all of asyncio's tests so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from sqlalchemy import func, select

from tests.shards.asyncio.cancelling import cancel_while_locked
from tests.shards.asyncio.opened import (
    LIMIT_SECONDS,
    Customer,
    Order,
    in_use,
    keys_on,
    opened,
    sessions,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.shards.asyncio.opened import Servers
    from tests.shards.shop import World

uvloop = pytest.importorskip("uvloop", reason="there is none for Windows")

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """`uvloop.run`, which fails rather than hang."""
    return uvloop.run(asyncio.wait_for(coroutine, LIMIT_SECONDS))  # type: ignore[no-any-return]


def test_a_transaction_over_all_shards(spread_shop: World) -> None:
    async def scenario() -> tuple[Any, list[int]]:
        async with opened(spread_shop.urls) as cluster:
            async with sessions(cluster).begin() as session:
                for key in keys_on(cluster, "s0", "s1", "s2", "s3"):
                    session.add(Order(customer_id=key, id=key * 100, amount=7))
            async with sessions(cluster)() as session:
                ordered = select(Order.id).where(Order.amount == 7).order_by(Order.id)
                streamed = await session.stream_scalars(ordered, execution_options={"yield_per": 2})
                ids = [number async for number in streamed]
                count = await session.scalar(select(func.count()).where(Order.amount == 7))
            assert type(asyncio.get_running_loop()) is uvloop.Loop
            return count, ids

    count, ids = run(scenario())

    assert count == len(ids) == 4
    assert ids == sorted(ids)


def test_a_cancelled_scatter(spread_shop: World, looking: Servers) -> None:
    async def scenario() -> list[int]:
        async with opened(spread_shop.urls) as cluster, sessions(cluster)() as session:
            everybody = select(Customer).order_by(Customer.name)
            await session.scalars(everybody)  # is connected
            await session.rollback()
            waiting = session.scalars(everybody)
            await cancel_while_locked(
                looking, {"s0", "s1", "s2", "s3"}, waiting, asyncio.Task.cancel
            )
            await session.rollback()
            assert in_use(cluster) == {}
            return list(await session.scalars(select(Customer.id).order_by(Customer.id)))

    assert run(scenario()) == list(range(1, 13))
    assert looking.in_transaction() == set()
