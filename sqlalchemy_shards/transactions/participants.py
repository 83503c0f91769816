"""What committing needs to know of an enlisted shard, and what became of its part.

A `Part` is the edge's record of one enlisted shard during one commit. Its phase only moves
forward, and is set in the branch that did the work, so that it is right also where the outcomes of
the other branches were lost to an interrupt.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Protocol

from psycopg.pq import ConnStatus, TransactionStatus

if TYPE_CHECKING:
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


class Phase(enum.Enum):
    """How far the part of one shard has come."""

    OPEN = "its transaction is open, or was ended without a trace"
    PREPARING = "PREPARE TRANSACTION was sent and not answered: it may be prepared, or become so"
    PREPARED = "it is prepared, and waits for the decision"
    FINISHED = "it was committed or rolled back, and the server said so"


class Part:
    """One enlisted shard during one commit."""

    __slots__ = ("autocommit", "driver", "gid", "name", "phase")

    def __init__(self, enlisted: Enlisted) -> None:
        self.name = enlisted.name
        self.driver = enlisted.driver
        self.autocommit = enlisted.driver.autocommit
        self.phase = Phase.OPEN
        self.gid: ParticipantGid | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the connection is of no use any more."""
        return self.driver.closed or self.driver.pgconn.status == ConnStatus.BAD

    @property
    def status(self) -> TransactionStatus:
        """State of the connection, as the client knows it."""
        return TransactionStatus(self.driver.pgconn.transaction_status)

    def leave_usable(self) -> None:
        """Leave the connection idle, with the autocommit mode it had, or closed."""
        if not self.is_lost and self.status == TransactionStatus.IDLE:
            if self.driver.autocommit != self.autocommit:
                self.driver.autocommit = self.autocommit
        else:
            self.driver.close()
