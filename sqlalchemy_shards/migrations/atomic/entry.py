"""What a run of all shards or none writes into a shard's ledger.

- That it has begun stands there at once, like that of any run.
- That it is done is written in the transaction of the migrations: it is so when they are, be it
  recovery that finishes them, and as long as it is not known it says "running".
- What has certainly failed is written when it has. The ledger is history: what became of the
  migrations does not depend on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards.migrations.atomic.ending import Outcome
from sqlalchemy_shards.migrations.turns import ledger
from sqlalchemy_shards.migrations.turns.version_table import revisions_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.migrations.atomic.ending import Ending
    from sqlalchemy_shards.migrations.atomic.held import HeldShard
    from sqlalchemy_shards.migrations.turns.run import Task
    from sqlalchemy_shards.migrations.turns.turn import TurnOptions

# What is left prepared holds the row until recovery has finished it.
_NOT_FOR_LONG = "SET lock_timeout = '1s'"


class Entry:
    """A shard's row of the ledger, while the run is at work."""

    def __init__(self, held: HeldShard, task: Task, number: int, before: Sequence[str]) -> None:
        self._held = held
        self._task = task
        self._number = number
        self._before = before
        self._has_steps = False

    @classmethod
    def begin(cls, held: HeldShard, task: Task, run: UUID) -> Entry:
        """Write down that it begins, before the transaction of the migrations."""
        before = revisions_in(held.driver, task.options)
        beginning = ledger.Beginning(run, task.command, task.target, before)
        return cls(held, task, ledger.begin(held.driver, held.name, beginning), before)

    def done(self) -> None:
        """Write down, in the transaction of the migrations, that they are done."""
        self._has_steps = True
        after = revisions_in(self._held.driver, self._task.options)
        ledger.finish(self._held.driver, self._number, "done", after=after)

    def end(self, cluster: Cluster, ending: Ending, options: TurnOptions) -> None:
        """Write down what is not done, when it is known."""
        has_failed = ending.outcome is Outcome.NOTHING_MIGRATED
        if ending.outcome is Outcome.UNKNOWN or (self._has_steps and not has_failed):
            return
        shard = self._held.name
        try:
            with cluster.connect(shard) as driver:
                driver.execute(_NOT_FOR_LONG)
                if has_failed:
                    is_error = isinstance(ending.error, Exception)
                    outcome: ledger.Outcome = "failed" if is_error else "interrupted"
                    text = _told(ending, shard)
                    ledger.finish(driver, self._number, outcome, after=self._before, error=text)
                else:
                    ledger.finish_without_a_step(driver, self._number, self._before)
        except (psycopg.Error, DBAPIError) as error:
            options.tell(shard, 1, f"how it ended could not be written down ({error})")


def _told(ending: Ending, shard: str) -> str:
    why = "it was stopped" if ending.error is None else ledger.told(ending.error)
    if ending.shard in (None, shard):
        return why
    return f"rolled back with all others, because of shard {ending.shard}: {why}"
