"""Writes that are given rows of other shards, over asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from tests.shards.asyncio.opened import Customer, Order, opened, run, sessions

if TYPE_CHECKING:
    from tests.shards.shop import World


def test_rows_and_answers_are_brought(spread_shop: World) -> None:
    highest = select(func.max(Customer.id)).scalar_subquery()
    statement = (
        update(Order)
        .where(Order.amount == Customer.id, Customer.id < highest)
        .values(status=Customer.name)
        .returning(Order.id, Customer.name)
    )

    async def write() -> list[str]:
        async with opened(spread_shop.urls) as cluster, sessions(cluster)() as session:
            rows = await session.execute(statement, execution_options={"scatter": "allow"})
            names = [name for _, name in rows]
            await session.commit()
            return names

    names = run(write())

    assert sorted(names) == ["customer 1"] * 12 + ["customer 2"] * 12
    assert len(spread_shop.rows("SELECT id FROM orders WHERE status <> 'new'")) == 24
