"""Tasks that are cancelled: nothing goes on on the servers, and no connection is lost."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from sqlalchemy import func, select, text

from sqlalchemy_shards import AsyncShardedSession, Timeouts, create_async_cluster
from sqlalchemy_shards.transactions import fail_points
from tests.shards.asyncio.cancelling import CANCEL, cancel_while_locked
from tests.shards.asyncio.opened import (
    SLEEP,
    Customer,
    Order,
    in_use,
    key_on,
    keys_on,
    opened,
    run,
    sessions,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy_shards import AsyncCluster
    from tests.shards.asyncio.opened import Servers
    from tests.shards.shop import World

TIMEOUTS = Timeouts(decision_seconds=2, settle_seconds=1, finish_seconds=1, rollback_seconds=1)
ALL = {"s0", "s1", "s2", "s3"}


async def get(session: AsyncShardedSession, cluster: AsyncCluster) -> None:
    await session.get(Customer, key_on(cluster, "s1"))


async def scatter(session: AsyncShardedSession, cluster: AsyncCluster) -> None:
    await session.scalars(select(Customer).order_by(Customer.name))


async def gather(session: AsyncShardedSession, cluster: AsyncCluster) -> None:
    other = Customer.__table__.alias()
    statement = select(func.count()).select_from(
        Customer.__table__.join(other, Customer.__table__.c.name < other.c.name)
    )
    await session.scalar(statement)


async def flush(session: AsyncShardedSession, cluster: AsyncCluster) -> None:
    for key in keys_on(cluster, "s0", "s1", "s2", "s3"):
        session.add(Order(customer_id=key, id=key * 100, amount=1))
    await session.flush()


WORK = pytest.mark.parametrize(
    ("work", "shards"),
    [(get, {"s1"}), (scatter, ALL), (gather, ALL), (flush, ALL)],
    ids=lambda each: each.__name__ if callable(each) else "",
)


@CANCEL
@WORK
def test_what_waits_on_servers_is_cancelled_there(
    spread_shop: World,
    looking: Servers,
    work: Callable[[Any, AsyncCluster], Awaitable[None]],
    shards: set[str],
    cancel: Callable[[asyncio.Task[Any]], None],
) -> None:
    async def scenario() -> list[Any]:
        async with opened(spread_shop.urls) as cluster:
            session = AsyncShardedSession(cluster)
            await session.scalars(select(Customer).order_by(Customer.name))  # is connected
            await session.rollback()
            await cancel_while_locked(looking, shards, work(session, cluster), cancel)
            await session.rollback()
            found = list(await session.scalars(select(Customer.id).order_by(Customer.id)))
            await session.close()
            assert in_use(cluster) == {}
            return found

    assert run(scenario()) == list(range(1, 13))
    assert looking.in_transaction() == set()
    assert spread_shop.rows("SELECT count(*) FROM orders") == [(n,) for n in counts(spread_shop)]


def counts(world: World) -> list[int]:
    """Two orders for each customer of a shard."""
    return sorted(2 * n for (n,) in world.rows("SELECT count(*) FROM customers"))


@CANCEL
def test_a_session_that_is_left_by_a_cancelled_task_is_closed(
    spread_shop: World, looking: Servers, cancel: Callable[[asyncio.Task[Any]], None]
) -> None:
    async def write_and_wait(cluster: AsyncCluster, written: asyncio.Event) -> None:
        async with sessions(cluster).begin() as session:
            for key in keys_on(cluster, "s0", "s1"):
                (await session.get_one(Customer, key)).name = "new"
            await session.flush()
            written.set()
            await asyncio.Event().wait()

    async def scenario() -> None:
        async with opened(spread_shop.urls) as cluster:
            written = asyncio.Event()
            task = asyncio.ensure_future(write_and_wait(cluster, written))
            await written.wait()
            cancel(task)
            with pytest.raises(asyncio.CancelledError):
                await task
            # SQLAlchemy closes it in a task of its own, which may still run.
            await until(lambda: not in_use(cluster), "connections are back in their pools")

    run(scenario())

    assert looking.in_transaction() == set()
    assert spread_shop.rows("SELECT name FROM customers WHERE name = 'new'") == []


@CANCEL
@pytest.mark.parametrize(
    "point",
    [
        fail_points.BEFORE_ROUND_0,
        fail_points.AFTER_ROUND_0,
        fail_points.BEFORE_DECISION,
        fail_points.AFTER_DECISION,
        fail_points.AFTER_ROUND_3,
    ],
)
def test_a_commit_that_is_cancelled_is_a_commit_everywhere_or_nowhere(
    spread_shop: World, looking: Servers, point: str, cancel: Callable[[asyncio.Task[Any]], None]
) -> None:
    async def write(cluster: AsyncCluster) -> None:
        async with sessions(cluster)() as session:
            for key in keys_on(cluster, "s0", "s1", "s2"):
                (await session.get_one(Customer, key)).name = "new"
            await session.commit()

    async def scenario() -> None:
        async with opened(spread_shop.urls, timeouts=TIMEOUTS) as cluster:
            task = asyncio.ensure_future(write(cluster))
            reached: list[str] = []

            def arrive(_: str) -> None:
                cluster.hooks.fail_points = None
                reached.append(point)
                cancel(task)

            cluster.hooks.fail_points = {point: arrive}
            with pytest.raises(asyncio.CancelledError):
                await task
            assert reached == [point]
            await until(lambda: not in_use(cluster), "connections are back in their pools")
            report = await cluster.recover()
            assert report.is_clean

    run(scenario())

    assert looking.prepared() == set()
    assert looking.in_transaction() == set()
    renamed = spread_shop.rows("SELECT name FROM customers WHERE name = 'new'")
    is_committed = point in (fail_points.AFTER_DECISION, fail_points.AFTER_ROUND_3)
    assert len(renamed) in ((3,) if is_committed else (0, 3))


@CANCEL
@pytest.mark.parametrize("shards", [["s0"], ["s1"], ["s1", "s2"]], ids=["first", "one", "two"])
def test_connecting_can_be_cancelled(
    spread_shop: World, cancel: Callable[[asyncio.Task[Any]], None], shards: list[str]
) -> None:
    """The servers accept, and never say a word."""

    async def scenario() -> None:
        arrived: list[asyncio.StreamReader] = []

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.append(reader)
            await reader.read()  # until its end: the other side closed it
            ended.append(reader)
            writer.close()

        ended: list[asyncio.StreamReader] = []
        silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        wrong = dict.fromkeys(shards, f"postgresql+psycopg://x@127.0.0.1:{port}/x?sslmode=disable")
        cluster = create_async_cluster({**spread_shop.urls, **wrong}, name="shop")
        session = AsyncShardedSession(cluster)
        options = {"shard": tuple(shards)}
        task = asyncio.ensure_future(session.execute(text("SELECT 1"), execution_options=options))
        await until(lambda: len(arrived) == len(shards), "it connects")
        cancel(task)
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: len(ended) == len(arrived), "the connections are closed")
        await session.close()
        assert in_use(cluster) == {}
        await cluster.dispose()
        silent.close()

    run(scenario())


@pytest.mark.parametrize("shard", ["s1", "*"], ids=["one", "all"])
def test_waiting_for_a_pool_can_be_cancelled(spread_shop: World, shard: str) -> None:
    options = {"shard": shard}

    async def scenario() -> int | None:
        async with opened(spread_shop.urls, pool_size=1, max_overflow=0) as cluster:
            async with sessions(cluster)() as holder, sessions(cluster)() as waiter:
                await holder.execute(text("SELECT 1"), execution_options={"shard": "s1"})
                task = asyncio.ensure_future(
                    waiter.execute(text("SELECT 1"), execution_options=options)
                )
                await asyncio.wait({task}, timeout=0.3)
                assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            async with sessions(cluster)() as session:
                return await session.scalar(text("SELECT 7"), execution_options={"shard": "s1"})

    assert run(scenario()) == 7


@pytest.mark.parametrize("shard", ["s1", "*"], ids=["one", "all"])
def test_a_timeout_of_anyio(spread_shop: World, looking: Servers, shard: str) -> None:
    async def scenario() -> bool:
        async with opened(spread_shop.urls) as cluster:
            with anyio.move_on_after(0.5) as scope:
                async with sessions(cluster)() as session:
                    await session.execute(text(SLEEP), execution_options={"shard": shard})
            await until(lambda: not in_use(cluster), "connections are back in their pools")
            return scope.cancelled_caught

    assert run(scenario())
    assert looking.running() == set()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout() is of Python 3.11")
@pytest.mark.parametrize("shard", ["s1", "*"], ids=["one", "all"])
def test_a_timeout_of_asyncio_leaves_the_session_usable(
    spread_shop: World, looking: Servers, shard: str
) -> None:
    async def scenario() -> int | None:
        async with opened(spread_shop.urls) as cluster, sessions(cluster)() as session:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await session.execute(text(SLEEP), execution_options={"shard": shard})
            assert looking.running() == set()
            await session.rollback()
            return await session.scalar(select(func.count()).select_from(Customer))

    assert run(scenario()) == 12


def test_a_task_group_cancels_the_others(spread_shop: World, looking: Servers) -> None:
    async def sleep_on(cluster: AsyncCluster, shard: str) -> None:
        async with sessions(cluster)() as session:
            await session.execute(text(SLEEP), execution_options={"shard": shard})

    async def fail_when_they_run() -> None:
        await until(lambda: looking.running() == ALL, "all run")
        raise ValueError("stop")

    async def run_all(cluster: AsyncCluster) -> None:
        async with anyio.create_task_group() as group:
            for shard in (*ALL, "*"):
                group.start_soon(sleep_on, cluster, shard)
            group.start_soon(fail_when_they_run)

    async def scenario() -> None:
        async with opened(spread_shop.urls) as cluster:
            with pytest.raises(Exception, match="unhandled errors in a TaskGroup") as caught:
                await run_all(cluster)
            assert "stop" in repr(caught.value)
            await until(lambda: not in_use(cluster), "connections are back in their pools")

    run(scenario())

    assert looking.running() == set()
