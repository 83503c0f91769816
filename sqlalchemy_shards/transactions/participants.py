"""What committing needs to know of an enlisted shard, and its connection during one commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from psycopg.pq import TransactionStatus

from sqlalchemy_shards.transactions.protocol.replies import Link

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from sqlalchemy_shards.transactions.gid import ParticipantGid


class Enlisted(Protocol):
    """An enlisted shard: a connection that takes part in the current transaction."""

    @property
    def name(self) -> str:
        """Name of the shard."""

    @property
    def driver(self) -> psycopg.Connection[Any]:
        """The driver's connection, with the transaction open (or idle, if nothing ran)."""

    @property
    def wrote(self) -> bool | None:
        """True: it is known to have written; False: known not to; None: the server is asked."""

    @property
    def cannot_prepare(self) -> bool:
        """True: it is known that the server would refuse to prepare it (temporary objects, ...)."""

    @property
    def xid(self) -> int | None:
        """Of the open transaction, where it was asked for already."""

    @property
    def is_unread(self) -> bool:
        """True: something ran of which that is not known; the server is asked.

        It may have ended a transaction and begun another one, so that ``xid`` is asked for anew.
        """


class Part:
    """One enlisted shard during one commit."""

    __slots__ = ("autocommit", "driver", "gid", "name")

    def __init__(self, enlisted: Enlisted) -> None:
        self.name = enlisted.name
        self.driver = enlisted.driver
        self.autocommit = enlisted.driver.autocommit
        self.gid: ParticipantGid | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the connection is of no use any more."""
        return self.driver.closed

    @property
    def link(self) -> Link:
        """State of the connection, as the client knows it."""
        return _LINKS[self.driver.pgconn.transaction_status]

    def leave_usable(self) -> None:
        """Leave the connection idle, with the autocommit mode it had, or closed."""
        if self.link is Link.IDLE:
            if self.driver.autocommit != self.autocommit:
                self.driver.autocommit = self.autocommit
        else:
            self.driver.close()


class Links(Mapping[str, Link]):
    """The connections' states as they are at the moment of looking."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts

    def __getitem__(self, shard: str) -> Link:
        return self._parts[shard].link

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


_LINKS: Mapping[int, Link] = {
    TransactionStatus.IDLE: Link.IDLE,
    TransactionStatus.ACTIVE: Link.BUSY,
    TransactionStatus.INTRANS: Link.OPEN,
    TransactionStatus.INERROR: Link.FAILED,
    TransactionStatus.UNKNOWN: Link.LOST,
}
