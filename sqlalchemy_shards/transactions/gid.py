"""Names of distributed transactions: what a prepared transaction tells about itself.

Format 1, ASCII, at most 161 bytes (PostgreSQL allows 199)::

    shards/1/<cluster>/<transaction>/<decision shard>/<decision xid>                the transaction
    shards/1/<cluster>/<transaction>/<decision shard>/<decision xid>/<participant>  a prepared part

UUIDs are 32 lower-case hexadecimal digits, the xid is the decimal 64-bit one of
`pg_current_xact_id()`. Every format begins `shards/<format>/<cluster>/`, so that each release can
tell that a transaction of a later one is ours though it cannot read the rest.

- Prepared parts have names of their own, so that shards may be databases of one server, whose
  names of prepared transactions are shared.
- `parse(str(gid)) == gid`, and whatever is not exactly in this form is foreign: None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

FORMAT: Final = 1
PREFIX: Final = "shards/"
LENGTH_BYTES_MAX: Final = 199

_XID_LIMIT = 2**64
_HEX = "([0-9a-f]{32})"
_TRANSACTION = re.compile(rf"shards/1/{_HEX}/{_HEX}/{_HEX}/([1-9][0-9]{{0,19}})")
_PARTICIPANT = re.compile(rf"({_TRANSACTION.pattern})/{_HEX}")
_ANY_FORMAT = re.compile(rf"shards/[1-9][0-9]*/{_HEX}/.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TransactionGid:
    """A distributed transaction; its string is the `gid` of its row in `shards.decisions`."""

    cluster: UUID
    transaction: UUID
    decision_shard: UUID
    decision_xid: int
    _text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text = (
            f"shards/1/{self.cluster.hex}/{self.transaction.hex}"
            f"/{self.decision_shard.hex}/{self.decision_xid}"
        )
        object.__setattr__(self, "_text", text)

    def __str__(self) -> str:
        return self._text

    def part(self, participant: UUID) -> ParticipantGid:
        """Return the name under which this shard's part is prepared."""
        return ParticipantGid(self, participant)


@dataclass(frozen=True, slots=True)
class ParticipantGid:
    """The part of a distributed transaction on one shard; its string is the prepared name."""

    of: TransactionGid
    participant: UUID

    def __str__(self) -> str:
        return f"{self.of}/{self.participant.hex}"


def parse_transaction(text: str) -> TransactionGid | None:
    """Return the transaction that ``text`` names, or None where it is not in our form."""
    match = _TRANSACTION.fullmatch(text)
    return None if match is None else _transaction(*match.groups())


def parse(text: str) -> ParticipantGid | None:
    """Return the prepared part that ``text`` names, or None where it is not in our form."""
    match = _PARTICIPANT.fullmatch(text)
    if match is None:
        return None
    _, cluster, transaction, decision_shard, xid, participant = match.groups()
    of = _transaction(cluster, transaction, decision_shard, xid)
    return None if of is None else ParticipantGid(of, UUID(participant))


def cluster_of(text: str) -> UUID | None:
    """Return the cluster of a gid of any format, or None where it is not ours at all."""
    match = _ANY_FORMAT.fullmatch(text)
    return None if match is None else UUID(match.group(1))


def _transaction(
    cluster: str, transaction: str, decision_shard: str, xid: str
) -> TransactionGid | None:
    if int(xid) >= _XID_LIMIT:
        return None
    return TransactionGid(UUID(cluster), UUID(transaction), UUID(decision_shard), int(xid))
