"""Which rows of `shards.decisions` may be removed.

- A commit row is proof as long as a part of its transaction may be prepared somewhere. It may go
  when its coordinator heard every participant confirm, or when it is older than the retention and
  the verified primaries of all its participants, listed *after* the row was seen, hold no part of
  it: all parts were prepared before the row was committed, so what is not listed is finished.
- An abort row keeps a coordinator's row from being committed. When the transaction with that row is
  over, "no row" says the same, and so it may go.
- Removing a row twice, or one that comes back with a crash, changes no answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy_shards.transactions.protocol.settling import Outcome

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A row of `shards.decisions`, as its shard showed it.

    :param needs: the participants of a commit row.
    :param is_expired: it is older than the retention.
    :param is_over: the deciding transaction is over: its xid is below the snapshot's xmin.
    """

    gid: str
    outcome: Outcome
    needs: frozenset[UUID]
    is_expired: bool
    is_over: bool


def may_go(row: DecisionRow, *, looked_at: AbstractSet[UUID], held: AbstractSet[str]) -> bool:
    """Return whether a row may be removed.

    :param looked_at: shards whose verified primaries were listed after the row was seen.
    :param held: transactions of which a part was listed there.
    """
    if row.outcome is Outcome.ABORTED:
        return row.is_over
    return row.is_expired and row.gid not in held and row.needs <= looked_at
