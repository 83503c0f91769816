"""Rows are copied by a task, and other tasks go on meanwhile."""

from __future__ import annotations

import asyncio
import gc
import io
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from sqlalchemy import func, select

from sqlalchemy_shards.errors import ConfigurationError
from tests.shards.asyncio.opened import Customer, opened, run, sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ROWS = 4000


def test_rows_of_an_asynchronous_iterable_are_copied(shop_urls: dict[str, str]) -> None:
    async def work() -> tuple[int, int, int]:
        async with opened(shop_urls) as cluster, sessions(cluster)() as session:
            ticking = asyncio.create_task(ticks())
            copied = await session.copy_from(Customer, customers())
            others = await stopped(ticking)
            found = (await session.scalars(select(func.count()).select_from(Customer))).one()
            await session.rollback()
            return copied.rows, found, others

    copied, found, others = run(work())

    assert (copied, found) == (ROWS, ROWS)
    assert others > 1


def test_an_error_of_the_iterable_fails_the_transaction(shop_urls: dict[str, str]) -> None:
    async def broken() -> AsyncIterator[dict[str, Any]]:
        async for row in customers():
            yield row
        raise LookupError("no more")

    async def work() -> int:
        async with opened(shop_urls) as cluster, sessions(cluster)() as session:
            with pytest.raises(LookupError):
                await session.copy_from(Customer, broken())
            await session.rollback()
            return (await session.scalars(select(func.count()).select_from(Customer))).one()

    assert run(work()) == 0


def test_rows_are_given_one_by_one(shop_urls: dict[str, str]) -> None:
    async def work() -> list[int]:
        async with opened(shop_urls) as cluster, sessions(cluster)() as session:
            await session.copy_from(Customer, customers())
            statement = select(Customer.id).order_by(Customer.id)
            return [number async for (number,) in await session.copy_to(statement)]

    assert run(work()) == list(range(ROWS))


def test_rows_go_into_a_file(shop_urls: dict[str, str], tmp_path: Path) -> None:
    async def work() -> int:
        async with opened(shop_urls) as cluster, sessions(cluster)() as session:
            await session.copy_from(Customer, customers())
            written: int = await session.copy_to(select(Customer.id), tmp_path / "ids.csv")
            return written

    assert run(work()) == ROWS
    assert (tmp_path / "ids.csv").read_text().count("\n") == ROWS + 1


def test_record_batches_are_awaited_one_by_one(shop_urls: dict[str, str]) -> None:
    async def work() -> tuple[pa.Schema, list[pa.RecordBatch], int]:
        async with opened(shop_urls) as cluster, sessions(cluster)() as session:
            await session.copy_from(Customer, customers())
            ticking = asyncio.create_task(ticks())
            statement = select(Customer.id, Customer.name).order_by(Customer.id)
            given = await session.copy_to(statement, arrow=True)
            batches = [batch async for batch in given]
            return given.schema, batches, await stopped(ticking)

    schema, batches, others = run(work())

    assert schema.names == ["id", "name"]
    assert pa.Table.from_batches(batches, schema)["id"].to_pylist() == list(range(ROWS))
    assert max(batch.num_rows for batch in batches) <= 1000
    assert others > 1


def test_no_file_is_written_as_record_batches(shop_urls: dict[str, str]) -> None:
    async def work() -> None:
        async with opened(shop_urls) as cluster, sessions(cluster)() as session:
            await session.copy_to(select(Customer.id), io.StringIO(), arrow=True)

    with pytest.raises(ConfigurationError, match="files are written as CSV"):
        run(work())


@pytest.mark.parametrize("arrow", [False, True])
@pytest.mark.parametrize("is_gathered", [False, True])
def test_what_is_left_in_the_middle_is_closed_with_the_transaction(
    shop_urls: dict[str, str], arrow: bool, is_gathered: bool
) -> None:
    statement = select(Customer.id)
    if is_gathered:
        statement = select(func.rank().over(order_by=Customer.id))

    async def work() -> int:
        async with opened(shop_urls) as cluster, sessions(cluster)() as session:
            await session.copy_from(Customer, customers())
            async for _ in await session.copy_to(statement, arrow=arrow):
                break
            gc.collect()
            found = (await session.scalars(select(func.count()).select_from(Customer))).one()
            await session.rollback()
            return found

    assert run(work()) == ROWS
    gc.collect()  # where the driver would warn of cursors that are open


async def customers() -> AsyncIterator[dict[str, Any]]:
    for number in range(ROWS):
        if number % 1000 == 0:
            await asyncio.sleep(0)
        yield {"id": number, "name": f"customer {number}", "version": 1}


async def ticks() -> int:
    count = 0
    try:
        while True:
            await asyncio.sleep(0)
            count += 1
    except asyncio.CancelledError:
        return count


async def stopped(task: asyncio.Task[int]) -> int:
    task.cancel()
    return await task
