"""Finishing what crashes left: every prepared part of our cluster, on every shard that answers.

- May run at any time, beside running transactions and other recoveries, any number of times: what
  it does is settled by the decision shard, and finishing twice finishes once.
- A transaction whose coordinator is just deciding stays as it is. One whose coordinator has not
  written its decision yet is aborted; ``older_than`` spares the young.
- A shard that does not answer is reported, and keeps in doubt only what it alone can decide.
- A decision row is removed only when nothing prepared can need it any more.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.catalog.identity import Identity, IdentityRegistry, read_identity
from sqlalchemy_shards.errors import ConfigurationError, ShardUnavailable
from sqlalchemy_shards.events import TransactionRecovered
from sqlalchemy_shards.transactions import fail_points, inventory, statements
from sqlalchemy_shards.transactions.finishing import UNREACHABLE, Finish, finish_prepared
from sqlalchemy_shards.transactions.gid import parse, parse_transaction
from sqlalchemy_shards.transactions.settle import LOCK_SECONDS, Outcome, settle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import psycopg

    from sqlalchemy_shards.events import Hooks
    from sqlalchemy_shards.transactions.acknowledged import Acknowledged
    from sqlalchemy_shards.transactions.finishing import Connect
    from sqlalchemy_shards.transactions.gid import TransactionGid
    from sqlalchemy_shards.transactions.inventory import Listing, PreparedPart

DECISION_RETENTION = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RecoveredPart:
    """A prepared part that recovery finished; ``outcome`` is "committed" or "aborted"."""

    gid: str
    shard: str
    outcome: str


@dataclass(frozen=True, slots=True)
class InDoubtTransaction:
    """A distributed transaction that is prepared somewhere.

    :param gid: of the transaction, as errors carry it and `outcome` takes it.
    :param decision_shard: name of the shard that decides it, or None where no shard of the cluster
        that answered is it.
    :param prepared: shards where a part of it is prepared.
    :param prepared_at: when the first of them was, by its server's clock.
    """

    gid: str
    decision_shard: str | None
    prepared: tuple[str, ...]
    prepared_at: datetime


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What a recovery did, and what it could not do.

    :param finished: parts that it committed or rolled back.
    :param in_doubt: transactions that stay prepared: being decided, too young, or their decision
        shard did not answer.
    :param failures: (gid, shard) -> why a part that is settled could not be finished.
    :param unreachable: shards that could not be looked at, and why.
    :param not_understood: gids of our cluster that this release cannot read, or that are prepared
        on a shard that they do not belong to; left alone.
    :param decisions_removed: rows of `shards.decisions` that nothing needs any more.
    """

    finished: tuple[RecoveredPart, ...] = ()
    in_doubt: tuple[InDoubtTransaction, ...] = ()
    failures: Mapping[tuple[str, str], BaseException] = field(default_factory=dict)
    unreachable: Mapping[str, BaseException] = field(default_factory=dict)
    not_understood: tuple[tuple[str, str], ...] = ()
    decisions_removed: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether every shard was looked at and nothing is left prepared."""
        return not (self.in_doubt or self.failures or self.unreachable or self.not_understood)


class Recovery:
    """Settles and finishes the distributed transactions of one cluster.

    :param cluster_name: shown in events.
    :param shard_names: all shards of the cluster.
    :param connect: gives a connection of its own to a shard.
    :param acknowledged: the coordinator's, whose waiting rows are removed too.
    :param decision_retention: how long a row of a committed transaction is kept at least, so that
        `outcome` can tell.
    :param lock_seconds: how long to wait for a coordinator that is just deciding.
    """

    def __init__(
        self,
        cluster_name: str,
        *,
        shard_names: Sequence[str],
        connect: Connect,
        identities: IdentityRegistry,
        hooks: Hooks,
        acknowledged: Acknowledged | None = None,
        decision_retention: timedelta = DECISION_RETENTION,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        self._cluster_name = cluster_name
        self._shard_names = tuple(shard_names)
        self._connect = connect
        self._identities = identities
        self._hooks = hooks
        self._acknowledged = acknowledged
        self._retention = decision_retention
        self._lock_seconds = lock_seconds

    def recover(self, older_than: timedelta | None = None) -> RecoveryReport:
        """Finish everything that can be settled; shards that do not answer are in the report.

        :param older_than: leave alone what was prepared more recently.
        """
        with ExitStack() as stack:
            return _Run(self, stack).recover(older_than)

    def in_doubt(self) -> list[InDoubtTransaction]:
        """Return the distributed transactions that are prepared somewhere; changes nothing.

        :raises ShardUnavailable: a shard does not answer, so that the list would not be whole.
        """
        with ExitStack() as stack:
            run = _Run(self, stack)
            run.look()
            if run.unreachable:
                shard, error = next(iter(run.unreachable.items()))
                raise ShardUnavailable(
                    f"shard {shard!r} could not be looked at for prepared transactions",
                    "see .shard_errors; cluster.recover() works on the shards that answer",
                    shard=shard,
                    shard_errors=run.unreachable,
                ) from error
            return run.in_doubt(run.parts)

    def outcome(self, gid: str) -> Outcome:
        """Return what became of a distributed transaction, and settle it if that is still open.

        Reliable for a gid that a `TransactionInDoubt` error carried, for ``decision_retention``.
        Of a transaction that was finished everywhere nothing is kept: it is taken for aborted.

        :param gid: as the error or event carried it, or as a server lists it.
        :returns: UNKNOWN where the decision shard does not answer, or it is still being decided.
        :raises ConfigurationError: it is no gid in a form that this release can read.
        """
        part = parse(gid)
        transaction = parse_transaction(gid) if part is None else part.of
        if transaction is None:
            raise ConfigurationError(
                f"{gid!r} is no gid of a distributed transaction that this release can read",
                "pass it as the error or event carried it",
            )
        with ExitStack() as stack:
            return _Run(self, stack).settle(transaction)


class _Run:
    """One recovery: connections are opened once per shard, and given back with ``stack``."""

    def __init__(self, recovery: Recovery, stack: ExitStack) -> None:
        self._of = recovery
        self._stack = stack
        self._connections: dict[str, psycopg.Connection[Any]] = {}
        self.unreachable: dict[str, BaseException] = {}
        self.parts: list[PreparedPart] = []
        self._listings: dict[str, Listing] = {}
        self._failures: dict[tuple[str, str], BaseException] = {}
        self._finished: list[RecoveredPart] = []

    def recover(self, older_than: timedelta | None) -> RecoveryReport:
        for name in self._of._shard_names:
            self._verified(name)
        # Before the prepared parts are listed: a transaction whose commit row is seen here had all
        # its parts prepared by then, so those that are not listed afterwards are finished.
        candidates = self._guarded_each(self._expired)
        self.look()
        left = self._finish_all(older_than)
        removed = self._clean_up(candidates)
        return RecoveryReport(
            finished=tuple(self._finished),
            in_doubt=tuple(self.in_doubt(left)),
            failures=self._failures,
            unreachable=self.unreachable,
            not_understood=tuple(
                (shard, gid)
                for shard, listing in self._listings.items()
                for gid in listing.not_understood
            ),
            decisions_removed=removed,
        )

    def look(self) -> None:
        """List the prepared parts of our cluster on every shard that answers."""
        for name in self._of._shard_names:
            identity = self._verified(name)
            if identity is None:
                continue
            try:
                listing = inventory.list_prepared(self._connections[name], name, identity)
            except UNREACHABLE as error:
                self._drop(name, error)
                continue
            self._listings[name] = listing
            self.parts += listing.parts

    def in_doubt(self, parts: Sequence[PreparedPart]) -> list[InDoubtTransaction]:
        by_transaction: dict[TransactionGid, list[PreparedPart]] = {}
        for part in parts:
            by_transaction.setdefault(part.gid.of, []).append(part)
        return [
            InDoubtTransaction(
                str(gid),
                self._of._identities.name_of(gid.decision_shard),
                tuple(part.shard for part in same),
                min(part.prepared_at for part in same),
            )
            for gid, same in by_transaction.items()
        ]

    def settle(self, gid: TransactionGid) -> Outcome:
        """Ask the decision shard; UNKNOWN where it does not answer."""
        shard = self._of._identities.name_of(gid.decision_shard)
        if shard is None:
            for name in self._of._shard_names:
                self._verified(name)
            shard = self._of._identities.name_of(gid.decision_shard)
        if shard is None or self._verified(shard) is None:
            return Outcome.UNKNOWN
        try:
            return settle(
                self._connections[shard],
                gid,
                hooks=self._of._hooks,
                lock_seconds=self._of._lock_seconds,
            )
        except UNREACHABLE as error:
            self._drop(shard, error)
            return Outcome.UNKNOWN

    def _finish_all(self, older_than: timedelta | None) -> list[PreparedPart]:
        """Settle and finish what was listed; return the parts that stay prepared."""
        outcomes: dict[TransactionGid, Outcome] = {}
        left = []
        for part in self.parts:
            if older_than is not None and part.age < older_than:
                left.append(part)
                continue
            if part.gid.of not in outcomes:
                outcomes[part.gid.of] = self.settle(part.gid.of)
            outcome = outcomes[part.gid.of]
            if outcome is Outcome.UNKNOWN:
                left.append(part)
            else:
                self._finish(part, outcome)
        return left

    def _finish(self, part: PreparedPart, outcome: Outcome) -> None:
        hooks = self._of._hooks
        commits = outcome is Outcome.COMMITTED
        verb = statements.COMMIT_PREPARED if commits else statements.ROLLBACK_PREPARED
        if self._verified(part.shard) is None:
            self._failures[str(part.gid), part.shard] = self.unreachable[part.shard]
            return
        hooks.reach(fail_points.BEFORE_FINISH)
        try:
            finish = finish_prepared(self._connections[part.shard], verb, part.gid)
        except UNREACHABLE as error:
            self._failures[str(part.gid), part.shard] = error
            if self._connections[part.shard].closed:
                self._drop(part.shard, error)
            return
        hooks.reach(fail_points.AFTER_FINISH)
        # Gone: the coordinator or another recovery finished it, and is the one to say so.
        if finish is Finish.DONE:
            gid = str(part.gid.of)
            self._finished.append(RecoveredPart(gid, part.shard, outcome.value))
            hooks.publish(
                TransactionRecovered(self._of._cluster_name, gid, part.shard, outcome.value)
            )

    def _clean_up(self, candidates: Mapping[str, Sequence[inventory.ExpiredDecision]]) -> int:
        self._of._hooks.reach(fail_points.BEFORE_CLEAN_UP)
        looked_at = {
            identity.shard_uuid
            for name in self._listings
            if (identity := self._of._identities.of(name)) is not None
        }
        # Also those that were just finished: the next recovery sees them gone.
        held = {str(part.gid.of) for part in self.parts}
        removed = 0
        for name, rows in candidates.items():
            gids = [r.gid for r in rows if r.gid not in held and looked_at.issuperset(r.needs)]
            if self._of._acknowledged is not None:
                gids += self._of._acknowledged.take(name)
            try:
                removed += inventory.remove_decisions(self._connections[name], gids)
            except UNREACHABLE as error:
                self._drop(name, error)
        self._of._hooks.reach(fail_points.AFTER_CLEAN_UP)
        return removed

    def _expired(self, name: str) -> Sequence[inventory.ExpiredDecision]:
        return inventory.expired_decisions(self._connections[name], self._of._retention)

    def _guarded_each(self, work: Any) -> dict[str, Sequence[inventory.ExpiredDecision]]:
        done = {}
        for name in self._of._shard_names:
            if name in self._connections:
                try:
                    done[name] = work(name)
                except UNREACHABLE as error:
                    self._drop(name, error)
        return done

    def _verified(self, name: str) -> Identity | None:
        """Return who the shard is, connected to its primary, or None where it does not answer."""
        if name in self.unreachable:
            return None
        if name in self._connections:
            return self._of._identities.of(name)
        try:
            connection = self._stack.enter_context(self._of._connect(name))
            identity = read_identity(connection)
            inventory.check_primary(connection, name, identity)
            if identity is not None:
                self._of._identities.admit(name, identity)
        except UNREACHABLE as error:
            self.unreachable[name] = error
            return None
        self._connections[name] = connection
        return identity

    def _drop(self, name: str, error: BaseException) -> None:
        self.unreachable[name] = error
        self._connections.pop(name, None)
