"""Many at once: 32 threads, or tasks, that read and write by key, a transaction each time.

The cluster has four servers and one plain engine has one, but all of them share the machine: what
is compared is the client's work, as the servers' is the same in both.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from sqlalchemy_shards import AsyncShardedSession, ShardedSession

from .async_single import both
from .databases import ACCOUNTS, keys_on, reached_cluster
from .report import compared
from .tables import Account
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy_shards import Cluster

    from .report import Figure

AT_ONCE = 32
TRANSACTIONS = 10
"""Of each of them, in a round."""

WRITES_ONE_IN = 4
RATIO_MAX = 1 / 0.95
POOL = {"pool_size": AT_ONCE}


def measure(cluster: Cluster, urls: Mapping[str, str], *, rounds: int) -> Iterator[Figure]:
    """Time for the same number of transactions: 0.95 of the throughput is 1.053 of the time."""
    shard = next(iter(urls))
    own_keys, plain_keys = list(range(ACCOUNTS)), keys_on(cluster, shard)
    with ExitStack() as stack:
        engine = create_engine(urls[shard], **POOL)
        stack.callback(engine.dispose)
        own = stack.enter_context(reached_cluster(urls, **POOL))
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        yield _compared("threads", {
            "plain": partial(_by_threads, pool, lambda: Session(engine), plain_keys),
            "ours": partial(_by_threads, pool, lambda: ShardedSession(own), own_keys),
        }, rounds=rounds)  # fmt: skip
    with ExitStack() as stack:
        run = stack.enter_context(asyncio.Runner())
        async_engine, async_own = stack.enter_context(both(run.run, urls, shard, **POOL))
        yield _compared("tasks", {
            "plain": lambda: run.run(_by_tasks(lambda: AsyncSession(async_engine), plain_keys)),
            "ours": lambda: run.run(_by_tasks(lambda: AsyncShardedSession(async_own), own_keys)),
        }, rounds=rounds)  # fmt: skip


def _compared(of: str, calls: Mapping[str, Callable[[], Any]], *, rounds: int) -> Figure:
    contenders = [Contender(name, call) for name, call in calls.items()]
    times = take_turns(contenders, rounds=rounds, calls=1)
    return compared(
        f"{AT_ONCE * TRANSACTIONS} transactions by {AT_ONCE} {of}",
        times["ours"],
        times["plain"],
        against="one plain engine",
        ratio_max=RATIO_MAX,
    )


def _numbers(keys: list[int], worker: int) -> Iterator[tuple[int, bool]]:
    """The keys of one worker, which no other has, and whether each is written."""
    for number in range(TRANSACTIONS):
        place = worker * TRANSACTIONS + number
        yield keys[place % len(keys)], number % WRITES_ONE_IN == 0


def _by_threads(pool: ThreadPoolExecutor, make: Callable[[], Session], keys: list[int]) -> None:
    def work(worker: int) -> None:
        for key, writes in _numbers(keys, worker):
            with make() as session:
                account = session.get(Account, key)
                if writes:
                    account.balance += 1  # type: ignore[union-attr]
                    session.commit()

    list(pool.map(work, range(AT_ONCE)))


async def _by_tasks(make: Callable[[], AsyncSession], keys: list[int]) -> None:
    async def work(worker: int) -> None:
        for key, writes in _numbers(keys, worker):
            async with make() as session:
                account = await session.get(Account, key)
                if writes:
                    account.balance += 1  # type: ignore[union-attr]
                    await session.commit()

    await asyncio.gather(*(work(worker) for worker in range(AT_ONCE)))
