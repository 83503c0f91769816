"""All shards or none: the migrations of several shards as one distributed transaction.

The shards have their turns one after the other, each over a connection that the cluster connection
has enlisted; when the last one is done, the cluster connection commits them all, as it commits
every transaction over several shards (`transactions`).

Invariants:

- Nothing is committed on any shard before every shard's migrations have run.
- Whatever is raised until then means that every shard is where it was; `AtomicRun.ending` tells
  what is true after the commit was begun.
- One connection to each shard, all of them until the end.
- Where a lock is not to be had, all shards are rolled back, and all are begun again after a pause,
  over new sessions: nobody waits behind the run meanwhile.
"""

from __future__ import annotations

import random
from contextlib import contextmanager, suppress
from itertools import count
from threading import get_ident
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy.exc import DBAPIError, StatementError

from sqlalchemy_shards.connections.event_loop import sleep
from sqlalchemy_shards.errors import (
    MigrationBlocked,
    TransactionOutcomeUnknown,
    TransactionUnfinished,
)
from sqlalchemy_shards.events import CommitUnfinished, DistributedCommit
from sqlalchemy_shards.migrations.atomic.ending import Ending, Outcome
from sqlalchemy_shards.migrations.atomic.entry import Entry
from sqlalchemy_shards.migrations.atomic.failing import loss, refusal
from sqlalchemy_shards.migrations.atomic.held import HeldShard, Refusal
from sqlalchemy_shards.migrations.turns.bounds import pause_seconds
from sqlalchemy_shards.migrations.turns.ledger import told
from sqlalchemy_shards.migrations.turns.lock import wait_for_lock
from sqlalchemy_shards.migrations.turns.origin import revision_in
from sqlalchemy_shards.migrations.turns.run import Turn
from sqlalchemy_shards.migrations.turns.settings import bystanders, give_settings
from sqlalchemy_shards.migrations.turns.turn import (
    BLOCKED_ADVICE,
    TurnOptions,
    is_blocked,
    prepare_ledger,
    times,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from sqlalchemy import RootTransaction

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.errors import ShardsError
    from sqlalchemy_shards.events import Hooks
    from sqlalchemy_shards.migrations.turns.run import Task


class AtomicRun:
    """Goes through shards, and commits on all of them or on none.

    :param shards: their names, in their order.
    :param options: by whom.
    """

    def __init__(self, shards: Sequence[str], options: TurnOptions | None = None) -> None:
        self._shards = shards
        self._options = options or TurnOptions()
        self._entries: list[Entry] = []
        self._migrated: list[str] = []
        self._attempt = 0
        self._is_to_go_on = False
        self._thread = 0
        self.ending = Ending(Outcome.NOTHING_MIGRATED)
        """How it has ended; what is true of the shards now."""

    def turns(self, cluster: Cluster, task: Task) -> Iterator[AbstractContextManager[Turn]]:
        """Give the shards their turns, and commit when the last one is over.

        They have their turns again where all were rolled back because of a lock.
        """
        for self._attempt in count(1):
            self._is_to_go_on = False
            self._migrated.clear()
            try:
                yield from self._try(cluster, task)
            finally:
                # With the sessions go their locks, and what migrations have set for them.
                cluster.close_pools()
                while self._entries:
                    self._entries.pop().end(cluster, self.ending, self._options)
            if not self._is_to_go_on:
                return
            self.ending = Ending(Outcome.NOTHING_MIGRATED)
            sleep(pause_seconds(self._attempt, random.random()))

    def _try(self, cluster: Cluster, task: Task) -> Iterator[AbstractContextManager[Turn]]:
        with cluster.engine.connect() as connection:
            all_shards: Any = connection.connection.driver_connection
            with connection.begin() as transaction:
                for shard in self._shards:
                    yield self._turn(task, all_shards, shard)
                    if self._is_to_go_on:
                        transaction.rollback()
                        return
                self._commit(transaction, cluster.hooks)
            if all_shards.unfinished is not None:
                raise all_shards.unfinished

    # -- a turn --

    @contextmanager
    def _turn(self, task: Task, all_shards: ClusterConnection, shard: str) -> Iterator[Turn]:
        cluster, steps = all_shards.cluster, _Steps()
        try:
            steps.held = held = HeldShard(all_shards, cluster.shards[shard])
            entry = self._begin(cluster, task, held)
            with held.watched():
                options = {"on_version_apply": steps.note}
                yield Turn(shard, held.connection, options, _without_autocommit_block)
            if steps.count:
                entry.done()
                self._migrated.append(shard)
        except BaseException as error:
            revision = steps.looked_at or revision_in(error.__traceback__)
            refused: ShardsError | None = refusal(error, shard, revision)
            refused = refused or loss(error, cluster.shards[shard])
            if is_blocked(error) and steps.held is not None:
                refused = self._blocked(error, steps.held, task, revision)
            self.ending = Ending(
                Outcome.NOTHING_MIGRATED, shard=shard, revision=revision, error=refused or error
            )
            if self._is_to_go_on:
                return
            if refused is not None:
                raise refused from error
            if isinstance(error, StatementError):
                error.add_detail(f"revision: {revision}, shard: {shard}; nothing was migrated")
            raise

    def _begin(self, cluster: Cluster, task: Task, held: HeldShard) -> Entry:
        """What comes before the transaction: the session alone on the shard, and in the ledger."""
        options, bounds = self._options, self._options.bounds.or_else(task.bounds)
        give_settings(held.driver, bounds, task.command)
        wait_for_lock(
            held.driver,
            held.name,
            bounds.runner_seconds,
            lambda reason: options.tell(held.name, 1, reason),
        )
        prepare_ledger(cluster, held.driver, held.name)
        entry = Entry.begin(held, task, options.run)
        self._entries.append(entry)
        held.begin()
        return entry

    def _blocked(
        self, error: BaseException, held: HeldShard, task: Task, revision: str | None
    ) -> MigrationBlocked | None:
        """Whether to begin again, and else what to raise, where a lock was not to be had."""
        if held.driver.closed:
            return None
        tries, found = self._options.bounds.or_else(task.bounds).tries, ""
        with suppress(psycopg.Error):
            held.driver.rollback()  # so are all others, soon
            found = bystanders(held.driver)
        if self._attempt < tries:
            reason = f"{told(error)}; all shards are rolled back, and tried again"
            self._options.tell(
                held.name, self._attempt, f"{reason} ({self._attempt} of {tries}){found}"
            )
            self._is_to_go_on = True
            return None
        within = "" if revision is None else f" in revision {revision!r}"
        return MigrationBlocked(
            f"shard {held.name!r} could not be migrated: a lock was not to be had{within}, tried"
            f" {times(tries)}; every shard is where it was{found}",
            BLOCKED_ADVICE,
            shard=held.name,
        )

    # -- the end --

    def _commit(self, transaction: RootTransaction, hooks: Hooks) -> None:
        self._thread = get_ident()
        hooks.listen(DistributedCommit, self._note_commit)
        hooks.listen(CommitUnfinished, self._note_unfinished)
        try:
            transaction.commit()
        except BaseException as error:
            if self.ending.outcome is Outcome.NOTHING_MIGRATED:
                self.ending = self._failed(error)
            raise
        finally:
            hooks.unlisten(DistributedCommit, self._note_commit)
            hooks.unlisten(CommitUnfinished, self._note_unfinished)
        if self.ending.outcome is Outcome.NOTHING_MIGRATED:
            done = Outcome.MIGRATED if self._migrated else Outcome.NOTHING_DUE
            self.ending = Ending(done, tuple(self._migrated))

    def _note_commit(self, commit: DistributedCommit) -> None:
        if get_ident() == self._thread:  # others commit other things
            self.ending = Ending(Outcome.MIGRATED, tuple(self._migrated), gid=commit.gid)

    def _note_unfinished(self, commit: CommitUnfinished) -> None:
        if get_ident() == self._thread:
            self.ending = Ending(
                Outcome.UNFINISHED,
                tuple(self._migrated),
                unfinished=commit.unfinished,
                gid=commit.gid,
            )

    def _failed(self, error: BaseException) -> Ending:
        unknown = error if _is_unknown(error) else error.__cause__
        if unknown is not None and _is_unknown(unknown):
            gid = getattr(unknown, "gid", None)
            return Ending(Outcome.UNKNOWN, tuple(self._migrated), gid=gid, error=error)
        shard = getattr(error, "shard", None)
        return Ending(Outcome.NOTHING_MIGRATED, shard=shard, error=error)


class _Steps:
    """The steps of one shard: each is looked at when it is done."""

    def __init__(self) -> None:
        self.held: HeldShard | None = None
        self.count = 0
        self.looked_at: str | None = None

    def note(self, *, step: MigrationInfo, **_: Any) -> None:
        """Look at what a step has left."""
        assert self.held is not None
        self.count += 1
        self.looked_at = step.up_revision_id
        self.held.check_step()
        self.looked_at = None


def _without_autocommit_block(context: MigrationContext) -> bool:
    """Refuse from now on what commits before it begins."""
    context.autocommit_block = _refuse_autocommit_block  # type: ignore[method-assign]
    return True


def _refuse_autocommit_block() -> Any:
    raise Refusal(
        "autocommit_block() commits on one shard what the others have not done yet",
        "take this revision in a run of its own, without --atomic",
    )


def _is_unknown(error: BaseException) -> bool:
    """Whether a commit that raised this may have been carried out."""
    if isinstance(error, DBAPIError):
        # The only participant, whose answer was lost: as with one PostgreSQL.
        return error.connection_invalidated
    return isinstance(error, TransactionOutcomeUnknown | TransactionUnfinished)
