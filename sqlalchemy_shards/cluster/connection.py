"""The cluster connection: the DBAPI connection that SQLAlchemy sees, and that is the whole cluster.

It holds no server of its own. A shard is *enlisted* when a statement first goes there: a connection
is taken from the shard's pool, given the attributes that were set here, and told every savepoint
and setting of the transaction. At commit, rollback and close all of them go back.

Invariants:

- After an error on one shard every statement is refused until ``rollback()``, or until a savepoint
  from before the error is rolled back to: as on one PostgreSQL.
- What was set for the transaction holds on a shard before anything else runs there.
- No shard's connection goes back to its pool within a transaction.
- After a fork nothing is sent on the parent's connections, whose transaction goes on there.
- Used by one thread at a time, as SQLAlchemy uses its connections.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.errors import InFailedSqlTransaction
from psycopg.rows import scalar_row

from sqlalchemy_shards.connections.fan_out import Branch, run_branch
from sqlalchemy_shards.connections.greenlets import current_branch
from sqlalchemy_shards.errors import (
    ConfigurationError,
    ScatterNotAllowed,
    ShardUnavailable,
    UnknownShard,
    UnsupportedStatement,
)
from sqlalchemy_shards.transactions.snapshots import LEVEL

from .copying.failures import used_while_copying
from .cursor import ClusterCursor
from .dispatch.inserted import InsertedRows
from .enlistment.consistent import check_can_begin, check_is_among, take_snapshots
from .enlistment.early_xid import run_beside, shard_to_ask
from .enlistment.enlisted import EnlistedShard
from .enlistment.transaction_log import TransactionLog
from .explain.observing import CONNECT, observed
from .gather.estimates import expected_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy_shards.connections.fan_out import Outcome
    from sqlalchemy_shards.errors import TransactionUnfinished
    from sqlalchemy_shards.planning.parts import Gathering, Question
    from sqlalchemy_shards.routing.router import Locator, Territory

    from .cluster import Cluster
    from .dispatch.work import Work
    from .enlistment.transaction_log import Told
    from .explain.observing import Observer


class ClusterConnection:
    """All shards of a cluster as one DBAPI connection."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.plans = cluster.plans
        self.dialect = cluster.dialect
        self.facts = cluster.catalog
        self.scatter = cluster.scatter
        self.gather_limit = cluster.gather_limit
        self.ask = cluster.workspace.ask
        self.enlisted: dict[str, EnlistedShard] = {}
        self.locator: Locator | None = None
        self.inserted = InsertedRows()
        self.unfinished: TransactionUnfinished | None = None
        """What the last commit left to recovery, where that is to be raised."""
        self.observer: Observer | None = None
        """Told of each decision before it is performed, and of each step."""
        self.streams: set[ClusterCursor] = set()
        """The server-side cursors that are open: they end with the transaction."""
        self.closed = False
        self.is_copying = False
        """Rows are being copied into shards, whose connections can do nothing else meanwhile."""
        self.lost_shard: str | None = None
        """The shard whose connection was lost within this transaction."""
        self.failed_shard: str | None = None
        """The shard on which a statement failed within this transaction."""
        self._characteristics: dict[str, Any] = {}
        self._log = TransactionLog()
        self._began_at: datetime | None = None
        self._consistent: frozenset[str] | None = None
        """The shards whose snapshots were made to show the same."""
        self._pid = os.getpid()

    @property
    def territory(self) -> Territory:
        """The shards and their map, as they are now."""
        return self.cluster.territory

    @property
    def rows_worth_waiting(self) -> int:
        """How many rows a shard must expect to ship to be given keys first."""
        return self.cluster.rows_worth_waiting

    # -- shards --

    def shard(self, name: str) -> psycopg.Connection[Any]:
        """That shard's driver connection in this transaction; what it does is not looked at.

        :raises UnknownShard: the cluster has no such shard.
        :raises ScatterNotAllowed: it might write on a second shard, and that is refused.
        """
        self.check_usable()
        enlisted = self.enlist(name)
        self.check_write([name])
        enlisted.note_unread()
        return enlisted.driver

    def enlist(self, name: str) -> EnlistedShard:
        """Let a shard take part in the transaction, if it does not yet.

        :raises UnknownShard: the cluster has no such shard.
        :raises ShardUnavailable: it cannot be reached.
        """
        enlisted = self.enlisted.get(name)
        if enlisted is not None:
            return enlisted
        self._check_open()
        shard = self.cluster.shards.get(name)
        if shard is None:
            raise UnknownShard(
                f"the cluster has no shard {name!r}",
                f"name one of {', '.join(map(repr, self.cluster.shards))}",
                shard=name,
            )
        characteristics = self._characteristics
        if self._consistent is not None:
            check_is_among(name, self._consistent)
            characteristics = {**characteristics, "isolation_level": LEVEL}
        enlisted = observed(
            self.observer,
            CONNECT,
            name,
            lambda: EnlistedShard(shard, shard.acquire(), characteristics),
        )
        self.enlisted[name] = enlisted
        self._tell(enlisted)
        return enlisted

    def _tell(self, enlisted: EnlistedShard) -> None:
        try:
            for told in self._log:
                enlisted.driver.execute(told.sql, told.parameters)
        except BaseException as error:
            # Nothing may run there without the settings that were not made any more.
            self.note_error(enlisted.name, error, is_shared=True)
            raise

    def begin_consistent(self, shards: Iterable[str] | None = None) -> None:
        """Let the shards take part with snapshots that show the same transactions.

        Every distributed transaction is seen wholly or not at all, until this one ends. Statements
        on other shards are refused. It must be the first thing in the transaction.

        :param shards: None: all of the cluster.
        :raises SnapshotsDiffer: the snapshots did not come to show the same in time.
        """
        self.check_usable()
        names = tuple(dict.fromkeys(self.cluster.shards if shards is None else shards))
        check_can_begin(self, names)
        self._consistent = frozenset(names)
        try:
            if len(names) > 1:
                take_snapshots(self, names)
            else:
                self.enlist(names[0])
        except BaseException:
            self.failed_shard = self.failed_shard or names[0]
            raise

    @property
    def is_untold(self) -> bool:
        """Whether nothing was set for the transaction, and no savepoint is open."""
        return not any(True for _ in self._log)

    def begin_again(self, enlisted: EnlistedShard) -> None:
        """End a shard's transaction and begin another, with what was set for it."""
        enlisted.driver.rollback()
        enlisted.xid = None
        self._tell(enlisted)

    def settings(self) -> Iterator[Told]:
        """What statements of the transaction depend on, in the order in which it was set."""
        return (told for told in self._log if told.is_for_statements)

    def began_at(self, shard: str | None = None) -> datetime:
        """What ``now()`` gives; ``shard`` is asked where none takes part in the transaction."""
        if self._began_at is None or self.autocommit:
            enlisted = next(iter(self.enlisted.values()), None)
            enlisted = enlisted or self.enlist(shard or self.cluster.global_shard)
            with enlisted.driver.cursor(row_factory=scalar_row) as cursor:
                self._began_at = cursor.execute("SELECT pg_catalog.now()").fetchone()
        assert self._began_at is not None
        return self._began_at

    def expected_rows(
        self,
        gathering: Gathering,
        questions: Mapping[Question, str],
        work_of: Callable[[Question, str], Work],
    ) -> Mapping[Question, int]:
        """How many rows statements would give, as the planners of their shards expect."""
        return expected_rows(self, gathering, questions, work_of)

    def check_usable(self) -> None:
        """Refuse statements in a transaction that failed, or on a connection that is closed."""
        if self.closed or self.is_copying or self.cluster.is_disposed or self._pid != os.getpid():
            self._check_open()
        if self.failed_shard is not None:
            raise InFailedSqlTransaction(
                "current transaction is aborted, commands ignored until end of transaction block "
                f"(a statement failed on shard {self.failed_shard!r})"
            )

    def run_write(self, shard: str, run: Callable[[], object]) -> None:
        """Run a statement that may write on a shard, one of several that take part.

        :param run: runs it there.
        """
        asked = shard_to_ask(self.enlisted, shard)
        if asked is None:
            run()
        else:
            cluster = self.cluster
            run_beside(asked, run, cluster.fan_out, seconds=cluster.timeouts.round_seconds)

    def check_write(self, shards: Sequence[str]) -> None:
        """Refuse a write that would not be atomic, or is not wanted to touch several shards.

        :raises ScatterNotAllowed: it is refused.
        """
        if self.autocommit and len(shards) > 1:
            raise ScatterNotAllowed(
                f"a write on shards {', '.join(map(repr, shards))} in AUTOCOMMIT mode could be "
                "half done",
                "use a transaction",
            )
        if self.cluster.multi_shard_writes == "refuse":
            written = {name for name, each in self.enlisted.items() if each.wrote is not False}
            if len(written.union(shards)) > 1:
                raise ScatterNotAllowed(
                    "the transaction would write on shards "
                    f"{', '.join(map(repr, sorted(written.union(shards))))}, and writes on several "
                    "shards are refused",
                    'split the transaction, or create the cluster with multi_shard_writes="atomic"',
                )

    def fail(self, shard: str) -> None:
        """Refuse all that follows until a rollback, where statements belong together."""
        if not self.autocommit:
            self.failed_shard = shard

    def note_error(self, shard: str, error: BaseException, *, is_shared: bool) -> None:
        """Remember what an error on a shard means for the transaction.

        :param is_shared: the statement went to other shards, too.
        """
        if isinstance(error, psycopg.Error) and not hasattr(error, "shard"):
            error.shard = shard  # type: ignore[attr-defined]
        enlisted = self.enlisted.get(shard)
        if enlisted is not None and enlisted.is_lost:
            self.lost_shard = self.failed_shard = shard
            self.cluster.invalidate_pool(enlisted, error)
        elif not self.autocommit and self.enlisted:
            is_failed = enlisted is not None and enlisted.is_failed
            if is_shared or is_failed or isinstance(error, ShardUnavailable):
                self.failed_shard = shard

    # -- DBAPI --

    def cursor(self, *arguments: Any, **keywords: Any) -> ClusterCursor:
        """A cursor; what is given names a server-side cursor, as the driver takes it."""
        return ClusterCursor(self, arguments, keywords)

    def commit(self) -> None:
        """Commit on all enlisted shards, atomically (`transactions`).

        :raises TransactionAborted: nothing was committed.
        :raises TransactionOutcomeUnknown: it is not known what was committed.
        """
        self._check_open()
        if not self.enlisted:
            self._forget()
            return
        self.unfinished = None
        try:
            result = self.cluster.commit(
                list(self.enlisted.values()), failed_shard=self.failed_shard
            )
        finally:
            self._release()
        if result.unfinished and self.cluster.on_unfinished == "raise":
            self.unfinished = result.unfinished_error()

    def rollback(self) -> None:
        """Roll back on all enlisted shards."""
        if not self.enlisted:
            self._forget()
            return
        if self._pid != os.getpid():
            self._leave_to_parent()
            return
        try:
            if len(self.enlisted) > 1:
                self.on_enlisted(lambda each: each.driver.rollback() if not each.is_lost else None)
        finally:
            self._release()

    def close(self) -> None:
        """Roll back, and give every connection back."""
        if not self.closed:
            self.rollback()
            self.closed = True

    def terminate(self) -> None:
        """Close the connection of every enlisted shard, without waiting for anything."""
        enlisted, self.enlisted = self.enlisted, {}
        for each in enlisted.values():
            each.pooled.invalidate()
        while self.streams:
            self.streams.pop().abandon()
        self.closed = True
        self._forget()

    @property
    def broken(self) -> bool:
        """Whether SQLAlchemy must see this connection as lost."""
        return self.lost_shard is not None

    # -- savepoints --

    def savepoint(self, name: str) -> None:
        """Open a savepoint on all shards, those that are enlisted later included."""
        self.check_usable()
        self._on_all(f"SAVEPOINT {name}")
        self._log.savepoint(name)

    def rollback_to_savepoint(self, name: str) -> None:
        """Go back to a savepoint on all shards."""
        self._check_open()
        self._on_all(f"ROLLBACK TO SAVEPOINT {name}")
        if self.lost_shard is None:
            self.failed_shard = None
        self._log.roll_back_to(name)
        self.inserted.clear()

    def release_savepoint(self, name: str) -> None:
        """Forget a savepoint on all shards, and those within it."""
        self.check_usable()
        self._on_all(f"RELEASE SAVEPOINT {name}")
        self._log.release(name)

    def set_for_transaction(self, sql: str, parameters: Any) -> None:
        """Run a statement that sets something on all shards, those enlisted later included.

        :raises UnsupportedStatement: each statement is a transaction of its own.
        """
        self.check_usable()
        if self.autocommit:
            raise UnsupportedStatement(
                "a setting of the transaction has no meaning in AUTOCOMMIT mode",
                "use a transaction",
                statement=sql,
            )
        self._on_all(sql, parameters)
        self._log.setting(sql, parameters)

    def _on_all(self, sql: str, parameters: Any = None) -> None:
        try:
            outcomes = self.on_enlisted(lambda each: each.driver.execute(sql, parameters))
        except BaseException as error:
            # Interrupted: some shards may have done it, so the transaction cannot go on.
            self.note_error(next(iter(self.enlisted)), error, is_shared=True)
            raise
        for outcome in outcomes:
            if outcome.error is not None:
                self.note_error(outcome.shard, outcome.error, is_shared=True)
                raise outcome.error

    # -- characteristics, as psycopg has them --

    def _set(self, name: str, value: Any) -> None:
        self._check_open()
        for enlisted in self.enlisted.values():
            setattr(enlisted.driver, name, value)
        if value is None or (name == "autocommit" and not value):
            self._characteristics.pop(name, None)
        else:
            self._characteristics[name] = value

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction of its own."""
        return bool(self._characteristics.get("autocommit", False))

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._set("autocommit", value)

    @property
    def isolation_level(self) -> psycopg.IsolationLevel | None:
        """Isolation level of every shard's transaction; None: as the shard has it."""
        return self._characteristics.get("isolation_level") if self._consistent is None else LEVEL

    @isolation_level.setter
    def isolation_level(self, value: psycopg.IsolationLevel | None) -> None:
        self._set("isolation_level", value)

    @property
    def read_only(self) -> bool | None:
        """Whether every shard's transaction is read-only; None: as the shard has it."""
        return self._characteristics.get("read_only")

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        self._set("read_only", value)

    @property
    def deferrable(self) -> bool | None:
        """Whether every shard's transaction is deferrable; None: as the shard has it."""
        return self._characteristics.get("deferrable")

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        self._set("deferrable", value)

    # -- the pieces --

    def on_enlisted(self, work: Callable[[EnlistedShard], Any]) -> list[Outcome[Any]]:
        """Do something on every enlisted shard at once; one outcome for each."""
        branches = [
            Branch(each.name, lambda each=each: work(each), lambda each=each: each.driver)  # type: ignore[misc]
            for each in self.enlisted.values()
        ]
        if current_branch() is not None:
            # The garbage collector closes a forgotten session in the middle of another's fan-out.
            return [run_branch(branch) for branch in branches]
        return self.cluster.fan_out.run(branches)

    def _check_open(self) -> None:
        if self.closed:
            raise psycopg.InterfaceError("the cluster connection is closed")
        if self.is_copying:
            raise used_while_copying()
        self.cluster.check_open()
        if self._pid != os.getpid():
            if self.enlisted:
                raise ConfigurationError(
                    "the transaction was begun by the process that this one was forked from",
                    "close the session, and begin transactions after the fork",
                )
            self._pid = os.getpid()

    def _leave_to_parent(self) -> None:
        """Let go of connections that a fork brought along."""
        enlisted, self.enlisted = self.enlisted, {}
        for each in enlisted.values():
            each.pooled.detach()
        while self.streams:
            self.streams.pop().leave_to_parent()
        self._forget()

    def _release(self) -> None:
        self._end_streams()
        enlisted, self.enlisted = self.enlisted, {}
        self._forget()
        first_error: BaseException | None = None
        for each in enlisted.values():
            if each.is_lost:
                self.cluster.invalidate_pool(each, psycopg.OperationalError("connection lost"))
            try:
                each.release(is_kept=not self.cluster.is_disposed)
            except Exception as error:  # every connection must go back
                each.pooled.invalidate()
                first_error = first_error or error
        if first_error is not None and not isinstance(first_error, psycopg.Error):
            raise first_error

    def _end_streams(self) -> None:
        """Close them now: soon the connections may be another session's."""
        while self.streams:
            self.streams.pop().end()

    def _forget(self) -> None:
        self._began_at = self._consistent = None
        self.locator = None
        self.inserted.clear()
        self._log.clear()
        self.failed_shard = self.lost_shard = None
