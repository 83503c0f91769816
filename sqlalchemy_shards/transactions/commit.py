"""Committing what a cluster connection has enlisted: on one shard plainly, on several atomically.

- An error out of `commit` before the decision means: rolled back everywhere (what a lost connection
  left prepared, recovery rolls back). `TransactionOutcomeUnknown` means just that. Nothing but an
  interrupt is raised for a transaction that is committed.
- Afterwards each connection is idle, in the autocommit mode it had, or closed.
"""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn

from sqlalchemy_shards.errors import TransactionOutcomeUnknown, TransactionUnfinished
from sqlalchemy_shards.events import CommitUnfinished, DistributedCommit
from sqlalchemy_shards.transactions import fail_points
from sqlalchemy_shards.transactions.acknowledged import Acknowledged
from sqlalchemy_shards.transactions.decide import Answer, Decision
from sqlalchemy_shards.transactions.finishing import settle_within
from sqlalchemy_shards.transactions.refusals import RoundError, report
from sqlalchemy_shards.transactions.rounds import Attempt, CommitTimeouts, Wiring
from sqlalchemy_shards.transactions.settle import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy_shards.catalog.identity import IdentityRegistry
    from sqlalchemy_shards.connections.fan_out import FanOut
    from sqlalchemy_shards.events import Event, Hooks
    from sqlalchemy_shards.transactions.finishing import Connect
    from sqlalchemy_shards.transactions.participants import Enlisted

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CommitResult:
    """A transaction that is committed.

    :param gid: of the distributed transaction, or None where at most one shard took part.
    :param participants: shards that were written to, the decision shard first.
    :param unfinished: shards whose part is prepared and will be committed by recovery, with the
        last error of each.
    :param reader_errors: enlisted shards that wrote nothing and could not be committed.
    """

    gid: str | None = None
    participants: tuple[str, ...] = ()
    unfinished: Mapping[str, BaseException] = field(default_factory=dict)
    reader_errors: Mapping[str, BaseException] = field(default_factory=dict)

    def unfinished_error(self) -> TransactionUnfinished | None:
        """Return what to warn or raise where a part is unfinished, else None."""
        if not self.unfinished:
            return None
        shards = tuple(self.unfinished)
        return TransactionUnfinished(
            f"the transaction is committed, but not yet visible on {', '.join(map(repr, shards))}",
            "do not run it again; cluster.recover() finishes it",
            unfinished=shards,
            gid=self.gid,
            shard_errors=self.unfinished,
        )


