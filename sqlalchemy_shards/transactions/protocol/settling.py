"""What became of a transaction, concluded from what its decision shard showed.

- Only the verified primary of the decision shard counts: "no row" in another database, a restored
  copy or a standby means nothing.
- ABORTED is for ever: either the deciding transaction is over without a row, or an abort row
  stands under the gid, so that the coordinator's row can no longer be committed.
- Reading alone is not asking: the deciding COMMIT may still lie in the socket of a stopped server
  process. So where that transaction may live, the abort row is inserted before "aborted" is said.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Outcome(enum.Enum):
    """What became of a distributed transaction."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


class AbortRow(enum.Enum):
    """What came of inserting an abort row."""

    INSERTED = "it stands, and is committed"
    IN_THE_WAY = "another row is there, or was"
    BUSY = "a row is there that is not committed yet: the coordinator is just deciding"


@dataclass(frozen=True, slots=True)
class Sight:
    """What one statement, through one snapshot, saw of a transaction on its decision shard.

    :param outcome: the outcome in the row, or None where there is no row.
    :param is_over: whether the deciding transaction is over: its xid is below the snapshot's xmin.
    :param is_verified: whether this is the primary of the decision shard.
    """

    outcome: Outcome | None
    is_over: bool
    is_verified: bool


def conclude(sight: Sight) -> Outcome | None:
    """Return what the first look tells; None: an abort row must be inserted to find out.

    >>> conclude(Sight(None, is_over=True, is_verified=True))
    <Outcome.ABORTED: 'aborted'>
    >>> conclude(Sight(None, is_over=False, is_verified=True)) is None
    True
    """
    if not sight.is_verified:
        return Outcome.UNKNOWN
    if sight.outcome is not None:
        return sight.outcome
    return Outcome.ABORTED if sight.is_over else None


def conclude_insert(row: AbortRow) -> Outcome | None:
    """Return what inserting the abort row tells; None: look again at what stood in its way."""
    if row is AbortRow.INSERTED:
        return Outcome.ABORTED
    return Outcome.UNKNOWN if row is AbortRow.BUSY else None


def conclude_again(sight: Sight) -> Outcome:
    """Return what the second look tells.

    A row stood in our way; one that is gone again cannot tell any more which one it was.
    """
    if not sight.is_verified or sight.outcome is None:
        return Outcome.UNKNOWN
    return sight.outcome
