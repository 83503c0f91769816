"""The workspace: the PostgreSQL that runs what is gathered, over connections of its own.

It is never a participant of the transaction: what it does is rolled back when the answer is there.

Fails closed: after each statement the server is asked which relations it has touched. One that was
not shipped would have given the rows of one shard only, so the answer is thrown away.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg.rows import scalar_row, tuple_row

from sqlalchemy_shards.catalog.columns import sorting_of
from sqlalchemy_shards.cluster.streaming import Lease, StreamedAnswer, abandon_cursor
from sqlalchemy_shards.connections.fan_out import Branch
from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.execution.shadows import (
    Shadow,
    TextArray,
    TextArrayDumper,
    copy_statement,
    index_definitions,
    table_definition,
    with_ctes,
)
from sqlalchemy_shards.planning.wire import ROUNDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Pool

    from sqlalchemy_shards.cluster.enlistment.transaction_log import Told
    from sqlalchemy_shards.connections.fan_out import FanOut

T = TypeVar("T")

WORKSPACE: Final = "workspace"
"""Stands where errors name a shard."""

CTE_ROWS_MAX: Final = 1_000
"""PostgreSQL's planner knows what is in a temporary table, and not in a CTE's array: it then joins
row by row (query 7 of TPC-H over 2,502 rows: 1.6 s, against 60 ms)."""

LOOKUP_ROWS_MIN: Final = 1_000
"""A table of no more rows than these is read as quickly without an index."""

SETTINGS: Final = ("client_encoding", "TimeZone", "DateStyle", "IntervalStyle")
"""What PostgreSQL reads and writes values by; reported to the client by the server."""

_LOST_CONNECTION: Final = ("08", "57P")
"""SQLSTATEs of connections that failed or were ended; None comes from a broken socket."""

_TOUCHED: Final = """
SELECT l.relation::pg_catalog.regclass::text
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation'
  AND l.database = (SELECT oid FROM pg_catalog.pg_database
                    WHERE datname = pg_catalog.current_database())
  AND c.relpersistence <> 't'
  AND c.relnamespace NOT IN ('pg_catalog'::pg_catalog.regnamespace,
                             'pg_toast'::pg_catalog.regnamespace,
                             'information_schema'::pg_catalog.regnamespace)
