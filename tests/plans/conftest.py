"""Clusters for golden plans: the tables of the properties, on one, two and four shards."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from sqlalchemy_shards.planning.asked_keys import KEYS_MAX
from tests.databases import own_urls
from tests.properties.world import Base, shards_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

TOPOLOGIES = {"one": 1, "two": 2, "four": 4}


@pytest.fixture(scope="module")
def topologies(servers: PostgresServers) -> Iterator[Mapping[str, Cluster]]:
    """Name -> a cluster with empty tables, which tell the planner their collations."""
    clusters = {}
    with ExitStack() as stack:
        for name, count in TOPOLOGIES.items():
            shards = [f"s{number}" for number in range(count)]
            urls = stack.enter_context(own_urls(servers, f"plans_{name}", shards, spread=True))
            cluster = clusters[name] = shards_cluster(urls)
            stack.callback(cluster.dispose)
            cluster.create_all(Base.metadata)
        # The same four, where keys choose rows wherever they can, however many there are.
        by_keys = clusters["by keys"] = shards_cluster(urls)
        stack.callback(by_keys.dispose)
        by_keys.rows_worth_waiting = -KEYS_MAX
        yield clusters
