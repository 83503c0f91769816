"""The protocol of an atomic commit, as pure decisions: who takes part, who decides, in which steps.

Invariants, which the edge (`commit`, `recovery`) keeps:

1. A transaction with two or more participants is committed if, and only if, its decision row is
   committed on the decision shard. The row is inserted by the decision shard's own part of the
   transaction, so the two cannot come apart.
2. That COMMIT is sent only after every other participant has answered PREPARE TRANSACTION with that
   very tag; so from then on every part can be committed.
3. COMMIT PREPARED is sent only by one who knows that the decision row was committed. ROLLBACK
   PREPARED is sent only by one who knows that it never will be: the coordinator, as long as it has
   not sent that COMMIT, and whoever `settle` has told so.
4. The decision row is removed only when every participant has confirmed that it committed.
5. Whoever is not told what happened asks through `settle`, and nobody guesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy_shards.errors import TransactionAborted

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of an enlisted shard before the rounds begin.

    :param wrote: None where only the server knows.
    :param xid: of its transaction, where it was asked for.
    """

    shard: str
    wrote: bool | None
    cannot_prepare: bool = False
    xid: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
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


def questions(standings: Sequence[Standing]) -> tuple[Question, ...]:
    """Return what must be asked before it can be told who takes part and who decides.

    Every shard of which it is not known whether it wrote; and, where there will be several
    participants, those known to have written that may become the decision shard.

    >>> questions([Standing("a", True), Standing("b", None), Standing("c", True)])
    (Question(shard='a', assign=True), Question(shard='b', assign=False))
    >>> questions([Standing("a", True), Standing("b", False)])
    ()
    """
    unknown = {s.shard for s in standings if s.wrote is None}
    known = sorted((s for s in standings if s.wrote), key=_decides_before)
    asked = {s.shard for s in known[:1]} if len(known) + len(unknown) > 1 else set()
    return tuple(
        Question(s.shard, assign=s.shard in asked)
        for s in standings
        if s.shard in asked or s.shard in unknown
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
    readers = tuple(s.shard for s in standings if not s.wrote)
    participants = sorted((s for s in standings if s.wrote), key=_decides_before)
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
