"""Markers: what a distributed transaction leaves on each participant, for those who read.

A participant's marker for another one, its *peer*, is a row (peer, xid of the transaction's part
there, gid). It is written by the participant's own part, so a snapshot shows the marker if, and
only if, it shows the part; and it tells how to look for the transaction in the peer's snapshot.

Decision 14 has the proof of what readers conclude.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from sqlalchemy_shards.transactions.gid import TransactionGid


class Marker(NamedTuple):
    """The part of the same transaction on another participant: its shard, and its xid there."""

    peer: UUID
    peer_xid: int


def markers_of(xids: Mapping[UUID, int]) -> Mapping[UUID, tuple[Marker, ...]]:
    """Return the markers that each participant leaves: one for each other participant.

    :param xids: shard -> xid of the transaction there.
    """
    return {
        own: tuple(Marker(peer, xid) for peer, xid in xids.items() if peer != own) for own in xids
    }


def insert_text(markers: Sequence[Marker], gid: TransactionGid) -> bytes:
    """Return an INSERT without parameters, so that another command can follow in one message."""
    rows = ", ".join(f"('{marker.peer}', '{marker.peer_xid}', '{gid}')" for marker in markers)
    return f"INSERT INTO shards.markers (peer, peer_xid, gid) VALUES {rows}".encode("ascii")
