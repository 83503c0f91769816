"""An asyncio cluster on the shop's databases, and the loop that a test runs in."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from sqlalchemy.ext.asyncio import async_sessionmaker

from sqlalchemy_shards import AsyncCluster, AsyncShardedSession, create_async_cluster
from tests.databases import libpq_url
from tests.shards.shop import DECLARED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping

T = TypeVar("T")

LIMIT_SECONDS = 60.0
SLEEP = "SELECT pg_sleep(300)"

Customer = DECLARED.Customer
Order = DECLARED.Order


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, which fails rather than hang."""
    return asyncio.run(asyncio.wait_for(coroutine, LIMIT_SECONDS))


@asynccontextmanager
async def opened(urls: Mapping[str, str], **arguments: Any) -> AsyncIterator[AsyncCluster]:
    """A cluster of these databases; at the end no connection of it may be in use."""
    cluster = create_async_cluster(urls, **{"name": "shop", **arguments})
    try:
        yield cluster
        assert in_use(cluster) == {}
    finally:
        cluster.hooks.fail_points = None
        await cluster.dispose()


def sessions(cluster: AsyncCluster, **options: Any) -> async_sessionmaker[AsyncShardedSession]:
    return async_sessionmaker(class_=AsyncShardedSession, cluster=cluster, **options)


def in_use(cluster: AsyncCluster) -> dict[str, int]:
    """How many connections of each shard's pool are not in it; shards without one left away."""
    pools = {name: shard.engine.sync_engine.pool for name, shard in cluster.shards.items()}
    counts = {name: pool.checkedout() for name, pool in pools.items()}  # type: ignore[attr-defined]
    return {name: count for name, count in counts.items() if count}


def key_on(cluster: AsyncCluster, shard: str) -> int:
    """The first of the shop's customers that lives on this shard."""
    return next(key for key in range(1, 13) if cluster.shard_for(Customer, key) == shard)


def keys_on(cluster: AsyncCluster, *shards: str) -> list[int]:
    return [key_on(cluster, shard) for shard in shards]


async def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait until something is so, and let other tasks go on meanwhile."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.005)


class Servers:
    """What the servers say, asked over connections beside SQLAlchemy."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._connections = {
            name: psycopg.connect(libpq_url(url), autocommit=True) for name, url in urls.items()
        }

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def running(self, sql: str = SLEEP) -> set[str]:
        """Where a statement that begins so runs."""
        return self._where("state = 'active' AND starts_with(query, %s)", sql)

    def in_transaction(self) -> set[str]:
        """Where a session other than these has a transaction open."""
        return self._where("state LIKE 'idle in transaction%%' AND %s <> ''", "any")

    def waiting(self) -> set[str]:
        """Where somebody waits for a lock."""
        return self._where("wait_event_type = 'Lock' AND %s <> ''", "any")

    @contextmanager
    def locked(self, *shards: str) -> Iterator[None]:
        """Nobody reads or writes customers and orders there."""
        for name in shards:
            self._connections[name].execute("BEGIN")
            self._connections[name].execute("LOCK TABLE customers, orders")
        try:
            yield
        finally:
            for name in shards:
                self._connections[name].execute("ROLLBACK")

    def prepared(self) -> set[str]:
        query = "SELECT 1 FROM pg_prepared_xacts WHERE database = current_database()"
        return {name for name, one in self._connections.items() if one.execute(query).fetchone()}

    def end_session(self, shard: str, pid: int) -> None:
        self._connections[shard].execute("SELECT pg_terminate_backend(%s, 20000)", [pid])

    def _where(self, condition: str, value: str) -> set[str]:
        query = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
            f" AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND {condition}"
        )
        return {
            name
            for name, one in self._connections.items()
            if one.execute(query, [value]).fetchone()  # type: ignore[arg-type]
        }
