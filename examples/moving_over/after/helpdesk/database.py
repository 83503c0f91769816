"""The database of the help desk, and the factory of its sessions."""

from __future__ import annotations

import os

from helpdesk.models import Base
from sqlalchemy.orm import sessionmaker

from sqlalchemy_shards import Cluster, ShardedSession

cluster = Cluster.from_file(os.environ["SHARDS_FILE"])
engine = cluster.engine
Session = sessionmaker(class_=ShardedSession, cluster=cluster)


def create_tables() -> None:
    cluster.create_all(Base.metadata)
