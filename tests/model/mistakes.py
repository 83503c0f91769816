"""Mistakes that a protocol like this one can have, each as a change of one rule.

They are those that were made in published protocols, or nearly made here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.transactions.protocol.cleaning import DecisionRow, may_go
from sqlalchemy_shards.transactions.protocol.coordinator import Command, Commit, Phase, Stage
from sqlalchemy_shards.transactions.protocol.recovering import read_listing
from sqlalchemy_shards.transactions.protocol.replies import Link, Reply
from sqlalchemy_shards.transactions.protocol.settling import Outcome, Sight, conclude
from tests.model.bounds import Bounds
from tests.model.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class WithoutAnXid(Commit):
    """PREPARE is sent before the decision shard's transaction has an xid."""

    def begin(self, links: Mapping[str, Link]) -> Sequence[Command]:
        for shard, standing in self._standings.items():
            self._standings[shard] = standing._replace(xid=0)
        self.stage = Stage.ASKING
        return self._allot()


class ConfirmingWhatIsNotThere(Commit):
    """A PREPARE that was not answered and is not there counts as rolled back."""

    def _phase_after(self, command: Command, reply: Reply) -> Phase:
        if reply is Reply.NOT_THERE:
            return Phase.FINISHED
        return super()._phase_after(command, reply)


class DecidingWithoutAll(Commit):
    """The decision does not wait for the last PREPARE."""

    def _next_round(self, over: Any) -> Sequence[Command]:
        if self.stage is Stage.PREPARING:
            self._unanswered.clear()
        return super()._next_round(over)


class UndoingAfterTheDecision(Commit):
    """A lost reply to the decision is taken for an abort."""

    def _decided(self, links: Mapping[str, Link]) -> Sequence[Command]:
        if self.outcome is None:
            self.outcome = Outcome.ABORTED
        return super()._decided(links)


class BelievingNoTrace(Commit):
    """No trace means aborted, however long the coordinator slept before it asked."""

    def _end(self) -> Sequence[Command]:
        self.is_hearsay = False
        return super()._end()


class ForgettingTooEarly(Commit):
    """The decision counts as confirmed by all when it is made."""

    @property
    def left(self) -> list[str]:
        return [] if self.outcome is Outcome.COMMITTED else super().left


def reading_only(sight: Sight) -> Outcome | None:
    """No row means aborted, whether or not the transaction may still be decided."""
    if not sight.is_verified:
        return Outcome.UNKNOWN
    return sight.outcome or Outcome.ABORTED


def anywhere(sight: Sight) -> Outcome | None:
    """Any database may be asked."""
    return conclude(replace(sight, is_verified=True))


def listed_anywhere(*, is_verified: bool, is_listed: bool) -> Reply | None:
    """Any database may say that it is not there."""
    return read_listing(is_verified=True, is_listed=is_listed)


def any_tag(verb: str, tag: str | None) -> Reply:
    """A command that raised nothing was carried out."""
    return Reply.DONE


def abort_rows_at_once(row: DecisionRow, **known: Any) -> bool:
    """An abort row is removed as soon as it is seen."""
    return row.outcome is Outcome.ABORTED or may_go(row, **known)


def commit_rows_when_old(row: DecisionRow, **known: Any) -> bool:
    """A commit row is removed when it is old, whatever is prepared."""
    return row.is_expired if row.outcome is Outcome.COMMITTED else may_go(row, **known)


def commit_rows_unseen(row: DecisionRow, *, looked_at: Any, held: Any) -> bool:
    """A participant that did not answer counts as one that holds nothing."""
    return may_go(replace(row, needs=frozenset()), looked_at=looked_at, held=held)


MISTAKES: dict[str, tuple[Rules, Bounds]] = {
    "no xid is assigned before the first prepare": (
        Rules(commit=WithoutAnXid),
        Bounds(participants=2, recoveries=1),
    ),
    "the row is read instead of settling": (
        Rules(conclude=reading_only),
        Bounds(participants=2, recoveries=1),
    ),
    "the decision is not flushed": (
        Rules(flushes_decision=False),
        Bounds(participants=2, crashes=1),
    ),
    "an abort row is removed too early": (
        Rules(may_go=abort_rows_at_once),
        Bounds(participants=2, recoveries=1, cleaners=1),
    ),
    "a commit row is removed when it is old": (
        Rules(may_go=commit_rows_when_old),
        Bounds(participants=2, cleaners=1),
    ),
    "a commit row is removed though a participant was not asked": (
        Rules(may_go=commit_rows_unseen),
        Bounds(participants=2, cleaners=1),
    ),
    "a commit row is removed before all have confirmed": (
        Rules(commit=ForgettingTooEarly),
        Bounds(participants=2, losses=1),
    ),
    "recovery has no fence": (
        Rules(keeps_abort_row=False),
        Bounds(participants=2, recoveries=1),
    ),
    "the command tag is not looked at": (
        Rules(read_tag=any_tag),
        Bounds(participants=2, failed=frozenset({1})),
    ),
    "does not exist is taken for success": (
        Rules(commit=ConfirmingWhatIsNotThere),
        Bounds(participants=2, losses=1),
    ),
    "another database is asked for the outcome": (
        Rules(conclude=anywhere),
        Bounds(participants=2, recoveries=1, wrong_databases=1),
    ),
    "another database is asked for the part": (
        Rules(read_listing=listed_anywhere),
        Bounds(participants=2, losses=1, wrong_databases=1),
    ),
    "no trace is taken for an abort": (
        Rules(commit=BelievingNoTrace),
        Bounds(participants=2, recoveries=1, cleaners=1, losses=1),
    ),
    "the decision does not wait for all": (
        Rules(commit=DecidingWithoutAll),
        Bounds(participants=2, losses=1),
    ),
    "a lost reply to the decision is taken for an abort": (
        Rules(commit=UndoingAfterTheDecision),
        Bounds(participants=2, losses=1),
    ),
}
