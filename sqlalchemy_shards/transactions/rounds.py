"""The rounds of one commit over several shards, performed.

- A part's phase is set by the branch that did the work, right when the server has answered. What is
  left to do is always read off the phases, never off what a fan-out returned.
- `roll_back` and `finish` may be called whatever happened before, leave every connection idle or
  closed, and say which prepared parts are left on a server.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
from psycopg.pq import TransactionStatus

from sqlalchemy_shards.catalog.identity import Identity, IdentityRegistry, read_identity
from sqlalchemy_shards.connections.fan_out import Branch, FanOut
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions import fail_points, statements
from sqlalchemy_shards.transactions.acknowledged import Acknowledged
from sqlalchemy_shards.transactions.decide import Answer, Decision, commit_uncancelled
from sqlalchemy_shards.transactions.fail_points import at
from sqlalchemy_shards.transactions.finishing import (
    PAUSE_SECONDS_FIRST,
    PAUSE_SECONDS_MAX,
    Connect,
    Finish,
    finish_prepared,
)
from sqlalchemy_shards.transactions.gid import TransactionGid
from sqlalchemy_shards.transactions.participants import Enlisted, Part, Phase
from sqlalchemy_shards.transactions.protocol import CommitPlan, Question, Standing, plan, questions
from sqlalchemy_shards.transactions.refusals import RoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy_shards.events import Hooks


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


class Attempt:
    """One commit over several enlisted shards."""

    def __init__(self, wiring: Wiring, enlisted: Sequence[Enlisted]) -> None:
        self._wiring = wiring
        self._enlisted = enlisted
        self._parts = {one.name: Part(one) for one in enlisted}
        self.plan = CommitPlan(readers=())
        self.gid: TransactionGid | None = None
        self.reader_errors: dict[str, BaseException] = {}

    def ask(self) -> None:
        """Round 0: find out who takes part and who decides.

        :raises RoundError: a shard could not be asked, or its transaction had failed.
        :raises TransactionAborted: the participants cannot be prepared together.
        """
        self._wiring.hooks.reach(fail_points.BEFORE_ROUND_0)
        self._check_states()
        standings = self._standings()
        asked = questions(standings)
        if asked:
            standings = _answered(standings, self._ask(asked))
        self.plan = plan(standings)
        if self.plan.decision is not None:
            identities = self._identities()
            decision = identities[self.plan.decision]
            self.gid = TransactionGid(
                decision.cluster_uuid, uuid4(), decision.shard_uuid, self.plan.decision_xid
            )
            for name in self.plan.prepared:
                self._parts[name].gid = self.gid.part(identities[name].shard_uuid)
        self._wiring.hooks.reach(fail_points.AFTER_ROUND_0)

    def prepare(self) -> None:
        """Round 1: write the decision row, and prepare the other participants.

        :raises RoundError: one of them failed.
        """
        deciding = self._decision_part
        branches = [_branch(deciding, self._write_decision)]
        branches += [_branch(self._parts[n], self._prepare) for n in self.plan.prepared]
        errors = self._run(branches, self._wiring.timeouts.round_seconds)
        for name in self.plan.prepared:
            if self._parts[name].phase is not Phase.PREPARED and name not in errors:
                errors[name] = psycopg.InternalError("the part was not prepared")
        if errors:
            raise RoundError(errors, deciding=deciding.name, gid=str(self.gid))

    def decide(self) -> Decision:
        """Round 2: commit on the decision shard; a connection that gave no answer is closed."""
        part = self._decision_part
        decision = commit_uncancelled(part.driver, seconds=self._wiring.timeouts.decision_seconds)
        if decision.answer is Answer.LOST:
            part.driver.close()
        else:
            part.phase = Phase.FINISHED
        return decision

    def finish(self) -> Mapping[str, BaseException]:
        """Round 3: commit the prepared parts and the readers; the decision must be committed.

        Returns the shards that are still prepared, with their last errors.
        """
        deadline = time.monotonic() + self._wiring.timeouts.finish_seconds
        try:
            errors = self._run(self._finishing(), self._wiring.timeouts.finish_seconds)
            self.reader_errors = {n: e for n, e in errors.items() if n in self.plan.readers}
            return self._retry(errors, deadline)
        finally:
            self._leave_usable()

    def commit_readers(self) -> None:
        """Commit the shards that wrote nothing; their errors are kept in ``reader_errors``."""
        try:
            readers = [self._parts[name] for name in self.plan.readers]
            self.reader_errors = self._run(
                [_branch(part, _commit) for part in readers],
                self._wiring.timeouts.round_seconds,
            )
        finally:
            self._leave_usable()

    def commit_single(self) -> None:
        """Commit the only participant; raises the driver's error as it is."""
        if self.plan.single is not None:
            _commit(self._parts[self.plan.single])

    def roll_back(self) -> list[str]:
        """Roll back every part that is not finished; only before the decision, or if refused.

        Returns the shards of which it is not confirmed; recovery rolls them back. Raises nothing
        but what interrupts it.
        """
        seconds = self._wiring.timeouts.rollback_seconds
        try:
            self._wiring.hooks.reach(fail_points.BEFORE_ROLLBACK)
            self._run([_branch(part, self._undo) for part in self._unfinished()], seconds)
            left = self._still_prepared()
            if left:
                self._run([self._elsewhere(part, self._undo_elsewhere) for part in left], seconds)
        finally:
            self._leave_usable()
        return self.still_prepared()

    def let_go(self) -> None:
        """Give up without finishing: prepared parts stay on their servers for recovery."""
        for part in self._unfinished():
            if part.phase is Phase.OPEN and not part.is_lost:
                try:
                    part.driver.rollback()
                except psycopg.Error:
                    part.driver.close()
        self._leave_usable()

    def still_prepared(self) -> list[str]:
        """Return the shards whose prepared parts may still be on their servers."""
        return [part.name for part in self._still_prepared()]

    @property
    def _decision_part(self) -> Part:
        if self.plan.decision is None:
            raise ValueError("the plan has no decision shard")
        return self._parts[self.plan.decision]

    def _check_states(self) -> None:
        errors: dict[str, BaseException] = {}
        for part in self._parts.values():
            if part.is_lost:
                errors[part.name] = psycopg.OperationalError("the connection is lost")
            elif part.status == TransactionStatus.INERROR:
                errors[part.name] = psycopg.errors.InFailedSqlTransaction(
                    "an earlier statement failed"
                )
            elif part.status == TransactionStatus.ACTIVE:
                errors[part.name] = psycopg.OperationalError("a statement is still running")
        if errors:
            raise RoundError(errors)

    def _standings(self) -> list[Standing]:
        standings = []
        for one in self._enlisted:
            # Idle: nothing ran in it, or a statement of the application has ended it.
            idle = self._parts[one.name].status == TransactionStatus.IDLE
            wrote = False if idle else one.wrote
            standings.append(Standing(one.name, wrote, cannot_prepare=bool(one.cannot_prepare)))
        return standings

    def _ask(self, asked: Sequence[Question]) -> dict[str, tuple[int | None, bool]]:
        answers: dict[str, tuple[int | None, bool]] = {}

        def asking(question: Question) -> Callable[[Part], None]:
            def work(part: Part) -> None:
                answers[part.name] = statements.ask(part.driver, assign=question.assign)

            return work

        branches = [_branch(self._parts[q.shard], asking(q)) for q in asked]
        errors = self._run(branches, self._wiring.timeouts.round_seconds)
        if errors:
            raise RoundError(errors)
        return answers

    def _identities(self) -> dict[str, Identity]:
        known = self._wiring.identities
        names = self.plan.participants
        missing = [self._parts[name] for name in names if known.of(name) is None]
        if missing:
            errors = self._run(
                [_branch(part, self._identify) for part in missing],
                self._wiring.timeouts.round_seconds,
            )
            if errors:
                raise RoundError(errors)
        found = {name: known.of(name) for name in names}
        return {name: identity for name, identity in found.items() if identity is not None}

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

    def _write_decision(self, part: Part) -> None:
        hooks = self._wiring.hooks
        hooks.reach(fail_points.BEFORE_DECISION_ROW)
        if self.gid is None:
            raise ValueError("round 0 comes first")
        prepared = [self._parts[name].gid for name in self.plan.prepared]
        participants = [self.gid.decision_shard, *(g.participant for g in prepared if g)]
        if not statements.insert_decision(part.driver, self.gid, participants):
            raise ConfigurationError(
                f"the database behind shard {part.name!r} is not the one that it was",
                "check where its URL leads; the transaction was rolled back on every shard",
                shard=part.name,
            )
        hooks.reach(fail_points.AFTER_DECISION_ROW)

    def _prepare(self, part: Part) -> None:
        hooks = self._wiring.hooks
        hooks.reach(at(fail_points.BEFORE_PREPARE, part.name))
        if part.gid is None:
            raise ValueError("round 0 comes first")
        part.phase = Phase.PREPARING
        try:
            statements.prepare(part.driver, part.gid)
        except statements.RolledBackError:
            part.phase = Phase.OPEN
            raise
        except psycopg.Error as error:
            # The server itself refused, and lives to tell: nothing is prepared. In every other case
            # it may be, or may become so when a stopped server process reads its socket again.
            if error.diag.sqlstate is not None and not part.is_lost:
                part.phase = Phase.OPEN
            raise
        part.phase = Phase.PREPARED
        hooks.reach(at(fail_points.AFTER_PREPARE, part.name))

    def _finishing(self) -> list[Branch[None]]:
        prepared = [_branch(self._parts[n], self._commit_prepared) for n in self.plan.prepared]
        readers = [_branch(self._parts[name], _commit) for name in self.plan.readers]
        return [*prepared, *readers, *self._forgetting()]

    def _forgetting(self) -> list[Branch[None]]:
        # Beside round 3, on the connection that has nothing else to do: in the application's own
        # transaction it could wait for others, or fail with a serialization error of ours.
        part = self._decision_part
        gids = () if part.is_lost else self._wiring.acknowledged.due(part.name)
        if not gids:
            return []
        return [_branch(part, lambda part: statements.forget_decisions(part.driver, gids))]

    def _commit_prepared(self, part: Part) -> None:
        hooks = self._wiring.hooks
        hooks.reach(at(fail_points.BEFORE_COMMIT_PREPARED, part.name))
        self._end_here(part, statements.COMMIT_PREPARED)
        hooks.reach(at(fail_points.AFTER_COMMIT_PREPARED, part.name))

    def _end_here(self, part: Part, verb: str) -> None:
        if part.gid is None:
            raise ValueError("only a prepared part can be finished")
        try:
            statements.finish(part.driver, verb, part.gid)
        except psycopg.Error as error:
            # It was answered on the connection that prepared it, and its outcome is known here:
            # recovery was faster.
            if error.sqlstate != statements.DOES_NOT_EXIST:
                raise
        part.phase = Phase.FINISHED

    def _retry(
        self, errors: Mapping[str, BaseException], deadline: float
    ) -> Mapping[str, BaseException]:
        last = dict(errors)
        pause = PAUSE_SECONDS_FIRST
        left = self._still_prepared()
        while left and (seconds := deadline - time.monotonic()) > 0:
            branches = [self._elsewhere(part, self._commit_elsewhere) for part in left]
            last.update(self._run(branches, seconds))
            left = self._still_prepared()
            if left:
                time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
                pause = min(2 * pause, PAUSE_SECONDS_MAX)
        lost = psycopg.OperationalError("it was not confirmed in time")
        return {part.name: last.get(part.name, lost) for part in left}

    def _commit_elsewhere(self, part: Part, connection: psycopg.Connection[Any]) -> None:
        if part.gid is not None:
            # Gone is done: its PREPARE was answered, and by the decision nobody can have rolled it
            # back; what the lost connection sent, or recovery, has committed it.
            finish_prepared(connection, statements.COMMIT_PREPARED, part.gid)
            part.phase = Phase.FINISHED

    def _undo(self, part: Part) -> None:
        if part.is_lost:
            return
        if part.status == TransactionStatus.ACTIVE:
            part.driver.close()
            return
        if part.phase is not Phase.OPEN and part.status == TransactionStatus.IDLE:
            self._end_here(part, statements.ROLLBACK_PREPARED)
            return
        # In a transaction still, even if PREPARE was sent: then it was not carried out.
        part.driver.rollback()
        part.phase = Phase.FINISHED

    def _undo_elsewhere(self, part: Part, connection: psycopg.Connection[Any]) -> None:
        if part.gid is None:
            return
        finish = finish_prepared(connection, statements.ROLLBACK_PREPARED, part.gid)
        # Not there says nothing of a PREPARE that was not answered: it may still come.
        if finish is Finish.DONE or part.phase is Phase.PREPARED:
            part.phase = Phase.FINISHED

    def _elsewhere(
        self, part: Part, work: Callable[[Part, psycopg.Connection[Any]], None]
    ) -> Branch[None]:
        opened: list[psycopg.Connection[Any]] = []

        def run() -> None:
            with self._wiring.connect(part.name) as connection:
                opened.append(connection)
                work(part, connection)

        return Branch(part.name, run, lambda: opened[-1] if opened else None)

    def _run(self, branches: Sequence[Branch[None]], seconds: float) -> dict[str, BaseException]:
        if not branches:
            return {}
        outcomes = self._wiring.fan_out.run(branches, deadline_seconds=seconds)
        return {o.shard: o.error for o in outcomes if o.error is not None}

    def _unfinished(self) -> list[Part]:
        return [part for part in self._parts.values() if part.phase is not Phase.FINISHED]

    def _still_prepared(self) -> list[Part]:
        return [p for p in self._unfinished() if p.phase in (Phase.PREPARING, Phase.PREPARED)]

    def _leave_usable(self) -> None:
        for part in self._parts.values():
            part.leave_usable()


def _branch(part: Part, work: Callable[[Part], None]) -> Branch[None]:
    return Branch(part.name, lambda: work(part), lambda: part.driver)


def _commit(part: Part) -> None:
    part.driver.commit()
    part.phase = Phase.FINISHED


def _answered(
    standings: Iterable[Standing], answers: Mapping[str, tuple[int | None, bool]]
) -> list[Standing]:
    known = []
    for standing in standings:
        if standing.shard not in answers:
            known.append(standing)
            continue
        xid, has_temporary = answers[standing.shard]
        cannot_prepare = standing.cannot_prepare or has_temporary
        known.append(Standing(standing.shard, xid is not None, cannot_prepare, xid))
    return known
