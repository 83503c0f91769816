"""The cluster, and SQLModel's session on it."""

from pathlib import Path

import sqlmodel

from sqlalchemy_shards import Cluster, ShardedSession

from . import models  # noqa: F401  (fills SQLModel.metadata)

SHARDS_FILE = Path(__file__).parent / "shards.toml"


class Session(ShardedSession, sqlmodel.Session):
    """SQLModel's session, with `exec()`, that also knows where its objects live."""


def create_cluster() -> Cluster:
    return Cluster.from_file(SHARDS_FILE)


def create_db_and_tables(cluster: Cluster) -> None:
    cluster.create_all(sqlmodel.SQLModel.metadata)
