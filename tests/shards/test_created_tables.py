"""`create_all()` and `drop_all()`: from several processes at once, and what their errors tell."""

from __future__ import annotations

import asyncio
import enum
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import BigInteger, Column, Enum, MetaData, Table, create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from sqlalchemy_shards import Timeouts, create_async_cluster, create_cluster, shard_table
from sqlalchemy_shards.cluster.schema import TABLES_LOCK
from sqlalchemy_shards.errors import ConfigurationError
from tests.databases import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from sqlalchemy_shards import Cluster

TYPES = "SELECT count(*) FROM pg_type WHERE typname = 'moods'"
LOCKS = f"""
SELECT granted FROM pg_locks WHERE locktype = 'advisory' AND objid = {TABLES_LOCK & 0xFFFFFFFF}
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
LIMIT_SECONDS = 20.0


class Mood(enum.Enum):
    GOOD = 1
    BAD = 2


def tables(*, schema: str | None = None) -> MetaData:
    metadata = MetaData(schema=schema)
    columns = (
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("mood", Enum(Mood, name="moods")),
    )
    shard_table(Table("people", metadata, *columns), key="id")
    return metadata


@contextmanager
def cluster_of(urls: dict[str, str], **arguments: Any) -> Iterator[Cluster]:
    cluster = create_cluster(urls, name="shop", **arguments)
    yield cluster
    cluster.dispose()


@contextmanager
def another_process(url: str) -> Iterator[Connection]:
    """It holds the lock of the tables in its transaction."""
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({TABLES_LOCK})"))
        yield connection
    engine.dispose()


def wait_for_waiter(url: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while (False,) not in ask(url, LOCKS):
        assert time.monotonic() < deadline, "nobody waits for the lock"


def create_in_sync(urls: dict[str, str], **arguments: Any) -> None:
    with cluster_of(urls, **arguments) as cluster:
        cluster.create_all(tables())


def create_in_asyncio(urls: dict[str, str], **arguments: Any) -> None:
    async def create() -> None:
        cluster = create_async_cluster(urls, name="shop", **arguments)
        try:
            await cluster.create_all(tables())
        finally:
            await cluster.dispose()

    asyncio.run(create())


@pytest.mark.parametrize(
    ("create", "level"),
    [
        (create_in_sync, None),
        (create_in_sync, "SERIALIZABLE"),
        pytest.param(
            create_in_asyncio, None, marks=pytest.mark.sync_only("it has an event loop of its own")
        ),
    ],
)
def test_what_another_process_is_creating_is_waited_for_and_found(
    clean_shards: dict[str, str], create: Any, level: str | None
) -> None:
    arguments = {} if level is None else {"isolation_level": level}
    with cluster_of(clean_shards) as cluster:
        cluster.bootstrap()
    with ThreadPoolExecutor(1) as pool, another_process(clean_shards["s1"]) as other:
        tables().create_all(other)
        creating = pool.submit(create, clean_shards, **arguments)
        wait_for_waiter(clean_shards["s1"])
        other.commit()
        creating.result(LIMIT_SECONDS)

    assert [ask(url, TYPES) for url in clean_shards.values()] == [[(1,)]] * len(clean_shards)
    assert [ask(url, LOCKS) for url in clean_shards.values()] == [[]] * len(clean_shards)


def test_what_another_process_is_dropping_is_waited_for_and_not_missed(
    clean_shards: dict[str, str],
) -> None:
    with cluster_of(clean_shards) as cluster:
        cluster.create_all(tables())
        with ThreadPoolExecutor(1) as pool, another_process(clean_shards["s1"]) as other:
            tables().drop_all(other)
            dropping = pool.submit(cluster.drop_all, tables())
            wait_for_waiter(clean_shards["s1"])
            other.commit()
            dropping.result(LIMIT_SECONDS)

    assert [ask(url, TYPES) for url in clean_shards.values()] == [[(0,)]] * len(clean_shards)


def test_many_that_create_the_same_at_once_all_succeed(clean_shards: dict[str, str]) -> None:
    with ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(create_in_sync, clean_shards) for _ in range(3)]:
            each.result(LIMIT_SECONDS * 3)

    assert [ask(url, TYPES) for url in clean_shards.values()] == [[(1,)]] * len(clean_shards)


def test_another_process_is_waited_for_no_longer_than_lock_timeout(
    clean_shards: dict[str, str],
) -> None:
    with (
        cluster_of(clean_shards, timeouts=Timeouts(lock_timeout=0.1)) as cluster,
        another_process(clean_shards["s2"]),
        pytest.raises(OperationalError, match="shard: s2") as raised,
    ):
        cluster.create_all(tables())

    assert isinstance(raised.value.orig, psycopg.errors.LockNotAvailable)
    assert "another process is creating or dropping tables there" in str(raised.value)


def test_the_error_of_one_shard_names_it_and_leaves_no_lock(clean_shards: dict[str, str]) -> None:
    for name in ("s0", "s1", "s3"):
        ask(clean_shards[name], "CREATE SCHEMA house")
    with cluster_of(clean_shards) as cluster:
        with pytest.raises(ProgrammingError, match="shard: s2"):
            cluster.create_all(tables(schema="house"))
        left = ask(clean_shards["s2"], LOCKS)

    assert left == []


def test_the_error_of_several_shards_tells_that_of_the_first(clean_shards: dict[str, str]) -> None:
    for name in ("s0", "s3"):
        ask(clean_shards[name], "CREATE SCHEMA house")
    with cluster_of(clean_shards) as cluster:
        with pytest.raises(ConfigurationError) as raised:
            cluster.create_all(tables(schema="house"))
        left = [ask(url, LOCKS) for url in clean_shards.values()]

    told = "on shards 's1', 's2'; the error of 's1' is InvalidSchemaName: "
    assert told in str(raised.value)
    assert 'schema "house" does not exist' in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is raised.value.shard_errors["s1"]
    assert list(raised.value.shard_errors) == ["s1", "s2"]
    assert left == [[]] * len(clean_shards)
