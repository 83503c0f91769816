"""A cluster for asyncio: the same, where whatever does I/O is a coroutine.

Beneath is a `Cluster` whose shards' connections wait on the event loop. It is used by one event
loop at a time, like SQLAlchemy's own asyncio engines: ``await cluster.engine.dispose()`` comes
before the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from sqlalchemy_shards.errors import ConfigurationError

from .cluster import Cluster, create_cluster
from .readiness.check import CHECK_SECONDS

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from datetime import timedelta

    from sqlalchemy import URL, MetaData

    from sqlalchemy_shards.connections.shard import Shard
    from sqlalchemy_shards.events import Hooks
    from sqlalchemy_shards.topology.shard_map import ShardMap
    from sqlalchemy_shards.transactions.reports import (
        InDoubtTransaction,
        RecoveryReport,
        TransactionGauges,
    )

    from .explain.explanation import Explanation
    from .readiness.report import Report
    from .recovery.async_worker import AsyncRecoveryWorker


@dataclass(frozen=True)
class AsyncShard:
    """One shard of an `AsyncCluster`."""

    sync_shard: Shard

    @property
    def name(self) -> str:
        """Its name in the cluster."""
        return self.sync_shard.name

    @property
    def masked_url(self) -> str:
        """The engine's URL without its passwords."""
        return self.sync_shard.masked_url

    @cached_property
    def engine(self) -> AsyncEngine:
        """An ordinary engine for this shard alone."""
        return AsyncEngine(self.sync_shard.engine)


class AsyncCluster:
    """Many PostgreSQL shards behind one asyncio engine of SQLAlchemy.

    :param sync_cluster: a cluster that was created with ``is_async=True``; `create_async_cluster`
        does both.
    """

    def __init__(self, sync_cluster: Cluster) -> None:
        if not isinstance(sync_cluster, Cluster) or not sync_cluster.is_async:
            raise ConfigurationError(
                f"an AsyncCluster cannot be made of this {type(sync_cluster).__name__}",
                "use create_async_cluster() with the shards' URLs",
            )
        self.sync_cluster = sync_cluster
        self.shards = {name: AsyncShard(shard) for name, shard in sync_cluster.shards.items()}
        self.workers: set[AsyncRecoveryWorker] = set()

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> AsyncCluster:
        """Create a cluster from a TOML file, as `Cluster.from_file` does."""
        return cls(Cluster.from_file(path, is_async=True))

    @cached_property
    def engine(self) -> AsyncEngine:
        """An ordinary asyncio engine of SQLAlchemy for the whole cluster."""
        return AsyncEngine(self.sync_cluster.engine)

    @property
    def name(self) -> str:
        """Shown in errors and events."""
        return self.sync_cluster.name

    @property
    def global_shard(self) -> str:
        """Where global tables live."""
        return self.sync_cluster.global_shard

    @property
    def hooks(self) -> Hooks:
        """Who is told what happens; called in the task that it happens in."""
        return self.sync_cluster.hooks

    @property
    def shard_map(self) -> ShardMap:
        """Which shard holds what."""
        return self.sync_cluster.shard_map

    def shard_for(self, model: Any, key: Any) -> str:
        """Name of the shard that holds the rows of ``key``: `Cluster.shard_for`."""
        return self.sync_cluster.shard_for(model, key)

    def bucket_for(self, model: Any, key: Any) -> int:
        """Number of the bucket of ``key``: `Cluster.bucket_for`."""
        return self.sync_cluster.bucket_for(model, key)

    def transaction_gauges(self) -> TransactionGauges:
        """What the recoveries of this process found and did: `Cluster.transaction_gauges`."""
        return self.sync_cluster.transaction_gauges()

    async def explain(
        self,
        statement: Any,
        parameters: Mapping[str, Any] | None = None,
        *,
        analyze: bool = False,
        **options: Any,
    ) -> Explanation:
        """Tell where a statement would run and how its result would be made: `Cluster.explain`."""
        return await greenlet_spawn(
            self.sync_cluster.explain, statement, parameters, analyze=analyze, **options
        )

    async def bootstrap(self) -> None:
        """Create or upgrade the schema ``shards`` on every shard: `Cluster.bootstrap`."""
        await greenlet_spawn(self.sync_cluster.bootstrap)

    async def create_all(self, metadata: MetaData) -> None:
        """Create the tables that are missing, each where it belongs: `Cluster.create_all`."""
        await greenlet_spawn(self.sync_cluster.create_all, metadata)

    async def drop_all(self, metadata: MetaData) -> None:
        """Drop the tables where they are: `Cluster.drop_all`."""
        await greenlet_spawn(self.sync_cluster.drop_all, metadata)

    async def check(
        self, metadata: MetaData | None = None, *, deadline_seconds: float | None = CHECK_SECONDS
    ) -> Report:
        """Look at every shard and report what is not fit: `Cluster.check`."""
        return await greenlet_spawn(
            self.sync_cluster.check, metadata, deadline_seconds=deadline_seconds
        )

    async def recover(
        self, older_than: timedelta | None = None, *, gid: str | None = None
    ) -> RecoveryReport:
        """Finish what crashes left prepared: `Cluster.recover`."""
        return await greenlet_spawn(self.sync_cluster.recover, older_than, gid=gid)

    async def in_doubt(self) -> list[InDoubtTransaction]:
        """List the distributed transactions that are prepared on some shard."""
        return await greenlet_spawn(self.sync_cluster.in_doubt)

    async def outcome(self, gid: str) -> str:
        """Settle a distributed transaction: ``"committed"``, ``"aborted"`` or ``"unknown"``."""
        return await greenlet_spawn(self.sync_cluster.outcome, gid)

    async def dispose(self) -> None:
        """Stop recovery workers and close all pools. The cluster cannot be used afterwards."""
        for worker in tuple(self.workers):
            await worker.stop()
        await greenlet_spawn(self.sync_cluster.dispose)

    def __repr__(self) -> str:
        return f"<AsyncCluster {self.name!r}: {', '.join(self.shards)}>"


def create_async_cluster(shards: Mapping[str, str | URL], **arguments: Any) -> AsyncCluster:
    """Create a cluster for asyncio from URLs, as ``create_async_engine()`` creates an engine.

    :param shards: name -> URL (``postgresql+psycopg://``), in the cluster's order.
    :param arguments: those of `create_cluster`.
    :raises ConfigurationError: with every fault that was found.
    """
    return AsyncCluster(create_cluster(shards, is_async=True, **arguments))
