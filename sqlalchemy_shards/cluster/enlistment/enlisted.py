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

_WRITING_TAGS: Final = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY")


class EnlistedShard:
    """One enlisted shard.

    :param characteristics: attributes that the cluster connection was given; they are set here and
        taken back at release, since the connection belongs to the shard's own pool.
    """

    __slots__ = (
        "_saved",
        "cannot_prepare",
        "driver",
        "is_unread",
        "name",
        "pooled",
        "wrote",
        "xid",
    )

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
        self.is_unread = False
        self.xid: int | None = None
        """Of its transaction, where it was asked for."""
        self._saved: dict[str, Any] = {}
        for name, value in characteristics.items():
            before = getattr(self.driver, name)
            if before != value:
                self._saved[name] = before
                setattr(self.driver, name, value)

    @property
    def is_lost(self) -> bool:
        """Whether the connection to the server is gone."""
        return self.driver.closed

    @property
    def is_failed(self) -> bool:
        """Whether PostgreSQL refuses statements until the transaction is rolled back."""
        return self.driver.pgconn.transaction_status == TransactionStatus.INERROR

    def note_writes(self, writes: bool | None) -> None:
        """Remember what a statement did: True and None outlast False."""
        if writes:
            self.wrote = True
        elif writes is None and not self.wrote:
            self.wrote = None

    def note(self, cursor: Any, *, is_raw: bool) -> None:
        """Remember what a statement did that may have written.

        :param cursor: the driver's, which has run it.
        :param is_raw: nobody knows what else it did.
        """
        if not is_raw and (cursor.statusmessage or "").startswith(_WRITING_TAGS):
            self.note_writes(True if cursor.rowcount > 0 else None)
        else:
            self.note_unread()

    def note_unread(self) -> None:
        """Remember that something ran of which it is not known what it did.

        It may have used temporary objects, so that the shard cannot be prepared: only asking the
        server tells, also where it is known that the transaction wrote.
        """
        self.is_unread = True
        self.note_writes(None)

    def release(self, *, is_kept: bool = True) -> None:
        """Give the connection back to its shard's pool, as it was taken.

        :param is_kept: the pool has a use for it; else it is closed.
        """
        if self.is_lost or not is_kept:
            self.pooled.invalidate()
            return
        if self.driver.pgconn.transaction_status != TransactionStatus.IDLE:
            self.driver.rollback()
        for name, value in self._saved.items():
            setattr(self.driver, name, value)
        self.pooled.close()


def shard_of(cursor: Any, enlisted: Mapping[str, EnlistedShard]) -> str | None:
    """The shard whose connection a driver's cursor is of; None: it is of none of these."""
    driver = getattr(cursor, "connection", None)
    return next((name for name, each in enlisted.items() if each.driver is driver), None)
