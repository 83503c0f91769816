"""The dialect ``postgresql+shards``: SQLAlchemy's own for psycopg, with a cluster below it.

SQLAlchemy compiles and caches statements as ever; ``do_execute`` and its kin hand the execution
context to the cluster cursor, transaction hooks reach all enlisted shards, and what a start-up asks
a server is asked one shard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import AsyncAdaptedQueuePool, QueuePool, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.expression import (
    ReleaseSavepointClause,
    RollbackToSavepointClause,
    SavepointClause,
)

from sqlalchemy_shards.connections.event_loop import running_loop
from sqlalchemy_shards.errors import (
    ConfigurationError,
    ShardsError,
    ShardUnavailable,
    UnsupportedStatement,
)
from sqlalchemy_shards.transactions.retryable import BY_THE_SERVER

from .compiler import ShardsCompiler
from .connection import ClusterConnection
from .context import ShardsExecutionContext
from .enlistment.enlisted import shard_of

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, Pool
    from sqlalchemy.engine import ExceptionContext

    from .cluster import Cluster


_OF_SAVEPOINTS = (SavepointClause, RollbackToSavepointClause, ReleaseSavepointClause)


class ClusterConnections(QueuePool):
    """A pool without a limit: a cluster connection that is idle holds nothing."""

    def __init__(self, creator: Any, **keywords: Any) -> None:
        super().__init__(creator, **{**keywords, "pool_size": 0})
        self._dialect_of_cluster = keywords.get("dialect")

    def dispose(self) -> None:
        """Close the idle connections of the shards' own pools: here are none."""
        # Not by the event engine_disposed: whoever listens to an engine slows every statement.
        super().dispose()
        cluster = self._cluster
        if cluster is not None:
            cluster.close_pools()

    def recreate(self) -> ClusterConnections:
        """As ``engine.dispose(close=False)`` does in a forked child: it is for the shards, too."""
        cluster = self._cluster
        if cluster is not None and not cluster.is_disposed:
            cluster.check_open()
        return super().recreate()  # type: ignore[return-value]

    @property
    def _cluster(self) -> Cluster | None:
        return getattr(self._dialect_of_cluster, "cluster", None)


class AsyncClusterConnections(ClusterConnections, AsyncAdaptedQueuePool):
    """The same for tasks of asyncio."""


