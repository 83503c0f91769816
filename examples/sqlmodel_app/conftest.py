from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from sqlmodel import SQLModel

from . import tutorial
from .database import create_cluster, create_db_and_tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy_shards import Cluster


@pytest.fixture(scope="session")
def _cluster(shard_urls: Mapping[str, str]) -> Iterator[Cluster]:
    for number, url in enumerate(shard_urls.values()):
        os.environ[f"SHARD_{number}"] = url
    cluster = create_cluster()
    create_db_and_tables(cluster)
    yield cluster
    cluster.dispose()


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """Seven heroes and two teams on four shards."""
    tutorial.create_teams(_cluster)
    tutorial.create_heroes(_cluster)
    yield _cluster
    with _cluster.engine.begin() as connection:
        for table in reversed(SQLModel.metadata.sorted_tables):
            connection.execute(table.delete(), execution_options={"shard": "*"})
