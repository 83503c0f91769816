"""What recovery tells: what it did, what stays in doubt, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from sqlalchemy_shards.catalog.identity import IdentityRegistry
    from sqlalchemy_shards.transactions.gid import TransactionGid
    from sqlalchemy_shards.transactions.inventory import ForeignPrepared, PreparedPart


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
    :param age: how long ago that was, by that clock.
    """

    gid: str
    decision_shard: str | None
    prepared: tuple[str, ...]
    prepared_at: datetime
    age: timedelta = timedelta(0)


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
    :param markers_removed: rows of `shards.markers` that no consistent read needs any more.
    :param oldest: shard that was looked at -> age of its oldest part that stays prepared, or None.
    """

    finished: tuple[RecoveredPart, ...] = ()
    in_doubt: tuple[InDoubtTransaction, ...] = ()
    failures: Mapping[tuple[str, str], BaseException] = field(default_factory=dict)
    unreachable: Mapping[str, BaseException] = field(default_factory=dict)
    not_understood: tuple[tuple[str, str], ...] = ()
    decisions_removed: int = 0
    markers_removed: int = 0
    oldest: Mapping[str, timedelta | None] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Whether every shard was looked at and nothing is left prepared."""
        return not (self.in_doubt or self.failures or self.unreachable or self.not_understood)


@dataclass(frozen=True, slots=True)
class TransactionGauges:
    """What recovery knows, for a monitoring system: of its latest run, and since the start.

    :param at: when the latest run ended; None: there was none in this process.
    :param in_doubt: distributed transactions that stayed prepared in that run.
    :param oldest_seconds: shard that answered in it -> age of the oldest part of ours that stayed
        prepared there, 0.0 where there was none.
    :param failed: parts that are settled and could not be finished in it.
    :param unreachable: shards that did not answer in it.
    :param recovered: parts that were finished since the start of this process.
    :param decisions_removed: rows of `shards.decisions` that were removed since then.
    :param runs: how often recovery ran since then.
    """

    at: datetime | None = None
    in_doubt: int = 0
    oldest_seconds: Mapping[str, float] = field(default_factory=dict)
    failed: int = 0
    unreachable: tuple[str, ...] = ()
    recovered: int = 0
    decisions_removed: int = 0
    runs: int = 0

    def after(self, report: RecoveryReport, at: datetime) -> TransactionGauges:
        """Return what they are after another run."""
        return TransactionGauges(
            at=at,
            in_doubt=len(report.in_doubt),
            oldest_seconds={
                shard: age.total_seconds() if age else 0.0 for shard, age in report.oldest.items()
            },
            failed=len(report.failures),
            unreachable=tuple(report.unreachable),
            recovered=self.recovered + len(report.finished),
            decisions_removed=self.decisions_removed + report.decisions_removed,
            runs=self.runs + 1,
        )


@dataclass(frozen=True, slots=True)
class Survey:
    """What is prepared on the shards that answered; nothing was changed.

    :param in_doubt: transactions of this cluster, the oldest first.
    :param not_understood: (shard, gid), as in `RecoveryReport`.
    :param foreign: what somebody else has prepared in the shards' databases; it holds locks, too.
    :param unreachable: shards that could not be looked at, and why.
    """

    in_doubt: tuple[InDoubtTransaction, ...]
    not_understood: tuple[tuple[str, str], ...]
    foreign: tuple[tuple[str, ForeignPrepared], ...]
    unreachable: Mapping[str, BaseException]


def transactions_of(
    parts: Iterable[PreparedPart], identities: IdentityRegistry
) -> tuple[InDoubtTransaction, ...]:
    """Put the prepared parts of each transaction together; the oldest transaction comes first."""
    by_transaction: dict[TransactionGid, list[PreparedPart]] = {}
    for part in parts:
        by_transaction.setdefault(part.gid.of, []).append(part)
    found = [
        InDoubtTransaction(
            str(gid),
            identities.name_of(gid.decision_shard),
            tuple(part.shard for part in same),
            min(part.prepared_at for part in same),
            max(part.age for part in same),
        )
        for gid, same in by_transaction.items()
    ]
    return tuple(sorted(found, key=lambda transaction: transaction.prepared_at))
