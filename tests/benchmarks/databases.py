"""Where the measurements happen: databases on throwaway servers, and clusters over them."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import create_engine, insert

from sqlalchemy_shards import Cluster, create_cluster
from sqlalchemy_shards.testing.databases import ScratchDatabase
from sqlalchemy_shards.testing.servers import PostgresServers

from .tables import CREATE_SLOW_ROWS, Account, Base

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Engine

SERVERS = 4
ACCOUNTS = 2_000

# As in production: a commit waits for the disk.
SETTINGS = {"fsync": "on", "full_page_writes": "on"}


def start_servers(backend: str, **settings: str) -> PostgresServers:
    """Return the servers that all shards are spread over, to be used in ``with``."""
    return PostgresServers(SERVERS, backend=backend, settings={**SETTINGS, **settings})


@contextmanager
def shard_urls(
    servers: PostgresServers, count: int, *, prefix: str = "of"
) -> Iterator[dict[str, str]]:
    """Databases `s0`, `s1`, ... of their own, one server after the other; dropped at the end."""
    with ExitStack() as stack:
        yield {
            f"s{number}": stack.enter_context(
                ScratchDatabase(servers.url(number % SERVERS), f"{prefix}_{count}_{number}")
            ).url
            for number in range(count)
        }


@contextmanager
def filled_cluster(urls: Mapping[str, str], **options: Any) -> Iterator[Cluster]:
    """A cluster with tables, `ACCOUNTS` accounts and the slow view."""
    cluster = create_cluster(urls, name="bench", **options)
    try:
        cluster.create_all(Base.metadata)
        rows = [{"id": key, "name": f"name {key}", "balance": key} for key in range(ACCOUNTS)]
        with cluster.engine.begin() as connection:
            connection.execute(insert(Account), rows)
        for name in cluster.shards:
            with cluster.connect(name) as driver:
                driver.execute(CREATE_SLOW_ROWS.encode())
                driver.execute("ANALYZE")
        yield cluster
    finally:
        cluster.dispose()


@contextmanager
def reached_cluster(urls: Mapping[str, str], **options: Any) -> Iterator[Cluster]:
    """A cluster over databases that are filled already."""
    cluster = create_cluster(urls, name="bench", **options)
    try:
        yield cluster
    finally:
        cluster.dispose()


@contextmanager
def plain_engine(url: str) -> Iterator[Engine]:
    """SQLAlchemy's own engine for one shard: what a cluster is held against."""
    engine = create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def keys_on(cluster: Cluster, shard: str) -> list[int]:
    """The accounts that live on a shard."""
    return [key for key in range(ACCOUNTS) if cluster.shard_for(Account, key) == shard]


@contextmanager
def driver_connections(urls: Mapping[str, str]) -> Iterator[dict[str, psycopg.Connection]]:
    """A connection of psycopg's to each shard, without SQLAlchemy."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                closing(psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://")))
            )
            for name, url in urls.items()
        }
