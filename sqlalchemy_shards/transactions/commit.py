"""Committing what a cluster connection has enlisted: on one shard plainly, on several atomically.

- An error out of `commit` before the decision means: rolled back everywhere (what a lost connection
  left prepared, recovery rolls back). `TransactionOutcomeUnknown` means just that. Nothing but an
  interrupt is raised for a transaction that is committed.
- Afterwards each connection is idle, in the autocommit mode it had, or closed.
"""

from __future__ import annotations

import inspect
import logging
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NoReturn

from sqlalchemy_shards.errors import TransactionOutcomeUnknown, TransactionUnfinished
from sqlalchemy_shards.events import CommitUnfinished, DistributedCommit
from sqlalchemy_shards.transactions.acknowledged import Acknowledged
from sqlalchemy_shards.transactions.protocol.settling import Outcome
from sqlalchemy_shards.transactions.refusals import RoundError, report
from sqlalchemy_shards.transactions.rounds import Attempt, CommitTimeouts, Wiring

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
            # With its gid: Python shows a warning of the same text only once.
            f"the transaction {self.gid!r} is committed, but not yet visible on"
            f" {', '.join(map(repr, shards))}",
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
    :param leaves_markers: whether consistent reads are switched on.
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
        leaves_markers: bool = False,
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
            leaves_markers,
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
        outcome = attempt.run()
        if outcome is Outcome.ABORTED:
            _raise_aborted(attempt)
        if outcome is Outcome.UNKNOWN:
            _raise_unknown(attempt)
        made = attempt.protocol.plan
        if made.decision is None:
            return _of_readers(attempt)
        result = CommitResult(
            str(attempt.gid), made.participants, attempt.unfinished(), attempt.reader_errors
        )
        self._tell(result, made.decision, time.monotonic() - started)
        _raise_interrupt(attempt)
        return result

    def _tell(self, result: CommitResult, decision_shard: str, seconds: float) -> None:
        gid = result.gid or ""
        event: Event
        if result.unfinished:
            event = CommitUnfinished(self._cluster_name, gid, tuple(result.unfinished))
        else:
            self._wiring.acknowledged.add(decision_shard, gid)
            event = DistributedCommit(self._cluster_name, gid, result.participants, seconds)
        warning = result.unfinished_error() if self._on_unfinished == "warn" else None
        # It is committed: neither a listener's mistake nor a warning that was made an error may
        # look like a failed commit, and neither may hide the other.
        try:
            self._hooks.publish(event)
        except Exception:
            _log.exception("after the commit of %s", gid)
        try:
            if warning is not None:
                warnings.warn(warning, stacklevel=_level_of_the_caller())
        except Exception:
            _log.exception("after the commit of %s", gid)


def _level_of_the_caller() -> int:
    """Return the stacklevel, one frame up, of the line that committed."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    return level


_BETWEEN: Final = frozenset({"sqlalchemy_shards", "sqlalchemy", "contextlib"})
"""Packages that lie between the application's line and here."""


def _of_readers(attempt: Attempt) -> CommitResult:
    _raise_interrupt(attempt)
    made, errors = attempt.protocol.plan, attempt.reader_errors
    if made.single is None and errors:
        # Nothing was written anywhere: the caller may as well hear of it.
        raise next(iter(errors.values()))
    return CommitResult(None, made.participants, {}, errors)


def _raise_interrupt(attempt: Attempt) -> None:
    """Raise what interrupted a transaction that is committed all the same."""
    interrupt = attempt.interrupt
    if interrupt is not None:
        if hasattr(interrupt, "add_note") and attempt.gid is not None:  # Python 3.11
            interrupt.add_note(f"the transaction {str(attempt.gid)!r} is committed")
        raise interrupt


def _raise_aborted(attempt: Attempt) -> NoReturn:
    failure = attempt.interrupt or attempt.failure
    if failure is None:
        raise RuntimeError("the commit was given up for no reason")
    if not isinstance(failure, RoundError):
        raise failure
    reported = report(failure, attempt.protocol.left)
    if any(reported is known for known in failure.errors.values()):
        raise reported from None
    raise reported from next(iter(failure.errors.values()))


def _raise_unknown(attempt: Attempt) -> NoReturn:
    shard = attempt.protocol.plan.decision
    if shard is None and attempt.failure is not None:
        # One participant: as unknown as with one PostgreSQL, and reported alike.
        raise attempt.failure
    gid = str(attempt.gid)
    problem = f"shard {shard!r} did not tell whether the transaction {gid!r} was committed"
    advice = (
        "do not run it again; ask cluster.outcome(gid) when the shard answers again, and let"
        " cluster.recover() finish it"
    )
    if attempt.protocol.is_hearsay:
        problem = (
            f"shard {shard!r} has no trace of the transaction {gid!r}, nor has any other: recovery"
            " has aborted it, or has finished it and removed the decision"
        )
        advice = "look at its rows; keep decision_retention longer than a commit can take"
    unknown = TransactionOutcomeUnknown(
        problem, advice, shard=shard, gid=gid, shard_errors=attempt.errors
    )
    interrupt = attempt.interrupt
    if interrupt is not None and not isinstance(interrupt, Exception):
        raise interrupt from unknown
    raise unknown from next(iter(attempt.errors.values()), interrupt)
