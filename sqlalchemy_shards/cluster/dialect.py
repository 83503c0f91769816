"""The dialect ``postgresql+shards``: SQLAlchemy's own for psycopg, with a cluster below it.

SQLAlchemy compiles and caches statements as ever; ``do_execute`` and its kin hand the execution
context to the cluster cursor, transaction hooks reach all enlisted shards, and what a start-up asks
a server is asked one shard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import QueuePool, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql.expression import (
    ReleaseSavepointClause,
    RollbackToSavepointClause,
    SavepointClause,
)

from sqlalchemy_shards.errors import (
    ConfigurationError,
    ShardsError,
    ShardUnavailable,
    UnsupportedStatement,
)

from .compiler import ShardsCompiler
from .connection import ClusterConnection

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
        cluster: Cluster | None = getattr(self._dialect_of_cluster, "cluster", None)
        if cluster is not None:
            cluster.close_pools()


class ShardsDialect(PGDialect_psycopg):
    """PostgreSQL behind many servers.

    :param cluster: the cluster; None: the URL names its configuration file.
    """

    driver = "shards"
    supports_statement_cache = True
    statement_compiler = ShardsCompiler

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
        """Refuse: a sync dialect would block the event loop."""
        raise ConfigurationError(
            "postgresql+shards has no asyncio dialect yet",
            "use create_engine() and run the session in a thread, as with asyncio.to_thread()",
        )

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
            self.cluster = Cluster.from_file(url.database)
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
        """Hand a statement to the cluster cursor; a savepoint is one over all shards."""
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


def _name_shard(context: ExceptionContext) -> ShardsError | None:
    """Say in SQLAlchemy's error on which shard a driver's error was raised."""
    if context.execution_context is None and isinstance(context.original_exception, ShardsError):
        return context.original_exception  # of a column's default, which SQLAlchemy would wrap
    shard = getattr(context.original_exception, "shard", None)
    error = context.sqlalchemy_exception
    if shard is not None and error is not None and not isinstance(error, ShardsError):
        error.add_detail(f"shard: {shard}")
    others = getattr(context.original_exception, "shard_errors", None)
    if others and error is not None and not isinstance(error, ShardsError):
        error.add_detail(
            "failed on several shards: "
            + ", ".join(f"{name} ({type(each).__name__})" for name, each in others.items())
        )
    return None
