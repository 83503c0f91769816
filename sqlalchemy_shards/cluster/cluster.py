"""The cluster: its shards, its shard map, and the ordinary SQLAlchemy engine for all of it.

Invariants: a `Cluster` is safe to use from any number of threads; it keeps no transaction of its
own; nothing it caches outlives `dispose`. After a fork the child opens connections of its own.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import psycopg
from sqlalchemy import URL
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from sqlalchemy_shards import _compat
from sqlalchemy_shards._compat.alembic_errors import printed_by_alembic
from sqlalchemy_shards.catalog.catalog import Catalog
from sqlalchemy_shards.catalog.columns import sorting_of
from sqlalchemy_shards.catalog.identity import IdentityRegistry
from sqlalchemy_shards.connections.engines import create_shard_engine, instrument_engine
from sqlalchemy_shards.connections.event_loop_hub import EventLoopHub
from sqlalchemy_shards.connections.fan_out import AdaptiveFanOut
from sqlalchemy_shards.connections.hub import GreenletFanOut
from sqlalchemy_shards.connections.loop import Hub
from sqlalchemy_shards.connections.settings import give_settings
from sqlalchemy_shards.connections.shard import Shard
from sqlalchemy_shards.errors import ConfigurationError, TransactionAborted
from sqlalchemy_shards.events import Hooks
from sqlalchemy_shards.routing.router import Territory
from sqlalchemy_shards.topology.keyspace import Keyspace
from sqlalchemy_shards.topology.partitioners import HashPartitioner
from sqlalchemy_shards.topology.shard_map import ShardMap
from sqlalchemy_shards.transactions.acknowledged import Acknowledged
from sqlalchemy_shards.transactions.commit import Coordinator
from sqlalchemy_shards.transactions.recovery import Recovery

from .admission import NamelessDatabases, Placements, admit_connections
from .arguments import (
    are_async,
    check_kinds,
    check_names,
    checked_retention,
    existing,
    one_of,
    refuse_what_is_to_come,
)
from .configured import read_arguments
from .engine import make_engine
from .explain.explaining import analyze_statement, explain_statement
from .gather.key_lists import ROWS_WORTH_WAITING
from .gather.workspace import Workspace
from .limits import GatherLimit, checked_gather_limit
from .options import checked_scatter, key_of_model
from .plans import PlanCache
from .quoting import without_placeholders
from .readiness.check import CHECK_SECONDS, check_cluster
from .schema import create_tables, drop_tables, prepare_shards
from .timeouts import Timeouts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Engine, MetaData, Table

    from sqlalchemy_shards.connections.fan_out import FanOut
    from sqlalchemy_shards.transactions.commit import CommitResult
    from sqlalchemy_shards.transactions.reports import (
        InDoubtTransaction,
        RecoveryReport,
        TransactionGauges,
    )

    from .enlistment.enlisted import EnlistedShard
    from .explain.explanation import Explanation
    from .readiness.report import Report
    from .recovery.worker import RecoveryWorker

    Undeclared = Literal["refuse", "global"]
    Scatter = Literal["allow", "refuse"]
    MultiShardWrites = Literal["atomic", "refuse", "non_atomic"]
    OnUnfinished = Literal["warn", "raise"]


class Cluster:
    """Many PostgreSQL shards behind one SQLAlchemy engine.

    :param shards: name -> an ordinary engine (psycopg 3) for that shard, in the cluster's order.
    :param name: shown in errors and events, and checked against the shards' own records.
    :param keyspaces: name -> how its tables spread; by default ``"default"``, 1024 hashed buckets.
    :param global_shard: where global tables live; by default the first shard.
    :param undeclared: what a table is that says nothing: refused, or global.
    :param scatter: whether a statement without a known shard key may go to several shards.
    :param multi_shard_writes: whether one transaction may write on several shards.
    :param on_unfinished: what becomes of a commit that is decided but not finished everywhere: a
        warning, or an error raised by `ShardedSession` after the transaction has ended.
    :param timeouts: bounds on waiting.
    :param decision_retention: how long `outcome` tells of a commit left unfinished; 10 min or more.
    :param workspace: an engine for the PostgreSQL that runs gathered statements; by default the
        global shard's server, over connections of its own.
    :param gather_limit: how much one statement may bring there.
    :param consistent_reads: whether distributed transactions leave markers, by which transactions
        that begin with ``begin_consistent()`` see them wholly or not at all.
    :raises ConfigurationError: with every fault that was found.
    """

    _engine: Engine | None = None

    def __init__(
        self,
        shards: Mapping[str, Engine],
        *,
        name: str = "shards",
        keyspaces: Mapping[str, Keyspace] | None = None,
        global_shard: str | None = None,
        undeclared: Undeclared = "refuse",
        scatter: Scatter = "allow",
        multi_shard_writes: MultiShardWrites = "atomic",
        on_unfinished: OnUnfinished = "warn",
        timeouts: Timeouts | None = None,
        decision_retention: timedelta = timedelta(days=1),
        workspace: Engine | None = None,
        gather_limit: GatherLimit | None = None,
        consistent_reads: bool = False,
    ) -> None:
        refuse_what_is_to_come(multi_shard_writes)
        keyspaces = keyspaces or {"default": Keyspace(HashPartitioner())}
        check_kinds(shards, keyspaces, timeouts)
        shard_map = ShardMap.build(keyspaces, tuple(shards))
        self.name = name
        self.shards = {name: Shard(name, engine) for name, engine in shards.items()}
        self.global_shard = existing(global_shard, self.shards)
        self.undeclared = one_of("undeclared", undeclared, ("refuse", "global"))
        self.scatter = checked_scatter(scatter)
        self.multi_shard_writes = multi_shard_writes
        self.on_unfinished = one_of("on_unfinished", on_unfinished, ("warn", "raise"))
        self.timeouts = timeouts or Timeouts()
        self.consistent_reads = one_of("consistent_reads", consistent_reads, (False, True))
        self.hooks = Hooks()
        self.territory = Territory(tuple(self.shards), shard_map, self.global_shard)
        self.dialect: Any = PGDialect_psycopg()  # type: ignore[no-untyped-call]
        self.is_async = are_async(shards)
        self.fan_out = AdaptiveFanOut(GreenletFanOut(hub=EventLoopHub if self.is_async else Hub))
        self.identities = IdentityRegistry(name)
        quote = self._quoted
        # The global shard first: it is where functions are asked for, and global tables.
        names = sorted(self.shards, key=lambda name: name != self.global_shard)
        self.catalog = Catalog(names, self.reach, quote, self.fan_out)
        self.plans = PlanCache(
            self.dialect,
            undeclared_is_global=undeclared == "global",
            facts=self.catalog if len(self.shards) > 1 else None,
        )
        self.gather_limit = checked_gather_limit(gather_limit)
        self.rows_worth_waiting = ROWS_WORTH_WAITING
        self.workspace = _workspace_of(
            workspace, self.shards[self.global_shard], self.fan_out, self._sorting
        )
        settings = self.timeouts.of_servers(shards=len(self.shards))
        if workspace is not None:
            give_settings(workspace, settings)
        nameless, placements = NamelessDatabases(), Placements(shard_map, self._note_unknown)
        for shard in self.shards.values():
            instrument_engine(shard.engine)
            give_settings(shard.engine, settings)
            admit_connections(
                shard, self.identities, nameless, placements, leaves_markers=self.consistent_reads
            )
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self.is_disposed = False
        self.workers: set[RecoveryWorker] = set()
        self._coordinator, self._recovery = self._commit_and_recovery(
            checked_retention(decision_retention)
        )

    def _commit_and_recovery(self, decision_retention: timedelta) -> tuple[Coordinator, Recovery]:
        """Who commits and who finishes; they share what was acknowledged."""
        acknowledged = Acknowledged()
        coordinator = Coordinator(
            self.name,
            identities=self.identities,
            hooks=self.hooks,
            fan_out=self.fan_out,
            connect=self.connect,
            timeouts=self.timeouts.of_commit(),
            on_unfinished=self.on_unfinished,
            acknowledged=acknowledged,
            leaves_markers=self.consistent_reads,
        )
        recovery = Recovery(
            self.name,
            shard_names=tuple(self.shards),
            connect=self.connect,
            identities=self.identities,
            hooks=self.hooks,
            fan_out=self.fan_out,
            acknowledged=acknowledged,
            decision_retention=decision_retention,
            step_seconds=self.timeouts.recovery_seconds,
        )
        return coordinator, recovery

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, is_async: bool = False) -> Cluster:
        """Create a cluster from a TOML file; see `docs/configuration.md`.

        :param is_async: see `create_cluster`.
        :raises ConfigurationError: the file cannot be read, or with every fault that is in it.
        """
        shards, arguments = read_arguments(Path(path))
        return create_cluster(shards, is_async=is_async, **arguments)

    # -- the engine --

    @property
    def engine(self) -> Engine:
        """An ordinary SQLAlchemy engine for the whole cluster: always the same one."""
        if self._engine is None:
            with self._lock:  # of two that were made, only one would have the user's listeners
                if self._engine is None:
                    self._engine = make_engine(self)
        return self._engine

    @property
    def shard_map(self) -> ShardMap:
        """Which shard holds what."""
        return self.territory.shard_map

    def shard_for(self, model: Any, key: Any) -> str:
        """Name of the shard that holds the rows of ``key``.

        :param model: mapped class or table.
        :param key: shard-key value; a tuple for a key of several parts.
        :raises RoutingError: it is no key of the model, or has no shard.
        """
        found = key_of_model(model, key, self.dialect)
        return self.shard_map.shard_for(found.keyspace, found.key)

    def bucket_for(self, model: Any, key: Any) -> int:
        """Number of the bucket of ``key``; see `shard_for`."""
        found = key_of_model(model, key, self.dialect)
        return self.shard_map.bucket_for(found.keyspace, found.key)

    def explain(
        self,
        statement: Any,
        parameters: Mapping[str, Any] | None = None,
        *,
        analyze: bool = False,
        **options: Any,
    ) -> Explanation:
        """Tell where a statement would run and how its result would be made.

        :param analyze: run it, in a transaction that is rolled back, and tell what each step took.
            Without it nothing is run.
        :param options: execution options, as ``shard=`` or ``scatter=``.
        """
        if not analyze:
            return explain_statement(self, statement, parameters or {}, options)
        with self.engine.connect() as connection:
            return analyze_statement(connection, statement, parameters or {}, options)

    # -- set-up --

    def bootstrap(self) -> None:
        """Create or upgrade the schema ``shards`` on every shard. Does no harm when repeated.

        :raises ConfigurationError: a database is another shard than it should be.
        """
        prepare_shards(self)

    def create_all(self, metadata: MetaData) -> None:
        """Create the tables that are missing, each where it belongs, and the schema ``shards``.

        :raises ConfigurationError: a table is not declared, or in a way that cannot work.
        """
        self.bootstrap()
        create_tables(self, metadata)

    def drop_all(self, metadata: MetaData) -> None:
        """Drop the tables where they are; the schema ``shards`` stays."""
        drop_tables(self, metadata)

    def check(
        self, metadata: MetaData | None = None, *, deadline_seconds: float | None = CHECK_SECONDS
    ) -> Report:
        """Look at every shard and report what is not fit, and what to do about it.

        :param metadata: its tables are looked for too.
        :param deadline_seconds: how long to wait for the shards, all of them together.
        :raises ConfigurationError: a table is not declared, or in a way that cannot work.
        """
        return check_cluster(self, metadata, deadline_seconds)

    def dispose(self) -> None:
        """Stop recovery workers and close all pools. The cluster cannot be used afterwards."""
        for worker in tuple(self.workers):
            worker.stop()
        self.is_disposed = True
        self.close_pools()

    def close_pools(self) -> None:
        """Close the idle connections; in a forked child, only forget those of the parent."""
        is_own = os.getpid() == self._pid
        for shard in self.shards.values():
            shard.engine.dispose(close=is_own)
        self.workspace.close_pool(is_own=is_own)

    def check_open(self) -> None:
        """Refuse to work after `dispose`; after a fork, leave the parent's connections alone."""
        if self.is_disposed:
            raise ConfigurationError(
                f"the cluster {self.name!r} is disposed", "create a new cluster"
            )
        if os.getpid() != self._pid:
            with self._lock:
                if os.getpid() != self._pid:
                    for shard in self.shards.values():
                        shard.engine.dispose(close=False)
                    self.workspace.close_pool(is_own=False)
                    self._pid = os.getpid()

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError(
            "a cluster holds connections and cannot be pickled",
            "pickle its configuration, and create a cluster in the other process",
        )

    def __repr__(self) -> str:
        return f"<Cluster {self.name!r}: {', '.join(self.shards)}>"

    # -- transactions --

    def commit(
        self, enlisted: Sequence[EnlistedShard], *, failed_shard: str | None
    ) -> CommitResult:
        """Commit what a cluster connection enlisted; for `ClusterConnection`.

        :param failed_shard: a statement failed there, so that PostgreSQL would not commit.
        """
        if failed_shard is not None and len(self.shards) > 1:
            raise TransactionAborted(
                f"a statement failed on shard {failed_shard!r} before the commit, so that the "
                "whole transaction is rolled back",
                "call rollback() after a failed statement, and run the transaction again",
                shard=failed_shard,
            )
        return self._coordinator.commit(enlisted)

    def recover(
        self, older_than: timedelta | None = None, *, gid: str | None = None
    ) -> RecoveryReport:
        """Finish what crashes left prepared: everything that can be settled.

        :param older_than: leave alone what was prepared more recently.
        :param gid: finish only this transaction.
        """
        self.check_open()
        return self._recovery.recover(older_than, gid=gid)

    def transaction_gauges(self) -> TransactionGauges:
        """What the recoveries of this process found and did, for a monitoring system."""
        return self._recovery.gauges

    @property
    def recovery(self) -> Recovery:
        """What finishes transactions of this cluster; for the command line."""
        self.check_open()
        return self._recovery

    def in_doubt(self) -> list[InDoubtTransaction]:
        """List the distributed transactions that are prepared on some shard."""
        self.check_open()
        return self._recovery.in_doubt()

    def outcome(self, gid: str) -> str:
        """Settle a distributed transaction: ``"committed"``, ``"aborted"`` or ``"unknown"``."""
        self.check_open()
        return str(self._recovery.outcome(gid).value)

    @contextmanager
    def connect(self, shard: str) -> Iterator[psycopg.Connection[Any]]:
        """An autocommit connection of its own to a shard, beside the pool, closed at the end."""
        self.check_open()
        pool = self.shards[shard].engine.pool.recreate()
        try:
            pooled = pool.connect()
            driver: Any = pooled.driver_connection
            driver.autocommit = True
            try:
                yield driver
            finally:
                pooled.invalidate()
        finally:
            pool.dispose()

    @contextmanager
    def reach(self, shard: str) -> Iterator[psycopg.Connection[Any]]:
        """The same, where an unreachable shard is an error of the caller's.

        :raises ShardUnavailable: no connection can be made.
        """
        with ExitStack() as stack:
            try:
                driver = stack.enter_context(self.connect(shard))
            except psycopg.Error as error:
                raise self.shards[shard].unavailable(error) from error
            yield driver

    def _note_unknown(self, shards: tuple[str, ...]) -> None:
        """Remember shards that are being added, and that this process does not know."""
        with self._lock:
            unknown = self.territory.unknown.union(shards)
            self.territory = replace(self.territory, unknown=unknown)

    def _sorting(self) -> str:
        with self.reach(self.global_shard) as connection:
            return sorting_of(connection)

    def _quoted(self, table: Table) -> str:
        """A table's name as SQL has it, where it is a value or stands in SQL without parameters."""
        return without_placeholders(self.dialect.identifier_preparer.format_table(table))

    def invalidate_pool(self, enlisted: EnlistedShard, error: BaseException) -> None:
        """Distrust the connections that a shard's pool opened before one of them was lost."""
        pool = self.shards[enlisted.name].engine.pool
        _compat.distrust_pool(pool, enlisted.pooled, error)


