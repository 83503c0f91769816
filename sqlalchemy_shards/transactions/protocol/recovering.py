"""What recovery does with a prepared transaction that a server lists.

- Only what is of our cluster, and prepared where its name says, is touched; of the rest that is
  ours it is told, and what is foreign is not even looked at.
- It is finished only as the decision shard has said; unknown stays prepared.
- "Not there" is never a success of one's own: somebody else finished it, or it was never prepared.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from sqlalchemy_shards.transactions.gid import ParticipantGid, cluster_of, parse
from sqlalchemy_shards.transactions.protocol.replies import (
    COMMIT_PREPARED,
    ROLLBACK_PREPARED,
    Reply,
)
from sqlalchemy_shards.transactions.protocol.settling import Outcome

if TYPE_CHECKING:
    from datetime import timedelta
    from uuid import UUID


class Listed(enum.Enum):
    """What a prepared transaction is that recovery leaves alone."""

    FOREIGN = "not of our cluster"
    NOT_UNDERSTOOD = "of our cluster, but in a later format, or not of the shard that holds it"


def recognise(text: str, *, cluster: UUID, shard: UUID) -> ParticipantGid | Listed:
    """Return the part that a prepared transaction is.

    :param cluster: of the database that lists it.
    :param shard: likewise.
    """
    if cluster_of(text) != cluster:
        return Listed.FOREIGN
    gid = parse(text)
    return Listed.NOT_UNDERSTOOD if gid is None or gid.participant != shard else gid


def is_due(age: timedelta, older_than: timedelta | None) -> bool:
    """Return whether a part is to be settled now, or spared as a young one."""
    return older_than is None or age >= older_than


def read_listing(*, is_verified: bool, is_listed: bool) -> Reply | None:
    """Return what a database's list of prepared transactions says of a part; None: finish it.

    :param is_verified: whether it is the primary of the shard that the part's name gives.
    """
    if not is_verified:
        return Reply.LOST
    return None if is_listed else Reply.NOT_THERE


def finishing_verb(outcome: Outcome) -> str | None:
    """Return the command that finishes a part, or None: it stays prepared."""
    if outcome is Outcome.COMMITTED:
        return COMMIT_PREPARED
    return ROLLBACK_PREPARED if outcome is Outcome.ABORTED else None
