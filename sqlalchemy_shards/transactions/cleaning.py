"""Removing rows of `shards.decisions` that nothing needs any more, on all shards at once.

- Which may go is decided in `protocol.cleaning`.
- Bounded, however large a table is: a run looks through so many rows, along the primary key, and
  the next run goes on behind them.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.transactions import fail_points, inventory
from sqlalchemy_shards.transactions.protocol.cleaning import may_go

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import timedelta
    from uuid import UUID

    import psycopg

    from sqlalchemy_shards.catalog.identity import Identity
    from sqlalchemy_shards.events import Hooks
    from sqlalchemy_shards.transactions.acknowledged import Acknowledged
    from sqlalchemy_shards.transactions.inventory import DecisionsPage
    from sqlalchemy_shards.transactions.protocol.cleaning import DecisionRow
    from sqlalchemy_shards.transactions.visits import Visits

ROWS_AT_ONCE: Final = 1000
"""How many rows one statement looks through, or removes."""

ROWS_PER_RUN: Final = 20_000
"""How many rows of a shard one run looks through."""

SECONDS: Final = 2.0
"""After which a run looks through no more rows."""


class DecisionCleaner:
    """Looks through the decision rows of a cluster's shards, and removes those that may go.

    :param acknowledged: the coordinator's, whose waiting rows are removed too.
    :param retention: how long a row of a committed transaction is kept at least.
    """

    def __init__(
        self,
        shard_names: Sequence[str],
        *,
        hooks: Hooks,
        acknowledged: Acknowledged | None,
        retention: timedelta,
    ) -> None:
        self._shard_names = tuple(shard_names)
        self._hooks = hooks
        self._acknowledged = acknowledged
        self._retention = retention
        # Shard -> the gid behind which the next run goes on. Two runs at once may look at the same
        # rows, which costs time and nothing else.
        self._behind: dict[str, str] = {}

    def look_through(self, visits: Visits) -> dict[str, list[DecisionRow]]:
        """Return rows that may go, as far as their shards can tell."""
        candidates: dict[str, list[DecisionRow]] = {name: [] for name in self._shard_names}
        unread = list(self._shard_names)
        deadline = time.monotonic() + SECONDS
        for _ in range(ROWS_PER_RUN // ROWS_AT_ONCE):
            pages = visits.ask({name: partial(self._page, name) for name in unread})
            for name, page in pages.items():
                candidates[name] += page.expired
                self._behind[name] = page.last
            unread = [name for name, page in pages.items() if page.last]
            if not unread or time.monotonic() >= deadline:
                break
        return {name: rows for name, rows in candidates.items() if name not in visits.unreachable}

    def remove(
        self,
        visits: Visits,
        candidates: Mapping[str, Sequence[DecisionRow]],
        *,
        looked_at: AbstractSet[UUID],
        held: AbstractSet[str],
    ) -> int:
        """Remove what may go; return how many rows there were.

        :param looked_at: shards that were listed after the candidates were seen.
        :param held: transactions of which a part was listed there.
        """
        self._hooks.reach(fail_points.BEFORE_CLEAN_UP)
        work = {}
        for name, rows in candidates.items():
            gids = [row.gid for row in rows if may_go(row, looked_at=looked_at, held=held)]
            if self._acknowledged is not None:
                gids += self._acknowledged.take(name)
            if gids:
                work[name] = partial(_remove, gids=gids)
        removed = visits.ask(work)
        self._hooks.reach(fail_points.AFTER_CLEAN_UP)
        return sum(removed.values())

    def _page(
        self, name: str, connection: psycopg.Connection[Any], identity: Identity
    ) -> DecisionsPage:
        after = self._behind.get(name, "")
        return inventory.decisions_page(connection, self._retention, after=after, rows=ROWS_AT_ONCE)


def _remove(connection: psycopg.Connection[Any], identity: Identity, *, gids: Sequence[str]) -> int:
    return sum(
        inventory.remove_decisions(connection, gids[start : start + ROWS_AT_ONCE])
        for start in range(0, len(gids), ROWS_AT_ONCE)
    )
