"""The shop on one PostgreSQL, on a cluster of one shard, and on four shards.

Its tables are made once and emptied after each test; clusters and engines are made for each test.
Tests that change databases in other ways take `clean_shards`.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import pytest
from sqlalchemy import Engine, create_engine

from sqlalchemy_shards import Cluster, create_cluster
from sqlalchemy_shards.testing.databases import ScratchDatabase
from tests.shards.shop import DECLARED, SHARDS, UNDECLARED, World, ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy_shards.testing.servers import PostgresServers

Disposable = TypeVar("Disposable", Cluster, Engine)

_END_OTHER_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@pytest.fixture(scope="session")
def _one_shop(servers: PostgresServers) -> Iterator[ScratchDatabase]:
    """A database with the tables, and the schema `shards`, which plain SQLAlchemy ignores."""
    with _databases(servers, {"one": 0}) as databases:
        urls = {"one": databases["one"].url}
        with _disposing(create_cluster(urls, name="shop", undeclared="global")) as cluster:
            cluster.create_all(UNDECLARED.metadata)
        yield databases["one"]
        _start_all(servers)


@pytest.fixture(scope="session")
def _four_shops(servers: PostgresServers) -> Iterator[Mapping[str, ScratchDatabase]]:
    with _databases(servers, {name: number for number, name in enumerate(SHARDS)}) as databases:
        urls = {name: database.url for name, database in databases.items()}
        with _disposing(create_cluster(urls, name="shop")) as cluster:
            cluster.create_all(DECLARED.metadata)
        yield databases
        _start_all(servers)


@pytest.fixture
def one_shop_url(servers: PostgresServers, _one_shop: ScratchDatabase) -> Iterator[str]:
    """URL of one database with the shop's tables, empty."""
    _start_all(servers)
    yield _one_shop.url
    _start_all(servers)
    _empty(_one_shop, UNDECLARED.metadata.sorted_tables)


@pytest.fixture
def shop_urls(
    servers: PostgresServers, _four_shops: Mapping[str, ScratchDatabase]
) -> Iterator[dict[str, str]]:
    """URLs of four databases with the shop's tables, empty."""
    _start_all(servers)
    yield {name: database.url for name, database in _four_shops.items()}
    _start_all(servers)
    for name, database in _four_shops.items():
        tables = DECLARED.metadata.sorted_tables
        _empty(database, [t for t in tables if name == SHARDS[0] or t.name != "flags"])


@pytest.fixture
def plain(one_shop_url: str) -> Iterator[World]:
    """Plain SQLAlchemy on one database: what all others must be like."""
    with _disposing(create_engine(one_shop_url)) as engine:
        yield World("plain", UNDECLARED, engine, {"one": one_shop_url})


@pytest.fixture
def one_shard(one_shop_url: str) -> Iterator[World]:
    """A cluster of one shard, with models that say nothing."""
    urls = {"one": one_shop_url}
    with _disposing(create_cluster(urls, name="shop", undeclared="global")) as cluster:
        yield World("one shard", UNDECLARED, cluster.engine, urls, cluster)


@pytest.fixture
def four_shards(shop_urls: dict[str, str]) -> Iterator[World]:
    """Four shards, with models that say how they spread."""
    with _disposing(create_cluster(shop_urls, name="shop")) as cluster:
        yield World("four shards", DECLARED, cluster.engine, shop_urls, cluster)


@pytest.fixture(params=["plain", "one_shard", "four_shards"])
def world(request: pytest.FixtureRequest) -> World:
    """The shop's tables, empty, in each of the three."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, World)
    return found


@pytest.fixture
def shop(world: World) -> World:
    """The same with twelve customers in it; they live on all shards."""
    world.fill()
    return world


@pytest.fixture
def spread_shop(four_shards: World) -> World:
    """Twelve customers on four shards."""
    four_shards.fill()
    return four_shards


@contextmanager
def _databases(
    servers: PostgresServers, numbers: Mapping[str, int]
) -> Iterator[dict[str, ScratchDatabase]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(ScratchDatabase(servers.url(number), f"shop_{name}"))
            for name, number in numbers.items()
        }


@contextmanager
def _disposing(made: Disposable) -> Iterator[Disposable]:
    try:
        yield made
    finally:
        made.dispose()


def _empty(database: ScratchDatabase, tables: list[Any]) -> None:
    database.roll_back_prepared()
    names = [f'"{table.name}"' for table in reversed(tables)]
    deletes = "; ".join(f"DELETE FROM {name}" for name in [*names, "shards.decisions"])
    try:
        ask(database.url, f"SET lock_timeout = 2000; {deletes}")
    except psycopg.errors.LockNotAvailable:
        ask(database.url, _END_OTHER_SESSIONS)
        ask(database.url, deletes)


def _start_all(servers: PostgresServers) -> None:
    for number in range(servers.count):
        servers.start(number)
