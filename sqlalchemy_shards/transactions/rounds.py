"""One commit over several enlisted shards, performed as `protocol.coordinator` commands it.

- What a server answered is told to the protocol by the branch that asked, right when it is known,
  so that it is right also where the outcomes of the other branches were lost to an interrupt.
- `Attempt.run` raises nothing: what went wrong is kept, and told when the outcome stands. Every
  connection is idle or closed then.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from sqlalchemy_shards.catalog.identity import Identity, IdentityRegistry, read_identity
from sqlalchemy_shards.connections.event_loop import sleep
from sqlalchemy_shards.connections.fan_out import Branch, FanOut
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions import fail_points
from sqlalchemy_shards.transactions.acknowledged import Acknowledged
from sqlalchemy_shards.transactions.decide import commit_uncancelled
from sqlalchemy_shards.transactions.finishing import Connect, next_pause, settle_within
from sqlalchemy_shards.transactions.gid import TransactionGid
from sqlalchemy_shards.transactions.markers import markers_of
from sqlalchemy_shards.transactions.participants import Links, Part
from sqlalchemy_shards.transactions.protocol.coordinator import (
    Command,
    Commit,
    Heard,
    RoundOver,
    Stage,
)
from sqlalchemy_shards.transactions.protocol.replies import Reply
from sqlalchemy_shards.transactions.protocol.roles import Standing
from sqlalchemy_shards.transactions.protocol.settling import Outcome
from sqlalchemy_shards.transactions.refusals import RoundError, unfit
from sqlalchemy_shards.transactions.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy_shards.events import Hooks
    from sqlalchemy_shards.transactions.participants import Enlisted

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CommitTimeouts:
    """How long the steps of a commit may take, in seconds.

    :param round_seconds: rounds 0 and 1, each: asking, and preparing.
    :param decision_seconds: waiting for the deciding COMMIT; then the outcome is asked for.
    :param settle_seconds: asking for the outcome, where the answer to that COMMIT was lost.
    :param finish_seconds: round 3, retries included; then recovery finishes it.
    :param rollback_seconds: rolling back prepared parts; then recovery does it.
    """

    round_seconds: float = 60.0
    decision_seconds: float = 300.0
    settle_seconds: float = 10.0
    finish_seconds: float = 5.0
    rollback_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the rounds of every commit of one cluster share."""

    identities: IdentityRegistry
    hooks: Hooks
    fan_out: FanOut
    connect: Connect
    timeouts: CommitTimeouts = field(default_factory=CommitTimeouts)
    acknowledged: Acknowledged = field(default_factory=Acknowledged)
    leaves_markers: bool = False