class Coordinator:
    """Commits the transactions of one cluster. Thread-safe, as far as its parts are.

    :param cluster_name: shown in events.
    :param identities: the shards' identities; those missing are read when they are needed.
    :param fan_out: how rounds run on several shards at once.
    :param connect: gives a connection of its own to a shard, where one was lost.
    :param on_unfinished: ``"warn"``: a `TransactionUnfinished` warning, where a part is unfinished;
        ``"raise"``: left to the caller (`CommitResult.unfinished_error`), since raising it out of a
        commit would make SQLAlchemy's session believe in a rollback. An event in both cases.
    :param acknowledged: shared with recovery, which removes the decision rows that wait in it.
    """

    def __init__(
        self,
        cluster_name: str,
        *,
        identities: IdentityRegistry,
        hooks: Hooks,
        fan_out: FanOut,
        connect: Connect,
        timeouts: CommitTimeouts | None = None,
        on_unfinished: Literal["warn", "raise"] = "warn",
        acknowledged: Acknowledged | None = None,
    ) -> None:
        self._cluster_name = cluster_name
        self._hooks = hooks
        self._on_unfinished = on_unfinished
        self._wiring = Wiring(
            identities,
            hooks,
            fan_out,
            connect,
            timeouts or CommitTimeouts(),
            acknowledged or Acknowledged(),
        )

    def commit(self, enlisted: Sequence[Enlisted]) -> CommitResult:
        """Commit on all enlisted shards, or on none.

        :raises psycopg.Error: as PostgreSQL would: a constraint, a serialization failure. Rolled
            back everywhere (unless only one shard took part and its connection was lost: then it is
            as unknown as with one PostgreSQL).
        :raises TransactionAborted: it could not be carried out; rolled back everywhere.
        :raises ConfigurationError: likewise; a shard is not bootstrapped, or is another one.
        :raises TransactionOutcomeUnknown: it may be committed; asking its gid later will tell.
        """
        if len(enlisted) == 1:
            only = enlisted[0]
            only.driver.commit()
            return CommitResult(participants=(only.name,))
        return self._commit_several(enlisted)

    def _commit_several(self, enlisted: Sequence[Enlisted]) -> CommitResult:
        started = time.monotonic()
        attempt = Attempt(self._wiring, enlisted)
        try:
            attempt.ask()
            if attempt.plan.decision is None:
                attempt.commit_single()
            else:
                attempt.prepare()
                self._hooks.reach(fail_points.BEFORE_DECISION)
        except BaseException as error:
            _abort(attempt, error)
        if attempt.plan.decision is None:
            return _commit_readers(attempt)
        return self._decide(attempt, attempt.plan.decision, started)

    def _decide(self, attempt: Attempt, shard: str, started: float) -> CommitResult:
        decision = attempt.decide()
        interrupt = decision.interrupt
        try:
            outcome, error = self._outcome(attempt, shard, decision)
        except BaseException as failure:
            outcome, error, interrupt = Outcome.UNKNOWN, failure, interrupt or failure
        try:
            self._hooks.reach(fail_points.AFTER_DECISION)
        except BaseException as failure:
            interrupt = interrupt or failure
        if outcome is Outcome.ABORTED:
            refused = error or RuntimeError("the decision was refused")
            _abort(attempt, interrupt or RoundError({shard: refused}, gid=str(attempt.gid)))
        if outcome is Outcome.UNKNOWN:
            _give_up(attempt, shard, error, interrupt)
        return self._finish(attempt, shard, started, interrupt)

    def _outcome(
        self, attempt: Attempt, shard: str, decision: Decision
    ) -> tuple[Outcome, BaseException | None]:
        if decision.answer is Answer.COMMITTED:
            return Outcome.COMMITTED, None
        if decision.answer is Answer.REFUSED or attempt.gid is None:
            return Outcome.ABORTED, decision.error
        wiring = self._wiring
        outcome, error = settle_within(
            wiring.connect,
            shard,
            attempt.gid,
            hooks=wiring.hooks,
            seconds=wiring.timeouts.settle_seconds,
        )
        return outcome, error or decision.error

    def _finish(
        self, attempt: Attempt, shard: str, started: float, interrupt: BaseException | None
    ) -> CommitResult:
        unfinished: Mapping[str, BaseException]
        try:
            unfinished = attempt.finish()
            self._hooks.reach(fail_points.AFTER_ROUND_3)
        except BaseException as error:
            unfinished = dict.fromkeys(attempt.still_prepared(), error)
            if isinstance(error, Exception):
                _log.exception("after the decision of %s", attempt.gid)
            else:
                interrupt = interrupt or error
        gid = str(attempt.gid)
        result = CommitResult(gid, attempt.plan.participants, unfinished, attempt.reader_errors)
        self._tell(result, shard, time.monotonic() - started)
        if interrupt is not None:
            if hasattr(interrupt, "add_note"):  # Python 3.11
                interrupt.add_note(f"the transaction {gid!r} is committed")
            raise interrupt
        return result

    def _tell(self, result: CommitResult, decision_shard: str, seconds: float) -> None:
        gid = result.gid or ""
        event: Event
        if result.unfinished:
            event = CommitUnfinished(self._cluster_name, gid, tuple(result.unfinished))
        else:
            self._wiring.acknowledged.add(decision_shard, gid)
            event = DistributedCommit(self._cluster_name, gid, result.participants, seconds)
        try:
            self._hooks.publish(event)
            warning = result.unfinished_error() if self._on_unfinished == "warn" else None
            if warning is not None:
                warnings.warn(warning, stacklevel=2)
        except Exception:
            # It is committed: neither a listener's mistake nor a warning that was made an error may
            # look like a failed commit.
            _log.exception("after the commit of %s", gid)


def _commit_readers(attempt: Attempt) -> CommitResult:
    attempt.commit_readers()
    errors = attempt.reader_errors
    if attempt.plan.single is None and errors:
        # Nothing was written anywhere: the caller may as well hear of it.
        raise next(iter(errors.values()))
    return CommitResult(None, attempt.plan.participants, {}, errors)


def _abort(attempt: Attempt, error: BaseException) -> NoReturn:
    unconfirmed = attempt.roll_back()
    if not isinstance(error, RoundError):
        raise error
    reported = report(error, unconfirmed)
    if any(reported is known for known in error.errors.values()):
        raise reported from None
    raise reported from next(iter(error.errors.values()))


def _give_up(
    attempt: Attempt,
    shard: str,
    error: BaseException | None,
    interrupt: BaseException | None,
) -> NoReturn:
    attempt.let_go()
    unknown = TransactionOutcomeUnknown(
        f"shard {shard!r} did not tell whether the transaction was committed",
        "do not run it again; ask cluster.outcome(gid) when the shard answers again, and let"
        " cluster.recover() finish it",
        shard=shard,
        gid=str(attempt.gid),
        shard_errors={} if error is None else {shard: error},
    )
    if interrupt is not None and not isinstance(interrupt, Exception):
        raise interrupt from unknown
    raise unknown from error
