"""Making snapshots of several shards show the same: what to do next, as pure decisions.

Invariants, by which the edge (`cluster.consistent`) may say that it is done:

1. Every ordered pair of shards has been compared with the very snapshots that are kept: a pair is
   compared again if either of the two was taken anew.
2. No comparison of a pair of kept snapshots has found a lag.

A lag goes away by taking the lagging snapshot anew, once the transaction is finished there: that is
waited for, and the coordinator's work is done in its place where it takes too long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

QUICK_ATTEMPTS: Final = 4
"""How often snapshots are taken without a pause: a commit is finished within about as much."""

PAUSE_SECONDS_FIRST: Final = 0.001
PAUSE_SECONDS_MAX: Final = 0.05

HELP_SECONDS: Final = 0.25
"""How long one transaction may lag before it is finished from here."""

ONLY_LAGGING_ATTEMPTS: Final = 1
"""After how many attempts only the snapshots that lag are taken anew. Then all are: what commits in
the meantime makes those that were kept lag, and with pauses this need not end."""


class Lag(NamedTuple):
    """A shard's snapshot does not show what another shard's snapshot shows.

    :param gid: of the transaction; None: the snapshot is too old to tell.
    """

    shard: str
    gid: str | None


@dataclass(slots=True)
class Watch:
    """For how long transactions have been lagging, during one consistent read.

    :param since: gid -> when it was first found.
    :param helped: those that were to be finished from here.
    """

    since: dict[str, float] = field(default_factory=dict)
    helped: set[str] = field(default_factory=set)

    def overdue(self, lags: Collection[Lag], now: float) -> list[str]:
        """Return the gids of transactions to finish from here, each once only.

        :param lags: what was found now; those that are gone are forgotten.
        :param now: seconds, by a clock that only goes forward.
        """
        gids = {lag.gid for lag in lags if lag.gid is not None}
        self.since = {gid: self.since.get(gid, now) for gid in gids}
        due = {gid for gid, first in self.since.items() if now - first >= HELP_SECONDS}
        due -= self.helped
        self.helped |= due
        return sorted(due)


def comparisons(
    shards: Sequence[str], taken_anew: Collection[str]
) -> Mapping[str, tuple[str, ...]]:
    """Return for each shard the peers whose snapshots it must be asked about.

    >>> comparisons(["a", "b", "c"], ["b"])
    {'a': ('b',), 'b': ('a', 'c'), 'c': ('b',)}
    """
    return {
        shard: peers
        for shard in shards
        if (
            peers := tuple(
                each
                for each in shards
                if each != shard and (shard in taken_anew or each in taken_anew)
            )
        )
    }


def to_take_anew(shards: Sequence[str], lags: Collection[Lag], attempt: int) -> tuple[str, ...]:
    """Return whose snapshots to take anew after an attempt.

    >>> to_take_anew(["a", "b", "c"], [Lag("b", "g"), Lag("b", "h")], 1)
    ('b',)
    """
    if attempt > ONLY_LAGGING_ATTEMPTS:
        return tuple(shards)
    lagging = {lag.shard for lag in lags}
    return tuple(shard for shard in shards if shard in lagging)


def pause_seconds(attempt: int) -> float:
    """Return how long to wait after an attempt, the first of which is 1.

    >>> [pause_seconds(attempt) for attempt in (1, 4, 5, 6, 100)]
    [0.0, 0.0, 0.001, 0.002, 0.05]
    """
    if attempt <= QUICK_ATTEMPTS:
        return 0.0
    doubled = PAUSE_SECONDS_FIRST * 2.0 ** min(attempt - QUICK_ATTEMPTS - 1, 16)
    return min(doubled, PAUSE_SECONDS_MAX)
