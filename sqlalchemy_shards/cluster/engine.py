"""The SQLAlchemy engine of a cluster, ordinary or of asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .cluster import Cluster


def make_engine(cluster: Cluster) -> Engine:
    """An engine for the whole cluster; of asyncio's, the one below it."""
    url = URL.create("postgresql+shards", host=cluster.name)
    if cluster.is_async:
        return create_async_engine(url, cluster=cluster).sync_engine
    return create_engine(url, cluster=cluster)