@printed_by_alembic()
def create_cluster(
    shards: Mapping[str, str | URL],
    *,
    name: str = "shards",
    keyspaces: Mapping[str, Keyspace] | None = None,
    global_shard: str | None = None,
    undeclared: Undeclared = "refuse",
    scatter: Scatter = "allow",
    multi_shard_writes: MultiShardWrites = "atomic",
    on_unfinished: OnUnfinished = "warn",
    timeouts: Timeouts | None = None,
    decision_retention: timedelta = timedelta(days=1),
    workspace: str | URL | Engine | None = None,
    gather_limit: GatherLimit | None = None,
    consistent_reads: bool = False,
    is_async: bool = False,
    **engine_arguments: Any,
) -> Cluster:
    """Create a cluster from URLs, as ``create_engine()`` creates an engine from one.

    :param shards: name -> URL (``postgresql+psycopg://``), in the cluster's order.
    :param workspace: URL or engine of the PostgreSQL that runs gathered statements.
    :param is_async: it is used in SQLAlchemy's greenlets, and waits on asyncio's event loop, as
        `create_async_cluster` has it.
    :param engine_arguments: go to ``create_engine()`` of each shard: ``pool_size=10``.

    The other arguments are those of `Cluster`. No server is reached yet.

    :raises ConfigurationError: with every fault that was found.
    """
    if isinstance(workspace, (str, URL)):
        workspace = create_shard_engine(
            "workspace", workspace, is_async=is_async, **engine_arguments
        )
    check_names(shards)
    return Cluster(
        {
            shard: create_shard_engine(shard, url, is_async=is_async, **engine_arguments)
            for shard, url in shards.items()
        },
        name=name,
        keyspaces=keyspaces,
        global_shard=global_shard,
        undeclared=undeclared,
        scatter=scatter,
        multi_shard_writes=multi_shard_writes,
        on_unfinished=on_unfinished,
        timeouts=timeouts,
        decision_retention=decision_retention,
        workspace=workspace,
        gather_limit=gather_limit,
        consistent_reads=consistent_reads,
    )


def _workspace_of(
    engine: Engine | None, global_shard: Shard, fan_out: FanOut, sorting: Callable[[], str]
) -> Workspace:
    if engine is None:
        place = f"the server of {global_shard.name}"
        return Workspace(place, global_shard.engine.pool.recreate, fan_out)
    instrument_engine(engine)
    place = f"the database {engine.url.database!r} that is given as workspace"
    return Workspace(place, engine.pool.recreate, fan_out, sorting)
