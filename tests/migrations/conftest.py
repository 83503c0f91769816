"""A project to migrate, on four empty shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic import command

from sqlalchemy_shards import HashPartitioner, Keyspace, create_cluster
from tests.databases import own_urls
from tests.migrations.atomic import SHARDS, bootstrap
from tests.migrations.project import Project
from tests.migrations.turns import BOUNDS, CREATE, DROP, give_bounds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlalchemy_shards.testing.servers import PostgresServers


@pytest.fixture
def project(tmp_path: Path, clean_shards: Mapping[str, str]) -> Project:
    """An application with a configuration, an environment and no revision yet."""
    project = Project(tmp_path, clean_shards)
    project.write()
    return project


@pytest.fixture
def things(project: Project) -> Project:
    """A project whose shards have a table, and which waits for its locks a tenth of a second."""
    give_bounds(project, BOUNDS)
    project.revise("r1", None, CREATE, DROP)
    command.upgrade(project.config(), "head")
    return project


@pytest.fixture
def ready(project: Project) -> Project:
    """A project whose shards have the schema `shards`."""
    bootstrap(project)
    return project


@pytest.fixture(scope="module")
def _standing(servers: PostgresServers) -> Iterator[dict[str, str]]:
    """Shards with the schema `shards`, for tests that leave nothing there."""
    with own_urls(servers, "atomic", SHARDS, spread=True) as urls:
        cluster = create_cluster(
            urls, name="app", keyspaces={"default": Keyspace(HashPartitioner(buckets=64))}
        )
        cluster.bootstrap()
        cluster.dispose()
        yield urls


@pytest.fixture
def standing(tmp_path: Path, servers: PostgresServers, _standing: dict[str, str]) -> Project:
    """A project on shards that stay as they are."""
    for number in range(servers.count):
        servers.start(number)
    project = Project(tmp_path, _standing)
    project.write()
    return project
