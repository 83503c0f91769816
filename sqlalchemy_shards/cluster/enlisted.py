"""A shard's connection while it takes part in the cluster connection's transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg
    from sqlalchemy import PoolProxiedConnection

    from sqlalchemy_shards.connections.shard import Shard

CHARACTERISTICS: Final = ("autocommit", "isolation_level", "read_only", "deferrable")
"""Attributes of a psycopg connection that the cluster connection hands on."""


class EnlistedShard:
    """One enlisted shard.

    :param characteristics: attributes that the cluster connection was given; they are set here and
        taken back at release, since the connection belongs to the shard's own pool.
    """

    __slots__ = ("_saved", "cannot_prepare", "driver", "name", "pooled", "wrote")

    def __init__(
        self,
        shard: Shard,
        pooled: PoolProxiedConnection,
        characteristics: Mapping[str, Any],
    ) -> None:
        self.name = shard.name
        self.pooled = pooled
        self.driver: psycopg.Connection[Any] = pooled.driver_connection  # type: ignore[assignment]
        self.wrote: bool | None = False
        self.cannot_prepare = False
        self._saved: dict[str, Any] = {}
        for name, value in characteristics.items():
            before = getattr(self.driver, name)
            if before != value:
                self._saved[name] = before
                setattr(self.driver, name, value)

    @property
    def is_lost(self) -> bool:
        """Whether the connection to the server is gone."""
        return self.driver.closed or self.driver.broken

    @property
    def is_failed(self) -> bool:
        """Whether PostgreSQL refuses statements until the transaction is rolled back."""
        return self.driver.info.transaction_status == TransactionStatus.INERROR

    def note_writes(self, writes: bool | None) -> None:
        """Remember what a statement did: True and None outlast False."""
        if writes:
            self.wrote = True
        elif writes is None and not self.wrote:
            self.wrote = None

    def release(self, *, is_kept: bool = True) -> None:
        """Give the connection back to its shard's pool, as it was taken.

        :param is_kept: the pool has a use for it; else it is closed.
        """
        if self.is_lost or not is_kept:
            self.pooled.invalidate()
            return
        if self.driver.info.transaction_status != TransactionStatus.IDLE:
            self.driver.rollback()
        for name, value in self._saved.items():
            setattr(self.driver, name, value)
        self.pooled.close()
