"""The session of a cluster: SQLAlchemy's own, bound to `Cluster.engine`."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session

from sqlalchemy_shards.cluster.cluster import Cluster
from sqlalchemy_shards.cluster.connection import ClusterConnection
from sqlalchemy_shards.cluster.copying.arrow_batches import reader_of
from sqlalchemy_shards.cluster.enlistment.consistent import switched_off
from sqlalchemy_shards.cluster.explain.explaining import analyze_statement, explain_statement
from sqlalchemy_shards.errors import ConfigurationError, MissingShardKey, RoutingError
from sqlalchemy_shards.models.checks import undeclared_error
from sqlalchemy_shards.models.distribution import (
    Global,
    Reference,
    Sharded,
    distribution_of,
    key_columns,
)

from .copying import Executed, arrow_out, copy_into, copy_out, rows_out
from .get_many import Reading
from .locator import SessionLocator, remember_in
from .query import ShardedQuery
from .rehome import rehome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Mapper, SessionTransaction
    from sqlalchemy.orm.interfaces import ORMOption
    from sqlalchemy.sql.selectable import ForUpdateParameter

    from sqlalchemy_shards.cluster.copying.copy_from import CopyResult
    from sqlalchemy_shards.cluster.copying.csv_format import CsvFormat
    from sqlalchemy_shards.cluster.explain.explanation import Explanation


T = TypeVar("T")
_NO_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType({})


class ShardedSession(Session):
    """A `Session` over all shards of a cluster.

    :param cluster: the cluster.
    :param bind: a connection of the cluster's engine, in place of ``cluster``: for a test's outer
        transaction.
    :param consistent_reads: every transaction begins as `begin_consistent` begins one, over all
        shards.

    All other arguments are those of `sqlalchemy.orm.Session`.

    :raises ConfigurationError: neither is given, the bind is no cluster's, or consistent reads are
        switched off there.
    """

    def __init__(
        self,
        cluster: Cluster | None = None,
        *,
        bind: Engine | Connection | None = None,
        query_cls: type[Any] = ShardedQuery,
        consistent_reads: bool = False,
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
        if not isinstance(cluster, Cluster):
            raise ConfigurationError(
                f"a ShardedSession cannot work on this {type(cluster).__name__}",
                "use AsyncShardedSession for an asyncio cluster",
            )
        if consistent_reads and len(cluster.shards) > 1 and not cluster.consistent_reads:
            raise switched_off()
        super().__init__(
            bind=cluster.engine if bind is None else bind,
            query_cls=query_cls,
            **session_arguments,
        )
        self.cluster: Cluster = cluster
        self.locator = SessionLocator(self, cluster.dialect)
        self.consistent_reads = consistent_reads
        self._cluster_connection: ClusterConnection | None = None
        self._consistent_shards: tuple[str, ...] | None = None

    def begin_consistent(self, shards: Iterable[str] | None = None) -> SessionTransaction:
        """Begin a transaction that sees every distributed transaction wholly or not at all.

        As ``begin()``, and a context manager like what that returns. The transaction is REPEATABLE
        READ on every shard, and takes all their snapshots now: it sees what was committed before
        this call, and nothing of what is committed after it returned. It may write, as any
        transaction of that level.

        :param shards: names of those that it will use; None: all. Others are refused in it.
        :raises SnapshotsDiffer: the shards did not come to show the same within
            ``Timeouts.consistent_seconds``; it can be tried again.
        :raises ConfigurationError: consistent reads are switched off in the cluster.
        """
        transaction = self.begin()
        self.take_snapshots(shards)
        return transaction

    def take_snapshots(self, shards: Iterable[str] | None = None) -> None:
        """Let the transaction that has just begun be one of `begin_consistent`."""
        self._consistent_shards = tuple(self.cluster.shards if shards is None else shards)
        try:
            self.connection()
        except BaseException:
            self.rollback()
            raise
        finally:
            self._consistent_shards = None

    def get_many(
        self,
        entity: type[T] | Mapper[T],
        keys: Iterable[Any],
        *,
        options: Sequence[ORMOption] | None = None,
        populate_existing: bool = False,
        with_for_update: ForUpdateParameter = None,
        execution_options: Mapping[str, Any] = _NO_OPTIONS,
    ) -> list[T | None]:
        """Return the objects with many primary keys, as ``get()`` returns each.

        The list has an item for each key, in the order of the keys: the object, or None where there
        is none. A key that is given twice gives the same object twice. Objects that the session
        holds are not read again, unless they are expired or that is asked for. All others are read
        in one round trip per shard (10,000 keys at a time), each shard being asked for its own keys
        only; where the keys do not tell the shard, all shards are asked.

        :param keys: each as ``get()`` takes it: a value, a tuple of values in the order of the
            primary key's columns, or a dictionary by attributes.
        :param options: loader options, for what is read.
        :param populate_existing: read all again, and overwrite what the session holds.
        :param with_for_update: lock the rows, and read all again; as in ``get()``.
        :raises sqlalchemy.exc.InvalidRequestError: a key has not as many values, or not the names.
        """
        reading = Reading(
            self,
            entity,
            options=options,
            is_anew=populate_existing or execution_options.get("populate_existing", False),
            lock=with_for_update,
            execution_options=execution_options,
        )
        return reading.objects(keys)

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

    def copy_from(
        self,
        model: Any,
        rows: Any,
        *,
        columns: Sequence[str] | None = None,
        progress: Callable[[int], object] | None = None,
        csv: CsvFormat | None = None,
    ) -> CopyResult:
        """Copy rows into a table by binary COPY, each to the shard of its key.

        Rows are read once, in the calling thread, and sent to all shards side by side; what waits
        for a slow shard is bounded. They are part of the session's transaction, and no objects of
        the session. What is pending is flushed first.

        :param model: a mapped class of one table, or a `Table`.
        :param rows: an iterable of mappings, tuples, or objects with attributes; a CSV file, as a
            path or an open file of text or bytes; or Arrow data (``sqlalchemy-shards[arrow]``).
        :param columns: names of attributes or columns, where rows do not tell them (tuples), or
            not all that they have are wanted.
        :param progress: called with the number of rows taken so far, now and then.
        :param csv: how the CSV is written.
        :raises RowRefused: a value is not of its column's type, or a row has other columns than
            the first one.
        :raises MissingShardKey: a row has no shard key.
        :raises UnsupportedStatement: the table cannot be filled by COPY, or a column is unknown.
        """
        return copy_into(self, model, rows, columns, progress, csv)

    def copy_to(
        self,
        source: Any,
        target: Any = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        csv: CsvFormat | None = None,
        arrow: bool = False,
        progress: Callable[[int], object] | None = None,
        execution_options: Mapping[str, Any] | None = None,
    ) -> Any:
        """Give the rows of a SELECT or of a table, in constant memory.

        They are those that the session's transaction sees. Where the statement has no order, the
        rows of the shards come as they arrive.

        :param source: a mapped class, a `Table`, or a SELECT of columns.
        :param target: a path, or a file open for writing, of text or bytes: rows are written as
            CSV, and their number is returned. None: an iterator of tuples is returned, with the
            values that an ordinary SELECT gives.
        :param csv: how the CSV is to be written.
        :param arrow: return a ``pyarrow.RecordBatchReader`` in place of the iterator.
        :param progress: called with the number of rows written so far, now and then.
        :raises UnsupportedStatement: it is a SELECT of objects, or one that is refused anyway.
        :raises ConfigurationError: ``arrow`` with a target.
        """
        execute = Executed(self, source, parameters or {}, execution_options or {})
        if target is not None:
            return copy_out(execute, target, csv, progress, arrow=arrow)
        return reader_of(arrow_out(execute)) if arrow else rows_out(execute)

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
        shards = session._consistent_shards
        if not transaction.nested and (shards is not None or session.consistent_reads):
            cluster_connection.begin_consistent(shards)


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
