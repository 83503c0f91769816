"""One library in four worlds: plain SQLAlchemy, one shard, and four shards in two ways.

On four shards the workspace is given what is shipped as CTEs, and once more as temporary tables.
The rows are stored once; what a test changes is rolled back.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from sqlalchemy_shards import create_cluster
from tests.databases import own_urls
from tests.shards.mapping.worlds import Saying
from tests.shards.results.library import fill, make_models
from tests.shards.results.same import Same
from tests.shards.shop import SHARDS, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers

PLAIN = make_models(Saying(is_declared=False))
DECLARED = make_models(Saying(is_declared=True))


@pytest.fixture(scope="session")
def _libraries(servers: PostgresServers) -> Iterator[dict[str, str]]:
    """URLs of five databases with the library's rows: one has all of them, four have a part."""
    with ExitStack() as stack:
        urls = stack.enter_context(own_urls(servers, "results", [*SHARDS, "one"], spread=True))
        for names in (["one"], SHARDS):
            cluster = create_cluster({name: urls[name] for name in names}, name="library")
            stack.callback(cluster.dispose)
            cluster.create_all(DECLARED.metadata)
            with Session(cluster.engine) as session, session.begin():
                fill(session, DECLARED)
        yield urls


@pytest.fixture(scope="module")
def library(servers: PostgresServers, _libraries: dict[str, str]) -> Iterator[dict[str, World]]:
    """The worlds of a module."""
    _start_all(servers)
    one = {"one": _libraries["one"]}
    four = {name: _libraries[name] for name in SHARDS}
    with ExitStack() as stack:
        engine = create_engine(one["one"])
        stack.callback(engine.dispose)
        worlds = {"plain": World("plain", PLAIN, engine, one)}
        for name, urls in (("one shard", one), ("CTEs", four), ("temporary tables", four)):
            cluster = create_cluster(urls, name="library")
            stack.callback(cluster.dispose)
            worlds[name] = World(name, DECLARED, cluster.engine, urls, cluster)
            if name == "temporary tables":
                cluster.workspace.cte_rows_max = -1
        yield worlds


@pytest.fixture
def same(library: dict[str, World]) -> Same:
    """Runs a test's body in each world; all must give what plain SQLAlchemy gives."""
    return Same(library)


@pytest.fixture
def four_shards(library: dict[str, World]) -> World:
    return library["CTEs"]


def _start_all(servers: PostgresServers) -> None:
    for number in range(servers.count):
        servers.start(number)
