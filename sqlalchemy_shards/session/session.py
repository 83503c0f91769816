"""The session of a cluster: SQLAlchemy's own, bound to `Cluster.engine`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session

from sqlalchemy_shards.cluster.connection import ClusterConnection
from sqlalchemy_shards.cluster.explaining import analyze_statement, explain_statement
from sqlalchemy_shards.errors import ConfigurationError, MissingShardKey, RoutingError
from sqlalchemy_shards.models.checks import undeclared_error
from sqlalchemy_shards.models.distribution import (
    Global,
    Reference,
    Sharded,
    distribution_of,
    key_columns,
)

from .locator import SessionLocator, remember_in
from .query import ShardedQuery
from .rehome import rehome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import SessionTransaction

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.cluster.explain import Explanation


class ShardedSession(Session):
    """A `Session` over all shards of a cluster.

    :param cluster: the cluster.
    :param bind: a connection of the cluster's engine, in place of ``cluster``: for a test's outer
        transaction.

    All other arguments are those of `sqlalchemy.orm.Session`.

    :raises ConfigurationError: neither is given, or the bind is no cluster's.
    """

    def __init__(
        self,
        cluster: Cluster | None = None,
        *,
        bind: Engine | Connection | None = None,
        query_cls: type[Any] = ShardedQuery,
        **session_arguments: Any,
    ) -> None:
        if cluster is None:
            cluster = getattr(getattr(bind, "dialect", None), "cluster", None)
        if cluster is None:
            raise ConfigurationError(
                "a ShardedSession needs a cluster",
                "create it with ShardedSession(cluster), or "
                "sessionmaker(class_=ShardedSession, cluster=cluster)",
            )
        super().__init__(
            bind=cluster.engine if bind is None else bind,
            query_cls=query_cls,
            **session_arguments,
        )
        self.cluster: Cluster = cluster
        self.locator = SessionLocator(self, cluster.dialect)
        self._cluster_connection: ClusterConnection | None = None

    def explain(
        self,
        statement: Any,
        parameters: Mapping[str, Any] | None = None,
        *,
        analyze: bool = False,
        **options: Any,
    ) -> Explanation:
        """Tell where a statement would run and how its result would be made.

        :param analyze: run it, and tell what each step took. It runs in the session's transaction,
            so that it sees what the session has done, within a savepoint that is rolled back, so
            that it changes nothing; what is pending is flushed before. Objects are not loaded, and
            those that the session holds stay as they are. Without it nothing is run.
        :param options: execution options, as ``shard=`` or ``scatter=``.
        """
        parameters = parameters or {}
        if not analyze:
            return explain_statement(self.cluster, statement, parameters, options, self.locator)
        if self.autoflush:
            self.flush()
        return analyze_statement(self.connection(), statement, parameters, options)

    def shard_of(self, instance: Any) -> str:
        """Name of the shard that an object's row is, or would be, stored on.

        :raises MissingShardKey: the object has no shard key yet.
        :raises RoutingError: it belongs to a reference table, which is on every shard.
        """
        mapper = inspect(instance).mapper
        table: Any = mapper.local_table
        distribution = distribution_of(table)
        if isinstance(distribution, Sharded):
            return self.cluster.shard_for(table, self._key_of(instance, distribution))
        if isinstance(distribution, Reference):
            raise RoutingError(
                f"table {table.fullname!r} is a reference table, whose rows are on every shard",
                "ask for the shard of a sharded object",
            )
        if isinstance(distribution, Global) or self.cluster.undeclared == "global":
            return self.cluster.global_shard
        raise undeclared_error(table)

    def rehome(self, instance: Any, **new_key: Any) -> None:
        """Move an object to another shard key, with all rows that hang on it by that key.

        What is pending is flushed first. The rows of tables whose foreign keys (or relationships)
        carry the shard key to the object's row follow it, and what hangs on those; they are locked,
        and moved within the session's transaction. Objects that the session holds of them go on
        under their new identities; everything is expired, and read again when it is needed.

        :param new_key: the new values of the shard key's attributes, or of some of them.
        :raises RoutingError: the object is not a persistent one of a sharded class, or the key is
            not its own.
        :raises UnsupportedStatement: rows that would stay refer to rows that would move, tables
            name each other in a circle, or ids carry the bucket of the old key.
        """
        rehome(self, instance, new_key)

    def _key_of(self, instance: Any, distribution: Sharded) -> tuple[Any, ...]:
        mapper = inspect(instance).mapper
        table: Any = mapper.local_table
        key = tuple(
            getattr(instance, mapper.get_property_by_column(column).key)
            for column in key_columns(table, distribution)
        )
        if None in key:
            raise MissingShardKey(
                f"an object of class {type(instance).__name__} has no value for its shard key "
                f"{', '.join(map(repr, distribution.key))}",
                "set it first",
            )
        return key


@event.listens_for(ShardedSession, "after_begin")
def _lend_locator(
    session: ShardedSession, transaction: SessionTransaction, connection: Connection
) -> None:
    """Let the cluster connection ask this session for its objects' whereabouts."""
    cluster_connection = connection.connection.driver_connection
    if isinstance(cluster_connection, ClusterConnection):
        cluster_connection.locator = session.locator
        session._cluster_connection = cluster_connection


@event.listens_for(ShardedSession, "after_transaction_end")
def _raise_unfinished(session: ShardedSession, transaction: SessionTransaction) -> None:
    """Raise what the commit left to recovery, now that the session has seen it committed."""
    connection = session._cluster_connection
    if transaction.parent is not None or connection is None:
        return
    session._cluster_connection = None
    unfinished, connection.unfinished = connection.unfinished, None
    if unfinished is not None:
        raise unfinished


@event.listens_for(ShardedSession, "pending_to_persistent")
@event.listens_for(ShardedSession, "detached_to_persistent")
def _remember(session: ShardedSession, instance: Any) -> None:
    """Know where objects live that were flushed or attached, not loaded."""
    remember_in(session, instance)
