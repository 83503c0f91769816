"""TPC-H at a hundredth of its scale, in one database and on four shards."""

from __future__ import annotations

from contextlib import ExitStack
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
def tpch(servers: PostgresServers) -> Iterator[Tpch]:
    """Filled once; nobody changes it."""
    with ExitStack() as stack:
        shards = [f"s{number}" for number in range(servers.count)]
        urls = stack.enter_context(own_urls(servers, "tpch", shards, spread=True))
        one_url = stack.enter_context(own_urls(servers, "tpch", ["one"]))["one"]
        one = create_engine(one_url)
        stack.callback(one.dispose)
        cluster = create_cluster(urls, name="tpch")
        stack.callback(cluster.dispose)
        with generated(SCALE) as directory:
            fill_database(one, directory)
            fill_cluster(cluster, directory)
        yield Tpch(cluster, one)
        for number in range(servers.count):
            servers.start(number)
