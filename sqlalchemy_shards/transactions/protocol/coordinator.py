"""One commit over several enlisted shards: commands round by round, and what the answers mean.

The commands of one round go to different shards and may be performed in any order or at once. What
each shard answered is told by `Heard`, right when it is known; `RoundOver` then says that no more
will be heard of this round, and gets the next one. What was not heard of counts as lost.

- A part's phase only moves forward, but for PREPARING, which a refusal makes OPEN again. What is
  left to do is always read off the phases.
- COMMITTED is said after the deciding COMMIT's own tag, or by settling; ABORTED as soon as that
  COMMIT cannot be sent any more or cannot succeed.
- That settling finds no trace is believed when a part of the transaction was there to be rolled
  back. Else a coordinator that slept longer than decision rows are kept would take a transaction
  that others have finished and forgotten for an aborted one: its outcome is UNKNOWN.
- `RoundOver` with ``is_stopped`` before the decision undoes everything; after it, it leaves the
  rest to recovery.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from sqlalchemy_shards.transactions.protocol.replies import Link, Reply
from sqlalchemy_shards.transactions.protocol.roles import CommitPlan, Standing, plan, questions
from sqlalchemy_shards.transactions.protocol.settling import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Verb(enum.Enum):
    """What a command tells to do on a shard."""

    ASK = "ask for the transaction's xid, and whether it can be prepared"
    ASK_AND_ASSIGN = "the same, and let it have an xid"
    INSERT_DECISION = "put the decision row into the open transaction, and make it durable"
    PREPARE = "prepare the open transaction"
    DECIDE = "commit the transaction with the decision row; never cancel that"
    SETTLE = "ask what became of the transaction, over a connection of its own"
    COMMIT_PREPARED = "commit the prepared part"
    ROLLBACK_PREPARED = "roll back the prepared part"
    COMMIT = "commit the open transaction"
    ROLLBACK = "roll back the open transaction"
    FORGET = "remove rows of older transactions that every participant has confirmed"

    # Enum's own is a call in Python, for each look-up by a verb.
    __hash__ = object.__hash__


class Command(NamedTuple):
    """One step on one shard.

    :param anew: over a new connection, since the shard's own is of no use.
    """

    verb: Verb
    shard: str
    anew: bool = False


class Heard(NamedTuple):
    """A shard answered a command, or its answer was lost.

    :param xid: ASK: that of its transaction.
    :param cannot_prepare: ASK: it is known that PREPARE would be refused.
    :param outcome: SETTLE: what it found.
    """

    command: Command
    reply: Reply
    xid: int | None = None
    cannot_prepare: bool = False
    outcome: Outcome = Outcome.UNKNOWN


class RoundOver(NamedTuple):
    """Nothing more will be heard of this round.

    :param links: the shards' connections as they are now.
    :param is_stopped: no further attempts: an interrupt, an error of our own, or time is up.
    """

    links: Mapping[str, Link]
    is_stopped: bool = False


Event: TypeAlias = Heard | RoundOver


class Phase(enum.Enum):
    """How far the part of one shard has come."""

    OPEN = "its transaction is open, or was ended without a trace"
    PREPARING = "PREPARE is to be sent or was not answered: it may be prepared, or become so"
    PREPARED = "it is prepared, and waits for the decision"
    FINISHED = "it was committed or rolled back, and the server said so"


class Stage(enum.Enum):
    """The round that is being performed."""

    BEGINNING = "nothing yet"
    ASKING = "round 0"
    PREPARING = "round 1"
    DECIDING = "round 2"
    SETTLING = "asking what became of the decision"
    COMMITTING_ONE = "the only participant"
    FINISHING = "round 3, and its repetitions"
    UNDOING = "rolling back"
    UNDOING_ANEW = "rolling back what is prepared, over new connections"
    LETTING_GO = "leaving what is prepared to recovery"
    OVER = "done: the outcome stands"


class Commit:
    """Commits the transactions of the enlisted shards everywhere or nowhere.

    ``is_hearsay`` says that settling found no trace, and no part was there to prove that it means
    aborted.

    :param standings: what is known of each shard.
    :param with_markers: every participant's xid is asked for.
    """

    def __init__(self, standings: Iterable[Standing], *, with_markers: bool = False) -> None:
        self.stage = Stage.BEGINNING
        self.plan = CommitPlan(readers=())
        self.outcome: Outcome | None = None
        self._standings = {standing.shard: standing for standing in standings}
        self._with_markers = with_markers
        self.phases = dict.fromkeys(self._standings, Phase.OPEN)
        self._unanswered: set[str] = set()
        self.is_hearsay = False

    @property
    def xids(self) -> dict[str, int]:
        """Those that were asked for."""
        return {name: s.xid for name, s in self._standings.items() if s.xid is not None}

    @property
    def left(self) -> list[str]:
        """Shards whose parts are, or may be, prepared on their servers."""
        return [shard for shard, phase in self.phases.items() if phase in _MAY_BE_PREPARED]

    @property
    def is_acknowledged(self) -> bool:
        """Whether every participant has confirmed the commit, so that its row may be removed."""
        return self.outcome is Outcome.COMMITTED and not self.left

    def unfit(self, links: Mapping[str, Link]) -> dict[str, Link]:
        """Return the shards whose transactions cannot be committed: lost, failed, or over."""
        found: dict[str, Link] = {}
        for shard, standing in self._standings.items():
            link = links[shard]
            # Idle: nothing ran in it, or it was ended beside the application's commit.
            if link is not Link.OPEN and (link is not Link.IDLE or standing.wrote):
                found[shard] = link
        return found

    def begin(self, links: Mapping[str, Link]) -> Sequence[Command]:
        """Return the first round; a shard whose transaction cannot go on undoes all."""
        if self.unfit(links):
            return self._undo(links)
        for shard, standing in self._standings.items():
            if standing.wrote is None and links[shard] is Link.IDLE:
                self._standings[shard] = standing._replace(wrote=False)
        self.stage = Stage.ASKING
        asked = questions(tuple(self._standings.values()), with_markers=self._with_markers)
        self._unanswered = {question.shard for question in asked}
        if not asked:
            return self._allot()
        return [
            Command(Verb.ASK_AND_ASSIGN if question.assign else Verb.ASK, question.shard)
            for question in asked
        ]

    def handle(self, event: Event) -> Sequence[Command]:
        """Take in what happened; return the next round, which is empty while one goes on.

        After `RoundOver` an empty round means that it is `Stage.OVER`.

        :raises TransactionAborted: the participants cannot be prepared together. `RoundOver` must
            be told once more, with ``is_stopped``.
        """
        if isinstance(event, RoundOver):
            return self._next_round(event)
        verb, shard, _ = event.command
        if event.reply is Reply.DONE:
            self._unanswered.discard(shard)
        if verb is Verb.ASK or verb is Verb.ASK_AND_ASSIGN:
            self._note_standing(event)
        elif verb is Verb.SETTLE:
            if event.outcome is not Outcome.UNKNOWN:
                self.outcome = event.outcome
                self.is_hearsay = event.outcome is Outcome.ABORTED
        elif verb in _ENDS_A_PART:
            self._note_end(event)
        return ()

    def _note_end(self, heard: Heard) -> None:
        verb, shard, _ = heard.command
        self.phases[shard] = self._phase_after(heard.command, heard.reply)
        if verb is Verb.DECIDE or (verb is Verb.COMMIT and shard == self.plan.single):
            self.outcome = _OUTCOME_OF_COMMIT[heard.reply]
        elif verb is Verb.ROLLBACK_PREPARED and heard.reply is Reply.DONE:
            self.is_hearsay = False

    def _phase_after(self, command: Command, reply: Reply) -> Phase:
        before = self.phases[command.shard]
        if command.verb is Verb.PREPARE:
            if reply is Reply.DONE:
                return Phase.PREPARED
            return Phase.PREPARING if reply is Reply.LOST else Phase.OPEN
        if reply is Reply.DONE:
            return Phase.FINISHED
        if reply is Reply.NOT_THERE:
            # Its PREPARE was answered, or the connection that sent it is idle again: so it was
            # there or never will be, and whoever was faster did what the same outcome asked for.
            # Else it may still come from a stopped server process.
            if before is Phase.PREPARED or not command.anew:
                return Phase.FINISHED
        elif command.verb is Verb.DECIDE and reply not in (Reply.LOST, Reply.UNSENT):
            return Phase.FINISHED
        return before

    def _note_standing(self, heard: Heard) -> None:
        if heard.reply is Reply.DONE:
            shard = heard.command.shard
            before = self._standings[shard]
            self._standings[shard] = Standing(
                shard,
                heard.xid is not None,
                before.cannot_prepare or heard.cannot_prepare,
                heard.xid,
            )

    def _next_round(self, over: RoundOver) -> Sequence[Command]:
        stage, links = self.stage, over.links
        if stage in (Stage.BEGINNING, Stage.ASKING, Stage.PREPARING):
            if over.is_stopped or self._unanswered:
                return self._undo(links)
            return self._allot() if stage is Stage.ASKING else self._decide()
        if stage in (Stage.DECIDING, Stage.SETTLING, Stage.COMMITTING_ONE):
            return self._decided(links)
        if stage is Stage.FINISHING and self.left and not over.is_stopped:
            return [Command(Verb.COMMIT_PREPARED, shard, anew=True) for shard in self.left]
        if stage is Stage.UNDOING and self.left and not over.is_stopped:
            self.stage = Stage.UNDOING_ANEW
            return [Command(Verb.ROLLBACK_PREPARED, shard, anew=True) for shard in self.left]
        return self._end()

    def _end(self) -> Sequence[Command]:
        if self.is_hearsay:
            self.outcome = Outcome.UNKNOWN
        self.stage = Stage.OVER
        return ()

    def _allot(self) -> Sequence[Command]:
        """Say who does what, and begin with it."""
        self.plan = made = plan(tuple(self._standings.values()))
        if made.single is not None:
            self.stage = Stage.COMMITTING_ONE
            return [Command(Verb.COMMIT, made.single)]
        if made.decision is None:
            self.outcome = Outcome.COMMITTED
            return self._finish()
        self.stage = Stage.PREPARING
        self._unanswered = set(made.participants)
        for shard in made.prepared:
            self.phases[shard] = Phase.PREPARING
        prepares = [Command(Verb.PREPARE, shard) for shard in made.prepared]
        return [Command(Verb.INSERT_DECISION, made.decision), *prepares]

    def _decide(self) -> Sequence[Command]:
        self.stage = Stage.DECIDING
        return [Command(Verb.DECIDE, self._deciding)]

    def _decided(self, links: Mapping[str, Link]) -> Sequence[Command]:
        if self.outcome is None and links[self._deciding] is Link.OPEN:
            self.outcome = Outcome.ABORTED  # its COMMIT was never sent
        if self.outcome is Outcome.COMMITTED:
            return self._finish(links)
        if self.outcome is Outcome.ABORTED:
            return self._undo(links)
        if self.stage is Stage.DECIDING:
            self.stage = Stage.SETTLING
            return [Command(Verb.SETTLE, self._deciding, anew=True)]
        self.outcome = Outcome.UNKNOWN
        self.stage = Stage.LETTING_GO
        return self._rollbacks(links) or self._end()

    def _finish(self, links: Mapping[str, Link] | None = None) -> Sequence[Command]:
        self.stage = Stage.FINISHING
        prepared = [Command(Verb.COMMIT_PREPARED, shard) for shard in self.plan.prepared]
        readers = [Command(Verb.COMMIT, shard) for shard in self.plan.readers]
        # Beside round 3, on the connection that has nothing else to do: in the application's own
        # transaction it could wait for others, or fail with a serialization error of ours.
        decision = self.plan.decision
        forgets = links is not None and decision is not None and links[decision] is Link.IDLE
        forgetting = [Command(Verb.FORGET, decision)] if decision is not None and forgets else []
        return [*prepared, *readers, *forgetting] or self._end()

    def _undo(self, links: Mapping[str, Link]) -> Sequence[Command]:
        self.stage = Stage.UNDOING
        self.outcome = Outcome.ABORTED
        ends = [
            Command(Verb.ROLLBACK_PREPARED, shard)
            for shard in self.left
            if links[shard] is Link.IDLE
        ]
        return [*self._rollbacks(links), *ends] or self._next_round(RoundOver(links))

    def _rollbacks(self, links: Mapping[str, Link]) -> list[Command]:
        # In a transaction still, even if PREPARE was to be sent: then it was not carried out.
        return [
            Command(Verb.ROLLBACK, shard)
            for shard, phase in self.phases.items()
            if phase is not Phase.FINISHED and links[shard] in (Link.OPEN, Link.FAILED)
        ]

    @property
    def _deciding(self) -> str:
        shard = self.plan.decision if self.plan.decision is not None else self.plan.single
        if shard is None:
            raise ValueError("nobody takes part")
        return shard


_MAY_BE_PREPARED = (Phase.PREPARED, Phase.PREPARING)

_ENDS_A_PART = (
    Verb.PREPARE,
    Verb.DECIDE,
    Verb.COMMIT_PREPARED,
    Verb.ROLLBACK_PREPARED,
    Verb.COMMIT,
    Verb.ROLLBACK,
)

_OUTCOME_OF_COMMIT = {
    Reply.DONE: Outcome.COMMITTED,
    Reply.ROLLED_BACK: Outcome.ABORTED,
    Reply.REFUSED: Outcome.ABORTED,
    Reply.NOT_THERE: Outcome.ABORTED,
    Reply.UNSENT: Outcome.ABORTED,
    Reply.LOST: None,
}
