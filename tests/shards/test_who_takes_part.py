"""Which shards a commit takes for written to, however the application wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, func, select, text

from sqlalchemy_shards import create_cluster
from sqlalchemy_shards.events import DistributedCommit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy_shards import Cluster

_SCHEMA = """
CREATE TABLE note (x int);
CREATE FUNCTION put(x int) RETURNS int LANGUAGE sql AS 'INSERT INTO note VALUES (x) RETURNING x';
CREATE FUNCTION look(x int) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM note';
"""

Work = "Callable[[Connection, str], object]"


def on(connection: Connection, shard: str, sql: str) -> object:
    return connection.execute(text(sql), execution_options={"shard": shard})


def by_driver(connection: Connection, shard: str) -> object:
    cluster_connection = connection.connection.driver_connection
    return cluster_connection.shard(shard).execute("INSERT INTO note VALUES (1)")  # type: ignore[union-attr]


def by_function(connection: Connection, shard: str) -> object:
    statement = select(func.put(1)).execution_options(shard=shard)
    return connection.execute(statement).all()


WRITES: dict[str, Work] = {
    "text": lambda c, shard: on(c, shard, "INSERT INTO note VALUES (1)"),
    "a CTE in text": lambda c, shard: on(
        c, shard, "WITH w AS (INSERT INTO note VALUES (1) RETURNING x) SELECT * FROM w"
    ),
    "a function in text": lambda c, shard: on(c, shard, "SELECT put(1)"),
    "a function": by_function,
    "a block": lambda c, shard: on(c, shard, "DO 'BEGIN PERFORM put(1); END'"),
    "the shard's own connection": by_driver,
    "rows that were locked": lambda c, shard: on(c, shard, "SELECT x FROM note FOR UPDATE"),
}
READS: dict[str, Work] = {
    "text": lambda c, shard: on(c, shard, "SELECT 1"),
    "a function": lambda c, shard: on(c, shard, "SELECT look(1)"),
    "an update of no rows": lambda c, shard: on(c, shard, "UPDATE note SET x = 2 WHERE x = 9"),
    "an advisory lock": lambda c, shard: on(c, shard, "SELECT pg_advisory_xact_lock(1)"),
}


@pytest.fixture
def cluster(clean_shards: Mapping[str, str]) -> Iterator[Cluster]:
    cluster = create_cluster(clean_shards, name="shop")
    cluster.bootstrap()
    for shard in cluster.shards:
        with cluster.connect(shard) as connection:
            connection.execute(_SCHEMA)
            connection.execute("INSERT INTO note VALUES (0)")
    yield cluster
    cluster.dispose()


@pytest.mark.parametrize("how", list(WRITES))
def test_whatever_wrote_makes_a_participant(cluster: Cluster, how: str) -> None:
    told: list[DistributedCommit] = []
    cluster.hooks.listen(DistributedCommit, told.append)

    with cluster.engine.begin() as connection:
        for shard in ("s2", "s1"):
            WRITES[how](connection, shard)

    assert [event.participants for event in told] == [("s1", "s2")]


@pytest.mark.parametrize("how", list(READS))
def test_whatever_only_read_makes_none(cluster: Cluster, how: str) -> None:
    told: list[DistributedCommit] = []
    cluster.hooks.listen(DistributedCommit, told.append)

    with cluster.engine.begin() as connection:
        WRITES["a function in text"](connection, "s2")
        for shard in ("s0", "s1"):
            READS[how](connection, shard)

    assert told == []
