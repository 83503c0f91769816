"""Each module's models on one PostgreSQL, on a cluster of one shard, and on four shards.

A module of this folder has ``make_models(say)``, which returns a namespace with ``metadata`` and
the classes. Its tables are made once, and emptied after each test; on four shards, each row is
then looked for on the shard of its key, and the copies of reference tables are compared.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine

from sqlalchemy_shards import create_cluster
from sqlalchemy_shards.testing.databases import ScratchDatabase
from tests.shards.mapping.worlds import Keeper, Saying
from tests.shards.shop import SHARDS, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers

WORLDS = ("plain", "one_shard", "four_shards")


@pytest.fixture(scope="session")
def _mapping_databases(servers: PostgresServers) -> Iterator[dict[str, ScratchDatabase]]:
    with ExitStack() as stack:
        for number in range(servers.count):
            servers.start(number)
        numbers = {"one": 0, **{name: number for number, name in enumerate(SHARDS)}}
        yield {
            name: stack.enter_context(ScratchDatabase(servers.url(number), f"mapping_{name}"))
            for name, number in numbers.items()
        }
        for number in range(servers.count):
            servers.start(number)


@pytest.fixture(scope="module")
def mapping_worlds(
    request: pytest.FixtureRequest,
    servers: PostgresServers,
    _mapping_databases: dict[str, ScratchDatabase],
) -> Iterator[dict[str, World]]:
    """The three worlds of a module, with its tables."""
    for number in range(servers.count):
        servers.start(number)
    for database in _mapping_databases.values():
        database.empty()
    urls = {name: database.url for name, database in _mapping_databases.items()}
    one = {"one": urls.pop("one")}
    options = getattr(request.module, "CLUSTER_OPTIONS", dict)()
    make = request.module.make_models
    with ExitStack() as stack:
        single = create_cluster(one, name="mapping", **options)
        four = create_cluster(urls, name="mapping", **options)
        engine = create_engine(one["one"])
        for each in (single, four, engine):
            stack.callback(each.dispose)
        worlds = {
            "plain": World("plain", make(Saying(is_declared=False)), engine, one),
            "one_shard": World(
                "one shard", make(Saying(is_declared=True)), single.engine, one, single
            ),
            "four_shards": World(
                "four shards", make(Saying(is_declared=True)), four.engine, urls, four
            ),
        }
        for name in ("one_shard", "four_shards"):
            cluster = worlds[name].cluster
            assert cluster is not None
            cluster.create_all(worlds[name].models.metadata)
        yield worlds


@pytest.fixture(scope="module")
def _keepers(mapping_worlds: dict[str, World]) -> Iterator[dict[str, Keeper]]:
    keepers = {name: Keeper(world.urls) for name, world in mapping_worlds.items()}
    yield keepers
    for keeper in keepers.values():
        keeper.close()


@pytest.fixture(params=WORLDS)
def world(
    request: pytest.FixtureRequest,
    mapping_worlds: dict[str, World],
    _keepers: dict[str, Keeper],
) -> Iterator[World]:
    """The module's tables, empty, in each of the three."""
    found, keeper = mapping_worlds[request.param], _keepers[request.param]
    yield found
    try:
        assert not found.is_spread or keeper.misplaced(found) == []
    finally:
        keeper.empty()
