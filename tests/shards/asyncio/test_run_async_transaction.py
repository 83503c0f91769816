"""Transactions of coroutines that are run again where that is safe, and only there."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from sqlalchemy_shards import (
    AsyncCluster,
    AsyncShardedSession,
    Timeouts,
    run_async_transaction,
    run_transaction,
)
from sqlalchemy_shards.errors import ConfigurationError, TransactionOutcomeUnknown
from sqlalchemy_shards.transactions import fail_points
from tests.shards.asyncio.opened import Customer, in_use, key_on, opened, run, sessions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy_shards.testing.servers import PostgresServers
    from tests.shards.asyncio.opened import Servers
    from tests.shards.shop import World

TIMEOUTS = Timeouts(lock_timeout=0.5, decision_seconds=0.5, settle_seconds=0.3, finish_seconds=0.3)


class Work:
    """Renames the customers of some shards; counts how often it is run."""

    def __init__(self, cluster: AsyncCluster, *shards: str) -> None:
        self.keys = [key_on(cluster, shard) for shard in shards]
        self.runs = 0
        self.sessions: list[AsyncSession] = []

    async def before(self, session: AsyncSession, run: int) -> None:
        """What a test does between reading and writing."""

    async def __call__(self, session: AsyncSession) -> str:
        self.runs += 1
        self.sessions.append(session)
        for key in self.keys:
            await session.get_one(Customer, key)
        await self.before(session, self.runs)
        for key in self.keys:
            (await session.get_one(Customer, key)).name += "!"
        return f"run {self.runs}"


def renamed(world: World) -> list[str]:
    return [name for (name,) in world.rows("SELECT name FROM customers") if "!" in name]


async def pid_on(session: AsyncSession, shard: str) -> int:
    driver: Any = (await session.connection()).sync_connection.connection.driver_connection  # type: ignore[union-attr]
    return int(driver.shard(shard).info.backend_pid)


def test_what_goes_well_is_run_once_and_its_value_returned(spread_shop: World) -> None:
    async def scenario() -> tuple[str, Work]:
        async with opened(spread_shop.urls) as cluster:
            work = Work(cluster, "s0", "s1")
            return await run_async_transaction(sessions(cluster), work), work

    value, work = run(scenario())

    assert (value, work.runs) == ("run 1", 1)
    assert len(renamed(spread_shop)) == 2


@pytest.mark.parametrize("shards", [["s1"], ["s0", "s1"]], ids=["one", "two"])
def test_a_serialization_failure_is_run_again(spread_shop: World, shards: list[str]) -> None:
    async def scenario() -> tuple[str, Work]:
        async with opened(spread_shop.urls) as cluster:
            work = Work(cluster, *shards)

            async def another_writes(session: AsyncSession, run: int) -> None:
                if run == 1:
                    async with cluster.engine.begin() as other:
                        await other.execute(
                            update(Customer).where(Customer.id == work.keys[-1]).values(notes="x")
                        )

            work.before = another_writes  # type: ignore[method-assign]
            engine = cluster.engine.execution_options(isolation_level="REPEATABLE READ")
            factory = async_sessionmaker(engine, class_=AsyncShardedSession)
            return await run_async_transaction(factory, work), work

    value, work = run(scenario())

    assert value == "run 2"
    assert len({id(session) for session in work.sessions}) == 2
    assert not any(session.in_transaction() for session in work.sessions)
    assert len(renamed(spread_shop)) == len(shards)


def test_a_deadlock_of_two_tasks_over_two_shards(spread_shop: World) -> None:
    async def scenario() -> list[str]:
        async with opened(spread_shop.urls, timeouts=TIMEOUTS) as cluster:
            holding = [asyncio.Event(), asyncio.Event()]

            def transfer(number: int, *shards: str) -> Callable[[AsyncSession], Awaitable[str]]:
                work = Work(cluster, *shards)

                async def locking(session: AsyncSession) -> str:
                    await session.get_one(Customer, work.keys[0], with_for_update=True)
                    holding[number].set()
                    await holding[1 - number].wait()
                    return await work(session)

                return locking

            return await asyncio.gather(
                run_async_transaction(sessions(cluster), transfer(0, "s1", "s2"), retries=20),
                run_async_transaction(sessions(cluster), transfer(1, "s2", "s1"), retries=20),
            )

    values = run(scenario())

    assert len(values) == 2
    assert [name.count("!") for name in renamed(spread_shop)] == [2, 2]


def test_a_connection_that_is_lost_before_the_commit(spread_shop: World, looking: Servers) -> None:
    async def scenario() -> str:
        async with opened(spread_shop.urls) as cluster:
            work = Work(cluster, "s0", "s1")

            async def end_it(session: AsyncSession, run: int) -> None:
                if run == 1:
                    looking.end_session("s1", await pid_on(session, "s1"))

            work.before = end_it  # type: ignore[method-assign]
            return await run_async_transaction(sessions(cluster), work)

    assert run(scenario()) == "run 2"
    assert [name.count("!") for name in renamed(spread_shop)] == [1, 1]


def test_an_unknown_outcome_that_is_aborted_is_run_again(
    spread_shop: World, servers: PostgresServers
) -> None:
    async def scenario() -> str:
        async with opened(spread_shop.urls, timeouts=TIMEOUTS) as cluster:
            work = Work(cluster, "s0", "s1")
            crashed: list[asyncio.Future[None]] = []
            stopped: list[int] = []

            async def let_nobody_answer(session: AsyncSession, run: int) -> None:
                if run == 1:
                    pid = await pid_on(session, "s0")
                    cluster.hooks.fail_points = {fail_points.BEFORE_DECISION: lambda _: stop(pid)}

            def stop(pid: int) -> None:
                cluster.hooks.fail_points = None
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)

            def crash() -> None:
                servers.kill(0)
                servers.start(0)

            def start_crash(session: Session, transaction: Any) -> None:
                if stopped and not crashed:
                    crashed.append(asyncio.get_running_loop().run_in_executor(None, crash))

            def listening() -> AsyncShardedSession:
                session = AsyncShardedSession(cluster)
                event.listen(session.sync_session, "after_transaction_end", start_crash)
                return session

            work.before = let_nobody_answer  # type: ignore[method-assign]
            value = await run_async_transaction(listening, work)
            await crashed[0]
            return value

    value = run(scenario())

    assert value == "run 2"
    assert [name.count("!") for name in renamed(spread_shop)] == [1, 1]


def test_an_outcome_that_stays_unknown_is_raised(
    spread_shop: World, servers: PostgresServers
) -> None:
    async def scenario() -> tuple[str | None, int]:
        async with opened(spread_shop.urls, timeouts=TIMEOUTS) as cluster:
            work = Work(cluster, "s0", "s1")

            async def let_nobody_answer(session: AsyncSession, run: int) -> None:
                pid = await pid_on(session, "s0")
                cluster.hooks.fail_points = {
                    fail_points.BEFORE_DECISION: lambda _: os.kill(pid, signal.SIGSTOP)
                }

            work.before = let_nobody_answer  # type: ignore[method-assign]
            with pytest.raises(TransactionOutcomeUnknown) as caught:
                await run_async_transaction(sessions(cluster), work, seconds=1)
            return caught.value.gid, work.runs

    try:
        gid, runs = run(scenario())
    finally:
        servers.kill(0)  # the process that stands still, too

    assert gid is not None
    assert runs == 1


def test_a_cancelled_task_is_rolled_back_and_not_run_again(
    spread_shop: World, looking: Servers
) -> None:
    async def scenario() -> tuple[int, dict[str, int]]:
        async with opened(spread_shop.urls) as cluster:
            work = Work(cluster, "s0", "s1")
            written = asyncio.Event()

            async def write_and_wait(session: AsyncSession) -> None:
                await work(session)
                await session.flush()
                written.set()
                await asyncio.Event().wait()

            task = asyncio.ensure_future(run_async_transaction(sessions(cluster), write_and_wait))
            await written.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return work.runs, in_use(cluster)

    runs, left = run(scenario())

    assert (runs, left) == (1, {})
    assert renamed(spread_shop) == []
    assert looking.in_transaction() == set()


def test_a_pause_between_two_attempts_can_be_cancelled(spread_shop: World) -> None:
    async def scenario() -> int:
        async with opened(spread_shop.urls, timeouts=TIMEOUTS) as cluster:
            work = Work(cluster, "s1")
            async with sessions(cluster).begin() as holder:
                await holder.get_one(Customer, work.keys[0], with_for_update=True)
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(
                        run_async_transaction(sessions(cluster), work, retries=1000), 1.5
                    )
            return work.runs

    assert run(scenario()) > 1
    assert renamed(spread_shop) == []


def test_an_error_of_the_function_is_not_run_again(spread_shop: World) -> None:
    async def scenario() -> int:
        async with opened(spread_shop.urls) as cluster:
            work = Work(cluster, "s1")

            async def refuse(session: AsyncSession, run: int) -> None:
                raise ValueError("no money")

            work.before = refuse  # type: ignore[method-assign]
            with pytest.raises(ValueError, match="no money"):
                await run_async_transaction(sessions(cluster), work)
            return work.runs

    assert run(scenario()) == 1
    assert renamed(spread_shop) == []


def test_the_last_error_is_raised_when_the_attempts_are_used_up(
    spread_shop: World, looking: Servers
) -> None:
    async def scenario() -> int:
        async with opened(spread_shop.urls) as cluster:
            work = Work(cluster, "s1")

            async def end_it(session: AsyncSession, run: int) -> None:
                looking.end_session("s1", await pid_on(session, "s1"))

            work.before = end_it  # type: ignore[method-assign]
            with pytest.raises(OperationalError, match="s1"):
                await run_async_transaction(sessions(cluster), work, retries=1)
            return work.runs

    assert run(scenario()) == 2


def test_a_plain_asyncio_session_of_the_clusters_engine(spread_shop: World) -> None:
    async def scenario() -> str:
        async with opened(spread_shop.urls) as cluster:
            work = Work(cluster, "s0", "s1")
            return await run_async_transaction(async_sessionmaker(cluster.engine), work)

    assert run(scenario()) == "run 1"
    assert len(renamed(spread_shop)) == 2


def test_the_colours_are_not_mixed(spread_shop: World) -> None:
    def ordinary(session: Any) -> int:
        return 1

    async def scenario() -> None:
        async with opened(spread_shop.urls) as cluster:
            with pytest.raises(ConfigurationError, match="async def function"):
                await run_async_transaction(sessions(cluster), ordinary)  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError, match="await run_async_transaction"):
                run_transaction(sessions(cluster), ordinary)  # type: ignore[type-var, arg-type]
            with pytest.raises(ConfigurationError, match="async_sessionmaker"):
                await run_async_transaction(sessionmaker(), Work(cluster))  # type: ignore[type-var]
            with pytest.raises(ConfigurationError, match="retries"):
                await run_async_transaction(sessions(cluster), Work(cluster), retries=-1)

    run(scenario())
