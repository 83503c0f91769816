"""The shop on one PostgreSQL, on a cluster of one shard, and on four shards.

Its tables are made once and emptied after each test; clusters and engines are made for each test.
Tests that change databases in other ways take `clean_shards`.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import pytest
from sqlalchemy import Engine, create_engine

from sqlalchemy_shards import Cluster, create_cluster
from sqlalchemy_shards.connections.hub import ShardConnection
from sqlalchemy_shards.testing.databases import ScratchDatabase
from tests.databases import libpq_url
from tests.shards.accounts import Accounts
from tests.shards.shop import DECLARED, SHARDS, UNDECLARED, View, World
from tests.shards.watching import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy_shards.testing.servers import PostgresServers

Disposable = TypeVar("Disposable", Cluster, Engine)

_END_OTHER_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@dataclass
class Shops:
    """Databases with the shop's tables, which are empty before each test."""

    databases: Mapping[str, ScratchDatabase]
    tables: Mapping[str, list[str]]
    view: View
    filling: dict[str, str] = field(default_factory=dict)
    is_empty: bool = True

    @property
    def urls(self) -> dict[str, str]:
        return {name: database.url for name, database in self.databases.items()}

    @contextmanager
    def used(self, servers: PostgresServers) -> Iterator[dict[str, str]]:
        """Their URLs; the servers run and the tables are empty, before and after."""
        _start_all(servers)
        if not self.is_empty:  # a test was stopped before it had emptied them
            self._empty()
        self.is_empty = False
        yield self.urls
        _start_all(servers)
        self._empty()

    def _empty(self) -> None:
        for name, database in self.databases.items():
            database.roll_back_prepared()
            deletes = "; ".join(f"DELETE FROM {table}" for table in self.tables[name])
            limited = f"SET lock_timeout = 2000; {deletes}; RESET lock_timeout"
            try:
                self.view.ask(database.url, limited)
            except psycopg.errors.LockNotAvailable:
                self.view.ask(database.url, _END_OTHER_SESSIONS)
                self.view.ask(database.url, deletes)
        self.is_empty = True


@pytest.fixture
def connections(urls: dict[str, str]) -> Iterator[dict[str, ShardConnection]]:
    """A driver connection to each of four databases."""
    with ExitStack() as stack:
        opened = {name: ShardConnection.connect(libpq_url(url)) for name, url in urls.items()}
        stack.callback(lambda: [connection.close() for connection in opened.values()])
        yield opened


@pytest.fixture
def watcher(urls: dict[str, str]) -> Iterator[Watcher]:
    """Looks at the servers of these connections."""
    with ExitStack() as stack:
        yield Watcher(
            [
                stack.enter_context(psycopg.connect(libpq_url(url), autocommit=True))
                for url in urls.values()
            ]
        )


@pytest.fixture(scope="session")
def _view() -> Iterator[View]:
    view = View()
    yield view
    view.close()


@pytest.fixture(scope="session")
def _one_shop(servers: PostgresServers, _view: View) -> Iterator[Shops]:
    """A database with the tables, and the schema `shards`, which plain SQLAlchemy ignores."""
    with _databases(servers, {"one": 0}) as databases:
        urls = {"one": databases["one"].url}
        with _disposing(create_cluster(urls, name="shop", undeclared="global")) as cluster:
            cluster.create_all(UNDECLARED.metadata)
        yield Shops(databases, {"one": _tables_of(UNDECLARED)}, _view)
        _start_all(servers)


@pytest.fixture(scope="session")
def _four_shops(servers: PostgresServers, _view: View) -> Iterator[Shops]:
    with _databases(servers, {name: number for number, name in enumerate(SHARDS)}) as databases:
        urls = {name: database.url for name, database in databases.items()}
        with _disposing(create_cluster(urls, name="shop")) as cluster:
            cluster.create_all(DECLARED.metadata)
        tables = _tables_of(DECLARED)
        elsewhere = [table for table in tables if table != '"flags"']
        yield Shops(databases, dict.fromkeys(SHARDS, elsewhere) | {SHARDS[0]: tables}, _view)
        _start_all(servers)


@pytest.fixture
def one_shop_url(servers: PostgresServers, _one_shop: Shops) -> Iterator[str]:
    """URL of one database with the shop's tables, empty."""
    with _one_shop.used(servers) as urls:
        yield urls["one"]


@pytest.fixture
def shop_urls(servers: PostgresServers, _four_shops: Shops) -> Iterator[dict[str, str]]:
    """URLs of four databases with the shop's tables, empty."""
    with _four_shops.used(servers) as urls:
        yield urls


@pytest.fixture
def plain(one_shop_url: str, _one_shop: Shops) -> Iterator[World]:
    """Plain SQLAlchemy on one database: what all others must be like."""
    urls = {"one": one_shop_url}
    kept = (_one_shop.view, _one_shop.filling)
    with _disposing(create_engine(one_shop_url)) as engine:
        yield World("plain", UNDECLARED, engine, urls, None, *kept)


@pytest.fixture
def one_shard(one_shop_url: str, _one_shop: Shops) -> Iterator[World]:
    """A cluster of one shard, with models that say nothing."""
    urls = {"one": one_shop_url}
    kept = (_one_shop.view, _one_shop.filling)
    with _disposing(create_cluster(urls, name="shop", undeclared="global")) as cluster:
        yield World("one shard", UNDECLARED, cluster.engine, urls, cluster, *kept)


@pytest.fixture
def four_shards(shop_urls: dict[str, str], _four_shops: Shops) -> Iterator[World]:
    """Four shards, with models that say how they spread."""
    kept = (_four_shops.view, _four_shops.filling)
    with _disposing(create_cluster(shop_urls, name="shop")) as cluster:
        yield World("four shards", DECLARED, cluster.engine, shop_urls, cluster, *kept)


@pytest.fixture(params=[pytest.param("plain", marks=pytest.mark.slow), "one_shard", "four_shards"])
def world(request: pytest.FixtureRequest) -> World:
    """The shop's tables, empty, in each of the three.

    That plain SQLAlchemy is as a test says need be seen with one version only.
    """
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


@pytest.fixture(scope="session")
def _accounts(servers: PostgresServers) -> Iterator[Accounts]:
    numbers = {name: number for number, name in enumerate(SHARDS)}
    with _databases(servers, numbers, prefix="accounts") as databases:
        yield Accounts(databases)
        _start_all(servers)


@pytest.fixture
def account_urls(servers: PostgresServers, _accounts: Accounts) -> Iterator[dict[str, str]]:
    """URLs of four shards with 100 on an account each, as `distributed.Shards` makes them."""
    _start_all(servers)
    _accounts.provide()
    yield dict(_accounts.urls)
    _start_all(servers)
    _accounts.roll_back_prepared()


@contextmanager
def _databases(
    servers: PostgresServers, numbers: Mapping[str, int], *, prefix: str = "shop"
) -> Iterator[dict[str, ScratchDatabase]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(ScratchDatabase(servers.url(number), f"{prefix}_{name}"))
            for name, number in numbers.items()
        }


@contextmanager
def _disposing(made: Disposable) -> Iterator[Disposable]:
    try:
        yield made
    finally:
        made.dispose()


def _tables_of(models: Any) -> list[str]:
    tables = reversed(models.metadata.sorted_tables)
    return [*(f'"{table.name}"' for table in tables), "shards.decisions"]


def _start_all(servers: PostgresServers) -> None:
    for number in range(servers.count):
        servers.start(number)
