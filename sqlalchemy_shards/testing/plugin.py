"""pytest fixtures for applications: a cluster of real PostgreSQL shards, empty for each test.

Servers are started when the first test asks for a fixture of this module, once in a test run (or
in each worker of it), and the databases on them are created for that run and dropped at its end.
An application overrides `shard_metadata` and, if it needs to, `shard_cluster_arguments`.

This module is loaded by every pytest run where the package is installed, so it imports next to
nothing at its top.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import MetaData

    from sqlalchemy_shards import Cluster, ShardedSession
    from sqlalchemy_shards.testing.databases import ScratchDatabase
    from sqlalchemy_shards.testing.tables import ShardTables

SHARD_COUNT = 4


@pytest.fixture(scope="session")
def _shard_databases() -> Iterator[Mapping[str, ScratchDatabase]]:
    from sqlalchemy_shards.testing.databases import ScratchDatabase
    from sqlalchemy_shards.testing.shards import start_shards

    # The servers may be shared by other runs, and one server may hold several of the databases.
    run = os.urandom(4).hex()
    with ExitStack() as stack:
        servers = stack.enter_context(start_shards(SHARD_COUNT))
        yield {
            f"s{number}": stack.enter_context(ScratchDatabase(url, f"shards_test_{run}_s{number}"))
            for number, url in enumerate(servers)
        }


@pytest.fixture(scope="session")
def shard_urls(_shard_databases: Mapping[str, ScratchDatabase]) -> dict[str, str]:
    """SQLAlchemy URLs of four databases, `s0` to `s3`, made for this test run."""
    return {name: database.url for name, database in _shard_databases.items()}


@pytest.fixture(scope="session")
def shard_metadata() -> MetaData | None:
    """The tables that `shard_cluster` creates; override it to return your `Base.metadata`."""
    return None


@pytest.fixture(scope="session")
def shard_cluster_arguments() -> Mapping[str, Any]:
    """Arguments of `create_cluster` after the URLs; override it to give keyspaces and the like."""
    return {}


@pytest.fixture(scope="session")
def _shard_tables(_shard_databases: Mapping[str, ScratchDatabase]) -> ShardTables:
    from sqlalchemy_shards.testing.tables import ShardTables

    return ShardTables(_shard_databases)


@pytest.fixture
def shard_cluster(
    shard_urls: dict[str, str],
    shard_metadata: MetaData | None,
    shard_cluster_arguments: Mapping[str, Any],
    _shard_tables: ShardTables,
) -> Iterator[Cluster]:
    """A cluster of four shards with the tables of `shard_metadata`, empty at each test's start.

    The tables are made once; after a test that changed them, everything is dropped. Rows and
    prepared transactions go after each test.
    """
    from sqlalchemy_shards import create_cluster

    cluster = create_cluster(shard_urls, **shard_cluster_arguments)
    try:
        _shard_tables.provide(cluster, shard_metadata, shard_cluster_arguments)
        yield cluster
    finally:
        cluster.dispose()
        _shard_tables.empty()


@pytest.fixture
def shard_session(shard_cluster: Cluster) -> Iterator[ShardedSession]:
    """A `ShardedSession` of `shard_cluster`, closed after the test."""
    from sqlalchemy_shards import ShardedSession

    with ShardedSession(shard_cluster) as session:
        yield session
