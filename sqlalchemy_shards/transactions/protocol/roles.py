"""Who takes part in a commit, and who decides it.

- A shard that wrote takes part. The decision shard is the one that cannot be prepared, else the one
  with the smallest name: the same whoever asks, so that concurrent transactions lock in one order.
- Nobody is asked what is known already; and one participant is not asked at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy_shards.errors import TransactionAborted

if TYPE_CHECKING:
    from collections.abc import Sequence


class Standing(NamedTuple):
    """What is known of an enlisted shard before the rounds begin.

    :param wrote: None where only the server knows.
    :param is_unread: something ran of which it is not known whether it can be prepared.
    :param xid: of its transaction, where it was asked for: in round 0, or beside an earlier
        statement.
    """

    shard: str
    wrote: bool | None
    cannot_prepare: bool = False
    xid: int | None = None
    is_unread: bool = False


class Question(NamedTuple):
    """Round 0: ask a shard for its transaction's xid; ``assign`` one where it has none."""

    shard: str
    assign: bool


@dataclass(frozen=True, slots=True)
class CommitPlan:
    """Who does what.

    :param readers: enlisted shards that wrote nothing: committed after the decision, since they
        may hold locks.
    :param single: the only participant, if there is one only: a plain COMMIT.
    :param decision: the shard whose COMMIT is the decision, if there are several participants.
    :param decision_xid: xid of its transaction.
    :param prepared: the other participants.
    """

    readers: tuple[str, ...]
    single: str | None = None
    decision: str | None = None
    decision_xid: int = 0
    prepared: tuple[str, ...] = ()

    @property
    def participants(self) -> tuple[str, ...]:
        """All shards that wrote, the decision shard first."""
        deciding = self.decision if self.decision is not None else self.single
        return self.prepared if deciding is None else (deciding, *self.prepared)


def questions(standings: Sequence[Standing], *, with_markers: bool = False) -> tuple[Question, ...]:
    """Return what must be asked before it can be told who takes part and who decides.

    Every shard of which it is not known whether it wrote; and, where there will be several
    participants, those known to have written that may become the decision shard, or may turn out
    not to be fit for being prepared.

    :param with_markers: each participant's xid is needed, for the markers of the others. It is
        asked for in the round that is needed anyway.

    >>> questions([Standing("a", True), Standing("b", None), Standing("c", True)])
    (Question(shard='a', assign=True), Question(shard='b', assign=False))
    >>> questions([Standing("a", True), Standing("b", True, is_unread=True), Standing("c", True)])
    (Question(shard='a', assign=True), Question(shard='b', assign=False))
    >>> questions([Standing("a", True, is_unread=True), Standing("b", False)])
    ()
    >>> questions([Standing("a", True, xid=7), Standing("b", True), Standing("c", False)])
    ()
    """
    known = [s for s in standings if s.wrote]
    unknown = [s for s in standings if s.wrote is None]
    if len(known) + len(unknown) < 2:
        return tuple(Question(s.shard, assign=False) for s in unknown)
    first = min(known, key=_decides_before, default=None)
    return tuple(
        Question(s.shard, assign=s is first)
        for s in standings
        if s.wrote is None
        or (s.wrote and s.is_unread)
        or (s.xid is None and (s is first or (s.wrote and with_markers)))
    )


def plan(standings: Sequence[Standing]) -> CommitPlan:
    """Return who does what, once the questions are answered.

    >>> plan([Standing("b", True, xid=7), Standing("a", True), Standing("c", False)]).single
    Traceback (most recent call last):
        ...
    ValueError: the xid of 'a' was not asked for
    >>> plan([Standing("b", True), Standing("a", True, xid=7), Standing("c", False)])
    CommitPlan(readers=('c',), single=None, decision='a', decision_xid=7, prepared=('b',))

    :raises TransactionAborted: two participants cannot be prepared. Nothing was done so far.
    """
    readers = tuple([s.shard for s in standings if not s.wrote])
    participants = sorted([s for s in standings if s.wrote], key=_decides_before)
    if len(participants) < 2:
        return CommitPlan(readers, single=participants[0].shard if participants else None)
    decision, *prepared = participants
    stubborn = [s.shard for s in participants if s.cannot_prepare]
    if len(stubborn) > 1:
        raise TransactionAborted(
            f"the shards {', '.join(map(repr, stubborn))} cannot be prepared, and only one such"
            " shard can take part in a distributed transaction; it was rolled back everywhere",
            "use temporary objects, NOTIFY and cursors WITH HOLD on one shard only, or in a"
            " transaction of their own",
        )
    if decision.xid is None:
        raise ValueError(f"the xid of {decision.shard!r} was not asked for")
    return CommitPlan(
        readers,
        decision=decision.shard,
        decision_xid=decision.xid,
        prepared=tuple(s.shard for s in prepared),
    )


def _decides_before(standing: Standing) -> tuple[bool, str]:
    return (not standing.cannot_prepare, standing.shard)