class ShardsDialect(PGDialect_psycopg):
    """PostgreSQL behind many servers.

    :param cluster: the cluster; None: the URL names its configuration file.
    """

    driver = "shards"
    supports_statement_cache = True
    statement_compiler = ShardsCompiler
    execution_ctx_cls = ShardsExecutionContext

    def __init__(self, cluster: Cluster | None = None, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.cluster = cluster
        self.engine_isolation_level = keywords.get("isolation_level")

    # -- set-up --

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        """Pooling is for the shards' own engines."""
        return ClusterConnections

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Any]:
        """The same, whose shards wait on the event loop."""
        return AsyncShardsDialect

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Let errors name their shard."""
        event.listen(engine, "handle_error", _name_shard)

    def create_connect_args(self, url: URL) -> tuple[list[Any], dict[str, Any]]:
        """Read the cluster's configuration file, if the URL names one."""
        if self.cluster is None:
            from .cluster import Cluster  # the cluster makes engines of this dialect

            if not url.database:
                raise ConfigurationError(
                    "the URL postgresql+shards:// names no configuration file",
                    "write postgresql+shards:///path/to/shards.toml (four slashes for an absolute "
                    "path), or use Cluster(...).engine",
                )
            self.cluster = Cluster.from_file(url.database, is_async=self.is_async)
        return [], {}

    def connect(self, *arguments: Any, **keywords: Any) -> Any:
        """Return a cluster connection; no server is reached yet."""
        assert self.cluster is not None
        self.cluster.check_open()
        return ClusterConnection(self.cluster)

    def on_connect(self) -> Any:
        """Nothing is to be done on a connection that has no server yet."""
        return None

    def on_connect_url(self, url: URL) -> Any:
        """As `on_connect`."""
        return None

    def initialize(self, connection: Connection) -> None:
        """Learn what the servers can do from the shard of global tables, else from another.

        :raises ShardUnavailable: no shard answers; the error is that of the first one.
        """
        assert self.cluster is not None
        shards = self.cluster.shards
        unavailable: list[ShardUnavailable] = []
        for name in dict.fromkeys((self.cluster.global_shard, *shards)):
            try:
                shards[name].acquire().close()
                with shards[name].engine.connect() as shard_connection:
                    super().initialize(shard_connection)
            except ShardUnavailable as error:
                unavailable.append(error)
            else:
                return
        raise unavailable[0]

    # -- statements --

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Hand a statement to its cursor; a savepoint is one over all shards."""
        lent = context.lent
        if lent is not None:
            if context.run_lent(lent, cursor, statement, parameters):
                return
            context.cursor = cursor = context.root_connection.connection.cursor()
        if cursor.run_by_key(context, statement, parameters):
            return
        compiled = context.compiled
        if compiled is not None and isinstance(compiled.statement, _OF_SAVEPOINTS):
            self._of_savepoint(cursor.connection, compiled.statement)
            return
        cursor.run(context, statement, parameters)

    def do_execute_no_params(self, cursor: Any, statement: str, context: Any = None) -> None:
        """Hand a statement without parameters to the cluster cursor."""
        cursor.run(context, statement, None)

    def do_executemany(
        self, cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        """Hand a statement with many parameter sets to the cluster cursor."""
        cursor.run(context, statement, parameters, is_many=True)

    def do_ping(self, dbapi_connection: Any) -> bool:
        """An idle cluster connection cannot be dead."""
        return True

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Whether SQLAlchemy must throw the connection away: a shard was lost within it."""
        return connection is not None and bool(connection.broken)

    # -- transactions --

    def _of_savepoint(self, connection: ClusterConnection, clause: Any) -> None:
        # Not in do_savepoint() and its kin, which plain SQLAlchemy turns into statements: so
        # listeners and the log are told of them here, too.
        name = self.identifier_preparer.format_savepoint(clause)
        if isinstance(clause, SavepointClause):
            connection.savepoint(name)
        elif isinstance(clause, RollbackToSavepointClause):
            connection.rollback_to_savepoint(name)
        else:
            connection.release_savepoint(name)

    def do_begin_twophase(self, connection: Connection, xid: Any) -> None:
        """Refuse: every commit of a cluster is two-phase where it has to be."""
        raise UnsupportedStatement(
            "begin_twophase() and Session(twophase=True) have no meaning on a cluster",
            "leave them away: a commit that touched several shards is atomic by itself",
        )

    def do_recover_twophase(self, connection: Connection) -> Any:
        """Refuse, as `do_begin_twophase` does."""
        raise UnsupportedStatement(
            "recover_twophase() has no meaning on a cluster", "use cluster.recover()"
        )

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        """The level that was set, else the servers' default."""
        if not isinstance(dbapi_connection, ClusterConnection):
            return super().get_isolation_level(dbapi_connection)
        level = dbapi_connection.isolation_level
        return self.default_isolation_level if level is None else level.name.replace("_", " ")

    def reset_isolation_level(self, dbapi_conn: Any) -> None:
        """Take the engine's level again; without one, the shards' own levels."""
        dbapi_conn.autocommit = False
        dbapi_conn.isolation_level = None
        if self.engine_isolation_level is not None:
            self.set_isolation_level(dbapi_conn, self.engine_isolation_level)


class AsyncShardsDialect(ShardsDialect):
    """PostgreSQL behind many servers, for asyncio.

    What it does is what `ShardsDialect` does: only the shards' connections wait otherwise.
    """

    is_async = True
    has_terminate = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        """Pooling is for the shards' own engines."""
        return AsyncClusterConnections

    def connect(self, *arguments: Any, **keywords: Any) -> Any:
        """Return a cluster connection; no server is reached yet.

        :raises ConfigurationError: no event loop of asyncio runs here.
        """
        running_loop()
        return super().connect(*arguments, **keywords)

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Let go of a connection where nothing can be waited for."""
        dbapi_connection.terminate()


def _name_shard(context: ExceptionContext) -> ShardsError | None:
    """Say in SQLAlchemy's error on which shard a driver's error was raised."""
    if context.execution_context is None and isinstance(context.original_exception, ShardsError):
        return context.original_exception  # of a column's default, which SQLAlchemy would wrap
    shard = getattr(context.original_exception, "shard", None) or _shard_of_rows(context)
    error: Any = context.sqlalchemy_exception
    if isinstance(context.sqlalchemy_exception, DBAPIError):
        error.is_retryable = getattr(error.orig, "sqlstate", None) in BY_THE_SERVER
    if shard is not None and error is not None and not isinstance(error, ShardsError):
        error.add_detail(f"shard: {shard}")
    others = getattr(context.original_exception, "shard_errors", None)
    if others and error is not None and not isinstance(error, ShardsError):
        error.add_detail(
            "failed on several shards: "
            + ", ".join(f"{name} ({type(each).__name__})" for name, each in others.items())
        )
    return None


def _shard_of_rows(context: ExceptionContext) -> str | None:
    """The shard of a row that the driver could not read, where SQLAlchemy has its cursor."""
    execution, connection = context.execution_context, context.connection
    if execution is None or connection is None or connection.invalidated or connection.closed:
        return None
    enlisted = getattr(connection.connection.driver_connection, "enlisted", None)
    return shard_of(execution.cursor, enlisted) if enlisted else None
