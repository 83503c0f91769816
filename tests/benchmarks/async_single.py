"""Reading by key over asyncio: what the way through the cluster adds to an `AsyncSession`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack, contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from sqlalchemy_shards import AsyncShardedSession, create_async_cluster

from .databases import keys_on
from .report import compared
from .single_shard import BY_KEY
from .tables import Account
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    from sqlalchemy_shards import AsyncCluster, Cluster

    from .report import Figure

READS = 20
RATIO_MAX = 1.04


def measure(cluster: Cluster, urls: Mapping[str, str], *, rounds: int) -> Iterator[Figure]:
    """`READS` in a row, in one task."""
    shard = next(iter(urls))
    keys = keys_on(cluster, shard)
    with ExitStack() as stack:
        run = stack.enter_context(asyncio.Runner())
        engine, own_cluster = stack.enter_context(both(run.run, urls, shard))
        opened = AsyncExitStack()

        async def open_sessions() -> dict[str, AsyncSession]:
            return {
                "plain": await opened.enter_async_context(AsyncSession(engine)),
                "ours": await opened.enter_async_context(AsyncShardedSession(own_cluster)),
            }

        sessions = run.run(open_sessions())
        stack.callback(lambda: run.run(opened.aclose()))
        for name, read in (("get(), asyncio", _get), ("ORM select by key, asyncio", _select)):
            contenders = [
                Contender(kind, _reading(run.run, read, session, keys))
                for kind, session in sessions.items()
            ]
            times = take_turns(contenders, rounds=rounds, calls=1)
            yield compared(
                f"{name}, {READS} times",
                times["ours"],
                times["plain"],
                against="plain AsyncSession",
                ratio_max=RATIO_MAX,
            )


@contextmanager
def both(
    run: Callable[[Any], Any], urls: Mapping[str, str], shard: str, **options: Any
) -> Iterator[tuple[AsyncEngine, AsyncCluster]]:
    """SQLAlchemy's engine for one shard, and a cluster over all of them."""
    engine = create_async_engine(urls[shard], **options)
    cluster = create_async_cluster(urls, name="bench", **options)
    try:
        yield engine, cluster
    finally:
        run(engine.dispose())
        run(cluster.dispose())


def _reading(
    run: Callable[[Any], Any],
    read: Callable[[Any, int], Awaitable[None]],
    session: AsyncSession,
    keys: list[int],
) -> Callable[[], None]:
    key = cycle(keys)

    async def several() -> None:
        for _ in range(READS):
            await read(session, next(key))

    return lambda: run(several())


async def _get(session: AsyncSession, key: int) -> None:
    await session.get(Account, key)
    session.expunge_all()


async def _select(session: AsyncSession, key: int) -> None:
    (await session.scalars(BY_KEY, {"key": key})).one()
    session.expunge_all()
