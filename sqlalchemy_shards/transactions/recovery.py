"""Finishing what crashes left: every prepared part of our cluster, on every shard that answers.

- May run at any time, beside running transactions and other recoveries, any number of times: what
  it does is settled by the decision shard, and finishing twice finishes once.
- A transaction whose coordinator is just deciding stays as it is. One whose coordinator has not
  written its decision yet is aborted; ``older_than`` spares the young.
- A shard that does not answer is reported, and keeps in doubt only what it alone can decide.
- A decision row is removed only when nothing prepared can need it any more.
- Every step is done on all shards at once, with so much of it that a bound of its time means a
  shard that hangs.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.connections.hub import GreenletFanOut
from sqlalchemy_shards.errors import ConfigurationError, ShardUnavailable
from sqlalchemy_shards.events import RecoveryRun, TransactionRecovered
from sqlalchemy_shards.transactions import fail_points, inventory
from sqlalchemy_shards.transactions.cleaning import DecisionCleaner
from sqlalchemy_shards.transactions.finishing_many import Finishing, owner_of
from sqlalchemy_shards.transactions.gid import parse, parse_transaction
from sqlalchemy_shards.transactions.marker_removal import remove_everywhere
from sqlalchemy_shards.transactions.protocol.recovering import is_due
from sqlalchemy_shards.transactions.protocol.settling import Outcome
from sqlalchemy_shards.transactions.reports import (
    InDoubtTransaction,
    RecoveredPart,
    RecoveryReport,
    Survey,
    TransactionGauges,
    transactions_of,
)
from sqlalchemy_shards.transactions.resolving import Assessment, assess
from sqlalchemy_shards.transactions.settle import LOCK_SECONDS
from sqlalchemy_shards.transactions.settling_many import settle_many
from sqlalchemy_shards.transactions.visits import STEP_SECONDS, Visits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    from sqlalchemy_shards.catalog.identity import Identity, IdentityRegistry
    from sqlalchemy_shards.connections.fan_out import FanOut
    from sqlalchemy_shards.events import Hooks
    from sqlalchemy_shards.transactions.acknowledged import Acknowledged
    from sqlalchemy_shards.transactions.finishing import Connect
    from sqlalchemy_shards.transactions.finishing_many import Settled
    from sqlalchemy_shards.transactions.gid import TransactionGid
    from sqlalchemy_shards.transactions.inventory import (
        Listing,
        PreparedPart,
    )
    from sqlalchemy_shards.transactions.protocol.cleaning import DecisionRow

DECISION_RETENTION = timedelta(days=1)

SETTLED_AT_ONCE = 500
"""How many transactions one statement asks the decision shard about."""


class Recovery:
    """Settles and finishes the distributed transactions of one cluster. Thread-safe.

    :param cluster_name: shown in events.
    :param shard_names: all shards of the cluster.
    :param connect: gives a connection of its own to a shard.
    :param fan_out: how shards are asked at once.
    :param acknowledged: the coordinator's, whose waiting rows are removed too.
    :param decision_retention: how long a row of a committed transaction is kept at least, so that
        `outcome` can tell.
    :param lock_seconds: how long to wait for a coordinator that is just deciding.
    :param step_seconds: how long to wait for a shard that does not answer.
    """

    def __init__(
        self,
        cluster_name: str,
        *,
        shard_names: Sequence[str],
        connect: Connect,
        identities: IdentityRegistry,
        hooks: Hooks,
        fan_out: FanOut | None = None,
        acknowledged: Acknowledged | None = None,
        decision_retention: timedelta = DECISION_RETENTION,
        lock_seconds: float = LOCK_SECONDS,
        step_seconds: float = STEP_SECONDS,
    ) -> None:
        self.cluster_name = cluster_name
        self.shard_names = tuple(shard_names)
        self.identities = identities
        self.hooks = hooks
        self.lock_seconds = lock_seconds
        self.step_seconds = step_seconds
        self.cleaner = DecisionCleaner(
            shard_names, hooks=hooks, acknowledged=acknowledged, retention=decision_retention
        )
        self.gauges = TransactionGauges()
        self._lock = threading.Lock()
        self._connect = connect
        self._fan_out = fan_out or GreenletFanOut()

    def recover(
        self, older_than: timedelta | None = None, *, gid: str | None = None
    ) -> RecoveryReport:
        """Finish everything that can be settled; shards that do not answer are in the report.

        :param older_than: leave alone what was prepared more recently.
        :param gid: finish only this transaction, and remove no rows.
        :raises ConfigurationError: it is no gid in a form that this release can read, or no age.
        """
        if older_than is not None and older_than < timedelta(0):
            raise ConfigurationError(
                f"older_than is {older_than.total_seconds():g} seconds, which is no age",
                "give a timedelta that is not negative, or None for all",
            )
        only = None if gid is None else _transaction(gid)
        started = time.monotonic()
        with self._visits() as visits:
            report = _Run(self, visits).recover(older_than, only)
        if only is None:
            self._tell(report, time.monotonic() - started)
        return report

    def _tell(self, report: RecoveryReport, seconds: float) -> None:
        with self._lock:
            self.gauges = self.gauges.after(report, datetime.now(timezone.utc))
        self.hooks.publish(
            RecoveryRun(
                self.cluster_name,
                recovered=len(report.finished),
                in_doubt=len(report.in_doubt),
                failed=len(report.failures),
                unreachable=tuple(report.unreachable),
                seconds=seconds,
            )
        )

    def survey(self) -> Survey:
        """Return what is prepared on the shards that answer; changes nothing."""
        with self._visits() as visits:
            listings = list_all(self, visits)
            return Survey(
                transactions_of(_parts(listings), self.identities),
                _not_understood(listings),
                tuple((name, one) for name, found in listings.items() for one in found.foreign),
                visits.unreachable,
            )

    def assess(self, gid: str) -> Assessment:
        """Return what can be known of a transaction whose decision shard may be gone.

        :raises ConfigurationError: it is no gid in a form that this release can read.
        """
        transaction = _transaction(gid)
        with self._visits() as visits:
            return self._assess(transaction, visits, list_all(self, visits))

    def resolve(self, gid: str, outcome: Outcome) -> RecoveryReport:
        """Decide a transaction whose decision shard is gone for good, and finish it so.

        :raises ConfigurationError: the protocol can still tell, or it would make halves.
        """
        transaction = _transaction(gid)
        with self._visits() as visits:
            listings = list_all(self, visits)
            self._assess(transaction, visits, listings).refuse_unless_lost(outcome)
            return _Run(self, visits).resolve(transaction, listings, outcome)

    def _assess(
        self, gid: TransactionGid, visits: Visits, listings: Mapping[str, Listing]
    ) -> Assessment:
        outcome = settle_all(self, visits, [gid]).get(gid, Outcome.UNKNOWN)
        return assess(gid, visits, self.identities, listings, outcome)

    def in_doubt(self) -> list[InDoubtTransaction]:
        """Return the distributed transactions that are prepared somewhere; changes nothing.

        :raises ShardUnavailable: a shard does not answer, so that the list would not be whole.
        """
        survey = self.survey()
        if survey.unreachable:
            shard, error = next(iter(survey.unreachable.items()))
            raise ShardUnavailable(
                f"shard {shard!r} could not be looked at for prepared transactions",
                "see .shard_errors; cluster.recover() works on the shards that answer",
                shard=shard,
                shard_errors=survey.unreachable,
            ) from error
        return list(survey.in_doubt)

    def outcome(self, gid: str) -> Outcome:
        """Return what became of a distributed transaction, and settle it if that is still open.

        Reliable for a gid that a `TransactionInDoubt` error carried, for ``decision_retention``.
        Of a transaction that was finished everywhere nothing is kept: it is taken for aborted.

        :param gid: as the error or event carried it, or as a server lists it.
        :returns: UNKNOWN where the decision shard does not answer, or it is still being decided.
        :raises ConfigurationError: it is no gid in a form that this release can read.
        """
        transaction = _transaction(gid)
        with self._visits() as visits:
            if self.identities.name_of(transaction.decision_shard) is None:
                visits.ask(dict.fromkeys(self.shard_names, _only_verify))
            asked = settle_all(self, visits, [transaction])
            return asked.get(transaction, Outcome.UNKNOWN)

    def _visits(self) -> Visits:
        return Visits(self._connect, self.identities, self._fan_out, seconds=self.step_seconds)


class _Run:
    """One recovery."""

    def __init__(self, recovery: Recovery, visits: Visits) -> None:
        self._of = recovery
        self._visits = visits
        self._listings: dict[str, Listing] = {}
        self._failures: dict[tuple[str, str], BaseException] = {}
        self._finished: list[RecoveredPart] = []

    def recover(self, older_than: timedelta | None, only: TransactionGid | None) -> RecoveryReport:
        # Before the prepared parts are listed: a transaction whose commit row is seen here had all
        # its parts prepared by then, so those that are not listed afterwards are finished.
        candidates = {} if only else self._of.cleaner.look_through(self._visits)
        self._listings = list_all(self._of, self._visits)
        if only is not None:
            self._listings = {n: found.only(only) for n, found in self._listings.items()}
        left = self._finish_all(older_than)
        removed = 0 if only else self._clean_up(candidates)
        markers_removed = 0 if only else self._remove_markers()
        return self._report(left, decisions_removed=removed, markers_removed=markers_removed)

    def resolve(
        self, gid: TransactionGid, listings: Mapping[str, Listing], outcome: Outcome
    ) -> RecoveryReport:
        self._listings = {name: found.only(gid) for name, found in listings.items()}
        self._finish(
            {
                name: [(part, outcome) for part in found.parts]
                for name, found in self._listings.items()
                if found.parts
            }
        )
        return self._report([])

    def _report(self, left: Sequence[PreparedPart], **removed: int) -> RecoveryReport:
        return RecoveryReport(
            finished=tuple(self._finished),
            in_doubt=transactions_of(left, self._of.identities),
            failures=self._failures,
            unreachable=self._visits.unreachable,
            not_understood=_not_understood(self._listings),
            oldest=self._oldest(left),
            **removed,
        )

    def _finish_all(self, older_than: timedelta | None) -> list[PreparedPart]:
        """Settle and finish what was listed; return the parts that stay in doubt."""
        parts = _parts(self._listings)
        due = [part for part in parts if is_due(part.age, older_than)]
        outcomes = settle_all(self._of, self._visits, list({part.gid.of: None for part in due}))
        settled: dict[str, list[Settled]] = {}
        for part in due:
            outcome = outcomes.get(part.gid.of, Outcome.UNKNOWN)
            if outcome is not Outcome.UNKNOWN:
                settled.setdefault(part.shard, []).append((part, outcome))
        self._finish(settled)
        decided = {part for each in settled.values() for part, _ in each}
        return [part for part in parts if part not in decided]

    def _finish(self, settled: Mapping[str, Sequence[Settled]]) -> None:
        """Commit and roll back, so many in a step that each shard gets on; tell the listeners."""
        left = {name: sorted(parts, key=owner_of) for name, parts in settled.items()}
        while left:
            work = {name: Finishing(self._listings[name].user, self._of.hooks) for name in left}
            done = self._visits.ask(
                {name: partial(self._step, work[name], left[name]) for name in left}
            )
            for name, finishing in work.items():
                self._note(finishing)
                if name in self._visits.unreachable:
                    self._note_unfinished(name, finishing, left[name])
            left = {name: rest for name in done if (rest := left[name][done[name] :])}

    def _step(
        self,
        finishing: Finishing,
        settled: Sequence[Settled],
        connection: psycopg.Connection[Any],
        identity: Identity,
    ) -> int:
        return finishing.run(connection, settled, seconds=self._of.step_seconds / 2)

    def _note(self, finishing: Finishing) -> None:
        for part, outcome in finishing.done:
            gid = str(part.gid.of)
            self._finished.append(RecoveredPart(gid, part.shard, outcome.value))
            self._of.hooks.publish(
                TransactionRecovered(self._of.cluster_name, gid, part.shard, outcome.value)
            )
        for part, error in finishing.failures.items():
            self._failures[str(part.gid), part.shard] = error

    def _note_unfinished(self, name: str, finishing: Finishing, parts: Sequence[Settled]) -> None:
        done = {part for part, _ in finishing.done}
        for part, _ in parts:
            if part not in done:
                self._failures.setdefault((str(part.gid), name), self._visits.unreachable[name])

    def _clean_up(self, candidates: Mapping[str, Sequence[DecisionRow]]) -> int:
        looked_at = {
            identity.shard_uuid
            for name in self._listings
            if (identity := self._of.identities.of(name)) is not None
        }
        # Also those that were just finished: the next recovery sees them gone.
        held = {str(part.gid.of) for part in _parts(self._listings)}
        return self._of.cleaner.remove(self._visits, candidates, looked_at=looked_at, held=held)

    def _remove_markers(self) -> int:
        names, seconds = self._of.shard_names, self._of.step_seconds / 2
        return remove_everywhere(names, self._visits, seconds=seconds)

    def _oldest(self, left: Sequence[PreparedPart]) -> dict[str, timedelta | None]:
        in_doubt, failed = set(left), {gid for gid, _ in self._failures}
        ages: dict[str, timedelta | None] = dict.fromkeys(self._listings)
        for part in _parts(self._listings):
            if part in in_doubt or str(part.gid) in failed:
                ages[part.shard] = max(part.age, ages[part.shard] or part.age)
        return ages


def list_all(of: Recovery, visits: Visits) -> dict[str, Listing]:
    """List what is prepared on every shard that answers."""
    return visits.ask({name: partial(_list, of=of, name=name) for name in of.shard_names})


def settle_all(
    of: Recovery, visits: Visits, gids: Sequence[TransactionGid]
) -> dict[TransactionGid, Outcome]:
    """Ask each decision shard about its transactions; those it does not answer for are missing."""
    by_shard: dict[str, list[TransactionGid]] = {}
    for gid in gids:
        name = of.identities.name_of(gid.decision_shard)
        if name is not None:
            by_shard.setdefault(name, []).append(gid)
    outcomes: dict[TransactionGid, Outcome] = {}
    for start in range(0, max(map(len, by_shard.values()), default=0), SETTLED_AT_ONCE):
        steps = {name: all_[start : start + SETTLED_AT_ONCE] for name, all_ in by_shard.items()}
        answers = visits.ask(
            {name: partial(_settle, of=of, gids=step) for name, step in steps.items() if step}
        )
        for answer in answers.values():
            outcomes.update(answer)
    return outcomes


def _transaction(gid: str) -> TransactionGid:
    part = parse(gid)
    transaction = parse_transaction(gid) if part is None else part.of
    if transaction is None:
        raise ConfigurationError(
            f"{gid!r} is no gid of a distributed transaction that this release can read",
            "pass it as the error or event carried it",
        )
    return transaction


def _only_verify(connection: psycopg.Connection[Any], identity: Identity) -> None:
    """Verified it is by being visited."""


def _list(
    connection: psycopg.Connection[Any], identity: Identity, *, of: Recovery, name: str
) -> Listing:
    of.hooks.reach(fail_points.BEFORE_LIST, name)
    listing = inventory.list_prepared(connection, name, identity)
    of.hooks.reach(fail_points.AFTER_LIST, name)
    return listing


def _settle(
    connection: psycopg.Connection[Any],
    identity: Identity,
    *,
    of: Recovery,
    gids: Sequence[TransactionGid],
) -> dict[TransactionGid, Outcome]:
    return settle_many(
        connection,
        gids,
        hooks=of.hooks,
        lock_seconds=min(of.lock_seconds, of.step_seconds / 4),
        seconds=of.step_seconds / 2,
    )


def _parts(listings: Mapping[str, Listing]) -> list[PreparedPart]:
    return [part for listing in listings.values() for part in listing.parts]


def _not_understood(listings: Mapping[str, Listing]) -> tuple[tuple[str, str], ...]:
    return tuple((name, gid) for name, found in listings.items() for gid in found.not_understood)