class Attempt:
    """One commit over several enlisted shards.

    After `run`: ``failure`` is why it was not committed, ``interrupt`` what interrupted it and must
    be raised again, ``errors`` the last error of each shard in the last round that had any,
    ``reader_errors`` those of the shards that wrote nothing.
    """

    def __init__(self, wiring: Wiring, enlisted: Sequence[Enlisted]) -> None:
        self._wiring = wiring
        self._parts = {one.name: Part(one) for one in enlisted}
        self._links = Links(self._parts)
        self._deadline = 0.0
        self._pause_seconds = 0.0
        self.protocol = Commit(
            (
                Standing(
                    one.name,
                    one.wrote,
                    cannot_prepare=bool(one.cannot_prepare),
                    xid=one.xid,
                    is_unread=one.is_unread,
                )
                for one in enlisted
            ),
            with_markers=wiring.leaves_markers,
        )
        self._steps = Steps(self.protocol, wiring, self._parts)
        self.gid: TransactionGid | None = None
        self.failure: BaseException | None = None
        self.interrupt: BaseException | None = None
        self.errors: dict[str, BaseException] = {}
        self.reader_errors: dict[str, BaseException] = {}

    def run(self) -> Outcome:
        """Commit everywhere or nowhere; return what is known of it."""
        try:
            commands = self._begin()
            while self.protocol.stage is not Stage.OVER:
                is_stopped = not self._perform(commands)
                commands = self._next_round(is_stopped=is_stopped)
        finally:
            for part in self._parts.values():
                part.leave_usable()
        return self.protocol.outcome or Outcome.UNKNOWN

    def unfinished(self) -> dict[str, BaseException]:
        """Return the shards whose parts may still be prepared, with the last error of each."""
        lost = psycopg.OperationalError("it was not confirmed in time")
        return {shard: self.errors.get(shard, lost) for shard in self.protocol.left}

    def _begin(self) -> Sequence[Command]:
        try:
            self._wiring.hooks.reach(fail_points.BEFORE_ROUND_0)
            commands = self.protocol.begin(self._links)
            if self.protocol.stage is Stage.UNDOING:
                self.failure = unfit(self.protocol.unfit(self._links))
            self._leave_round_0()
        except BaseException as error:
            self._note(error)
            return self.protocol.handle(RoundOver(self._links, is_stopped=True))
        return commands

    def _next_round(self, *, is_stopped: bool) -> Sequence[Command]:
        is_round_0 = self.protocol.stage is Stage.ASKING
        try:
            commands = self.protocol.handle(RoundOver(self._links, is_stopped))
            if is_round_0:
                self._leave_round_0()
        except BaseException as error:
            self._note(error)
            return self.protocol.handle(RoundOver(self._links, is_stopped=True))
        return commands

    def _perform(self, commands: Sequence[Command]) -> bool:
        """Perform one round; return whether there may be another try where one is wanted."""
        stage = self.protocol.stage
        try:
            if stage is Stage.DECIDING:
                self._decide(commands[0])
            elif stage is Stage.SETTLING:
                self._settle(commands[0])
            elif stage is Stage.FINISHING:
                return self._finish(commands)
            elif stage in (Stage.UNDOING, Stage.UNDOING_ANEW, Stage.LETTING_GO):
                self._undo(commands)
            else:
                return self._prepare(commands)
        except BaseException as error:
            self._note(error)
            return False
        return True

    def _prepare(self, commands: Sequence[Command]) -> bool:
        """Rounds 0 and 1, or the only participant; an error of any shard stops them."""
        if self.protocol.stage is Stage.COMMITTING_ONE:
            self._steps.commit_alone(commands[0])
            return True
        deciding = self.protocol.plan.decision
        errors = self._run(commands, self._wiring.timeouts.round_seconds)
        if errors:
            gid = None if self.gid is None else str(self.gid)
            self.failure = RoundError(errors, deciding=deciding, gid=gid)
        elif self.protocol.stage is Stage.PREPARING:
            self._wiring.hooks.reach(fail_points.BEFORE_DECISION)
        return not errors

    def _decide(self, command: Command) -> None:
        """Round 2; a connection that gave no answer is closed."""
        part = self._parts[command.shard]
        seconds = self._wiring.timeouts.decision_seconds
        decision = commit_uncancelled(part.name, part.driver, seconds=seconds)
        self.interrupt = decision.interrupt
        self.protocol.handle(Heard(command, decision.reply))
        if decision.error is not None:
            self.errors = {part.name: decision.error}
            self.failure = RoundError(self.errors, gid=str(self.gid))
        if decision.reply is Reply.LOST or decision.reply is Reply.UNSENT:
            part.driver.close()
        else:
            self._wiring.hooks.reach(fail_points.AFTER_DECISION)

    def _settle(self, command: Command) -> None:
        if self.gid is None:
            raise ValueError("round 0 comes first")
        wiring = self._wiring
        outcome, error = settle_within(
            wiring.connect,
            command.shard,
            self.gid,
            fan_out=wiring.fan_out,
            hooks=wiring.hooks,
            seconds=wiring.timeouts.settle_seconds,
        )
        self.protocol.handle(Heard(command, Reply.DONE, outcome=outcome))
        if error is not None:
            self.errors = {command.shard: error}
        wiring.hooks.reach(fail_points.AFTER_DECISION)

    def _finish(self, commands: Sequence[Command]) -> bool:
        """Round 3, and its repetitions with growing pauses until the time is up."""
        seconds = self._wiring.timeouts.finish_seconds
        if self.protocol.plan.decision is None:
            seconds = self._wiring.timeouts.round_seconds
        if not commands[0].anew:
            self._deadline = time.monotonic() + seconds
        elif self._pause_seconds:
            sleep(min(self._pause_seconds, max(0.0, self._deadline - time.monotonic())))
        left = self._deadline - time.monotonic()
        if left > 0:
            # A connection that hangs must leave time to try over another one.
            patience = left if commands[0].anew else left / 2
            self.errors.update(self._run(commands, patience))
        if not commands[0].anew:
            readers = self.protocol.plan.readers
            self.reader_errors = {n: e for n, e in self.errors.items() if n in readers}
        else:
            self._pause_seconds = next_pause(self._pause_seconds)
        if not self.protocol.left and self.gid is not None:
            self._wiring.hooks.reach(fail_points.AFTER_ROUND_3)
        return left > 0

    def _undo(self, commands: Sequence[Command]) -> None:
        if self.protocol.stage is Stage.UNDOING:
            self._wiring.hooks.reach(fail_points.BEFORE_ROLLBACK)
        self._run(commands, self._wiring.timeouts.rollback_seconds)

    def _run(self, commands: Sequence[Command], seconds: float) -> dict[str, BaseException]:
        # Either all of a round's commands go over new connections, or none.
        is_anew = commands[0].anew
        perform = self._steps.perform_anew if is_anew else self._steps.perform
        return perform(commands, seconds)

    def _note(self, error: BaseException) -> None:
        """Keep what came out of a round that is not the answer of a shard."""
        if self.protocol.outcome is Outcome.COMMITTED and isinstance(error, Exception):
            # Neither a listener's nor our own mistake may look like a failed commit.
            _log.exception("after the decision of %s", self.gid)
            self.errors.update(dict.fromkeys(self.protocol.left, error))
        elif self.protocol.stage in _BEFORE_THE_DECISION:
            self.failure = error
        else:
            self.interrupt = self.interrupt or error

    def _leave_round_0(self) -> None:
        """Give the transaction its gid, now that it is known who takes part."""
        stage = self.protocol.stage
        if stage is Stage.PREPARING:
            self._name()
        if stage is Stage.PREPARING or stage is Stage.COMMITTING_ONE:
            self._wiring.hooks.reach(fail_points.AFTER_ROUND_0)

    def _name(self) -> None:
        made = self.protocol.plan
        decision, *others = self._steps.participants = self._identities(made.participants)
        self.gid = self._steps.gid = TransactionGid(
            decision.cluster_uuid, uuid4(), decision.shard_uuid, made.decision_xid
        )
        for name, identity in zip(made.prepared, others, strict=True):
            self._parts[name].gid = self.gid.part(identity.shard_uuid)
        if self._wiring.leaves_markers:
            xids = self.protocol.xids
            participants = zip(made.participants, (decision, *others), strict=True)
            self._steps.markers = markers_of({i.shard_uuid: xids[name] for name, i in participants})

    def _identities(self, names: Sequence[str]) -> list[Identity]:
        """Who shards are; those that were not asked before are asked now."""
        known = self._wiring.identities.of
        found = [known(name) for name in names]
        if None in found:
            self._identify_all([name for name in names if known(name) is None])
            found = [known(name) for name in names]
        return [identity for identity in found if identity is not None]

    def _identify_all(self, names: Sequence[str]) -> None:
        branches = [self._identifying(self._parts[name]) for name in names]
        seconds = self._wiring.timeouts.round_seconds
        outcomes = self._wiring.fan_out.run(branches, deadline_seconds=seconds)
        errors = {o.shard: o.error for o in outcomes if o.error is not None}
        if errors:
            raise RoundError(errors)

    def _identifying(self, part: Part) -> Branch[None]:
        return Branch(part.name, lambda: self._identify(part), lambda: part.driver)

    def _identify(self, part: Part) -> None:
        identity = read_identity(part.driver)
        if identity is None:
            raise ConfigurationError(
                f"shard {part.name!r} has no schema 'shards', which a transaction over several"
                " shards needs; it was rolled back on every shard",
                "run cluster.bootstrap()",
                shard=part.name,
            )
        self._wiring.identities.admit(part.name, identity)


_BEFORE_THE_DECISION = (
    Stage.BEGINNING,
    Stage.ASKING,
    Stage.PREPARING,
    Stage.COMMITTING_ONE,
)
