"""TPC-H at a hundredth of its scale, in one database and on four shards."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine

from sqlalchemy_shards import create_cluster
from tests.databases import own_urls
from tests.tpch.data import fill_cluster, fill_database, generated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

SCALE = 0.01


@dataclass(frozen=True)
class Tpch:
    """The same rows twice."""

    cluster: Cluster
    one: Engine


@pytest.fixture(scope="session")
def _tpch_urls(servers: PostgresServers) -> Iterator[tuple[dict[str, str], str]]:
    """URLs of the shards and of the one database; filled once, and nobody changes them."""
    with ExitStack() as stack:
        names = [f"s{number}" for number in range(servers.count)]
        shards = stack.enter_context(own_urls(servers, "tpch", names, spread=True))
        one = stack.enter_context(own_urls(servers, "tpch", ["one"]))["one"]
        with opened(shards, one) as tpch, generated(SCALE) as directory:
            fill_database(tpch.one, directory)
            fill_cluster(tpch.cluster, directory)
        yield shards, one


@pytest.fixture(scope="module")
def tpch(servers: PostgresServers, _tpch_urls: tuple[dict[str, str], str]) -> Iterator[Tpch]:
    """Connections are a module's own: whoever came before may have killed a server under theirs."""
    for number in range(servers.count):
        servers.start(number)
    with opened(*_tpch_urls) as tpch:
        yield tpch


@contextmanager
def opened(shards: dict[str, str], one: str) -> Iterator[Tpch]:
    """The databases, with connections to them."""
    engine, cluster = create_engine(one), create_cluster(shards, name="tpch")
    try:
        yield Tpch(cluster, engine)
    finally:
        cluster.dispose()
        engine.dispose()
