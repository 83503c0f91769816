"""Conditions on keys of every kind of keyspace: no shard with a matching row is left out.

The truth comes from one PostgreSQL that holds all rows: every row of its answer lies on a shard of
the route, and where the cluster answers, it answers alike.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from sqlalchemy import create_engine, select
from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards import create_cluster
from sqlalchemy_shards.errors import UnsupportedStatement
from tests.databases import own_urls
from tests.properties.conditions import ITEMS, METADATA, keyspaces, rows, statements
from tests.properties.test_answers import EXAMPLES, thorough
from tests.properties.world import typed
from tests.routed import routed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers
    from tests.properties.conftest import Tally

SHARDS = 4


class Rows(NamedTuple):
    """The same rows on four shards and in one database."""

    cluster: Cluster
    one: Engine
    ids: list[int]


@pytest.fixture(scope="module")
def filled(servers: PostgresServers) -> Iterator[Rows]:
    with ExitStack() as stack:
        names = [*(f"s{number}" for number in range(SHARDS)), "one"]
        urls = stack.enter_context(own_urls(servers, "conditions", names, spread=True))
        one = create_engine(urls.pop("one"))
        cluster = create_cluster(urls, name="conditions", keyspaces=keyspaces())
        stack.callback(cluster.dispose)
        stack.callback(one.dispose)
        cluster.create_all(METADATA)
        METADATA.create_all(one)
        for bind in (cluster.engine, one):
            with bind.begin() as connection:
                for table, values in rows(cluster.shard_map).items():
                    connection.execute(table.insert(), values)
        with one.connect() as connection:
            ids = list(connection.scalars(select(ITEMS.c.id)))
        yield Rows(cluster, one, ids)


@pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
@pytest.mark.filterwarnings("ignore:Coercing Subquery object")
def test_every_condition_finds_the_rows_that_match(filled: Rows, tally: Tally) -> None:
    @settings(thorough, max_examples=EXAMPLES)
    @given(statements(filled.ids))
    def check(statement: Any) -> None:
        try:
            with filled.one.connect() as connection:
                expected = Counter(map(typed, connection.execute(statement)))
        except DBAPIError:
            return  # PostgreSQL does not compare such types
        try:
            with filled.cluster.engine.connect() as connection:
                found = Counter(map(typed, connection.execute(statement)))
        except UnsupportedStatement:
            tally.counts["condition refused"] += 1
            return
        route = routed(statement, filled.cluster.territory)
        tally.counts["narrowed" if len(route.shards) < SHARDS else "to all shards"] += 1
        assert found == expected

    check()