LIMIT 1
"""


class Workspace:
    """Connections to the PostgreSQL that runs gathered statements. Thread-safe.

    :param place: where it is, in words.
    :param make_pool: makes its pool, when it is first needed.
    :param fan_out: runs a statement so that it can be cancelled.
    :param sorting: tells how the shards sort text; None: it is the database of one of them.
    :param cte_rows_max: more rows than these go into temporary tables.
    """

    def __init__(
        self,
        place: str,
        make_pool: Callable[[], Pool],
        fan_out: FanOut,
        sorting: Callable[[], str] | None = None,
        cte_rows_max: int = CTE_ROWS_MAX,
    ) -> None:
        self.place = place
        self._fan_out = fan_out
        self.cte_rows_max = cte_rows_max
        self._make_pool = make_pool
        self._sorting = sorting
        self._lock = threading.Lock()
        self._pool: Pool | None = None

    def run(
        self,
        sql: str,
        parameters: Mapping[str, Any],
        shadows: Sequence[Shadow],
        settings: Mapping[str, str],
        *,
        told: Sequence[Told],
        needs_tables: bool,
        stream: str | None = None,
        deadline_seconds: float | None = None,
    ) -> Any:
        """Run a SELECT over shipped rows; return the driver's cursor, with all rows in it.

        :param settings: values of `SETTINGS` on the shards that the rows are from.
        :param told: what the session's transaction was set to.
        :param stream: name of a server-side cursor: return a `StreamedAnswer`, which must be
            closed.
        :raises UnsupportedStatement: it touched a relation that was not shipped.
        """
        needs_tables = needs_tables or sum(len(each.rows) for each in shadows) > self.cte_rows_max

        def work(connection: psycopg.Connection[Any]) -> Any:
            cursor = connection.cursor(row_factory=tuple_row)
            _allow_tables(cursor, needs_tables=needs_tables)
            for each in told:
                cursor.execute(each.sql, each.parameters)
            _set(connection, settings)
            written, more = sql, parameters
            if needs_tables:
                _fill_tables(cursor, shadows)
            else:
                written, cells = with_ctes(sql, shadows)
                more = {**parameters, **cells}
            if stream is not None:
                cursor = connection.cursor(stream, row_factory=tuple_row)
            cursor.adapters.register_dumper(TextArray, TextArrayDumper)
            try:
                cursor.execute(written, more)
                _check_touched(connection)
            except BaseException:
                abandon_cursor(cursor)
                raise
            return cursor

        if stream is not None:
            return self._again_if_lost(lambda: self._streamed(work, deadline_seconds))
        return self._perform(work, deadline_seconds)

    def _streamed(
        self, work: Callable[[psycopg.Connection[Any]], Any], deadline_seconds: float | None
    ) -> StreamedAnswer:
        def perform(connection: psycopg.Connection[Any], step: Callable[[], T]) -> T:
            return self._run_there(connection, step, deadline_seconds)

        lease = Lease(self._pool_of_own().connect())
        try:
            self._check_sorting(lease.driver)
            cursor = perform(lease.driver, lambda: work(lease.driver))
        except BaseException as error:
            lease.end(error)
            raise
        return StreamedAnswer(cursor, _check_touched, perform, lease)

    def order(
        self,
        sql: str,
        parameters: Mapping[str, Any],
        settings: Mapping[str, str],
        deadline_seconds: float | None = None,
    ) -> list[int]:
        """Run a statement that puts numbers in order; return them."""

        def work(connection: psycopg.Connection[Any]) -> list[int]:
            cursor = connection.cursor(row_factory=scalar_row)
            _set(connection, settings)
            cursor.adapters.register_dumper(TextArray, TextArrayDumper)
            return cursor.execute(sql.encode(), parameters).fetchall()

        return self._perform(work, deadline_seconds)

    def ask(self, question: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Ask something that changes nothing."""
        return self._perform(question, None)

    def _perform(
        self, work: Callable[[psycopg.Connection[Any]], T], deadline_seconds: float | None
    ) -> T:
        return self._again_if_lost(lambda: self._perform_once(work, deadline_seconds))

    def _again_if_lost(self, attempt: Callable[[], T]) -> T:
        try:
            return attempt()
        except psycopg.OperationalError as error:
            if not _is_lost(error):
                raise
        # A connection of the pool was dead. Nothing has happened: it can be done once more.
        self.close_pool(is_own=True)
        return attempt()

    def _perform_once(
        self, work: Callable[[psycopg.Connection[Any]], T], deadline_seconds: float | None
    ) -> T:
        with self._connection() as connection:
            self._check_sorting(connection)
            return self._run_there(connection, lambda: work(connection), deadline_seconds)

    def _run_there(
        self,
        connection: psycopg.Connection[Any],
        work: Callable[[], T],
        deadline_seconds: float | None,
    ) -> T:
        branch = Branch(WORKSPACE, work, lambda: connection)
        (outcome,) = self._fan_out.run([branch], deadline_seconds=deadline_seconds)
        if isinstance(outcome.error, psycopg.DataError) and ROUNDED in str(outcome.error):
            raise UnsupportedStatement(
                "extra_float_digits is below 1 on a shard, which writes floating-point numbers "
                "rounded",
                "reset extra_float_digits: PostgreSQL's own value is 1",
            ) from outcome.error
        if isinstance(outcome.error, psycopg.Error):
            outcome.error.shard = WORKSPACE  # type: ignore[attr-defined]
        return outcome.result()

    def _check_sorting(self, connection: psycopg.Connection[Any]) -> None:
        """Look once whether text is compared as on the shards.

        :raises UnsupportedStatement: it is not.
        """
        if self._sorting is None:
            return
        if sorting_of(connection) != self._sorting():
            raise UnsupportedStatement(
                "the database given as workspace sorts text otherwise than the shards",
                "create it with the collation, character type, provider and encoding of theirs",
                shard=WORKSPACE,
            )
        self._sorting = None

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        lease = Lease(self._pool_of_own().connect())
        try:
            yield lease.driver
        except BaseException as error:
            lease.end(error)
            raise
        lease.end()

    def _pool_of_own(self) -> Pool:
        with self._lock:
            if self._pool is None:
                self._pool = self._make_pool()
            return self._pool

    def close_pool(self, *, is_own: bool) -> None:
        """Close the idle connections; in a forked child, only forget those of the parent."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and is_own:
            pool.dispose()


def _is_lost(error: psycopg.OperationalError) -> bool:
    return error.sqlstate is None or error.sqlstate.startswith(_LOST_CONNECTION)


def _set(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        if connection.info.parameter_status(name) != value:
            connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", (name, value))


def _allow_tables(cursor: Any, *, needs_tables: bool) -> None:
    status = cursor.connection.info.parameter_status("default_transaction_read_only")
    if needs_tables and status == "on":
        cursor.execute("SET TRANSACTION READ WRITE")


def _fill_tables(cursor: Any, shadows: Sequence[Shadow]) -> None:
    for shadow in shadows:
        cursor.execute(table_definition(shadow).encode())
        with cursor.copy(copy_statement(shadow).encode()) as copy:
            for chunk in shadow.rows.chunks():
                copy.write(chunk)
        if len(shadow.rows) > LOOKUP_ROWS_MIN:
            for definition in index_definitions(shadow):
                cursor.execute(definition.encode())
        cursor.execute(f"ANALYZE pg_temp.{shadow.name}".encode())


def _check_touched(connection: psycopg.Connection[Any]) -> None:
    with connection.cursor(row_factory=tuple_row) as cursor:
        touched = cursor.execute(_TOUCHED).fetchone()
    if touched is not None:
        raise UnsupportedStatement(
            f"the statement reads {touched[0]}, which is not one of the tables that it names",
            'run it on one shard with execution_options(shard="...")',
        )
