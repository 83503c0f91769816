"""Changing the rows of a table in many small transactions.

- A batch is a range of keys. Each is committed by itself, together with the note that it is done:
  none is run twice, and none is left out, whatever is killed when.
- The end is the last key at the beginning. Rows that come later are for the application to write
  as they should be.
- Two at once do not meet: whoever comes second waits for the note, and goes on behind it.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import tenacity
from alembic.operations import MigrateOperation, Operations
from sqlalchemy import MetaData, Table, column, text

from sqlalchemy_shards.connections.event_loop import sleep
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.operations import batch_progress
from sqlalchemy_shards.migrations.operations.outside import (
    outside,
    refuse_as_sql,
    shard_of,
    transaction,
)
from sqlalchemy_shards.migrations.operations.placing import bootstrap_here
from sqlalchemy_shards.transactions.retryable import BY_THE_SERVER

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = logging.getLogger("alembic.shards")

ROWS: Final = 10_000
ATTEMPTS: Final = 5
LOCK_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 60.0

_KEY_TYPE: Final = text(
    """
    SELECT pg_catalog.format_type(atttypid, atttypmod), attnotnull
    FROM pg_catalog.pg_attribute
    WHERE attrelid = CAST(:table AS pg_catalog.regclass) AND attname = :key AND attnum > 0
    """
)


_BOUNDS: Final = ("first", "last")
_PARAMETER: Final = re.compile(r"(?<![:\w\\]):(first|last)(?![\w:])")


@Operations.register_operation("run_batches")
@dataclass(frozen=True)
class RunBatchesOp(MigrateOperation):
    """Runs a statement over the rows of a table, some at a time."""

    name: str
    statement: str
    table: str
    key: str
    schema: str | None = None
    rows: int = ROWS
    pause: float = 0.0
    statement_timeout: float = STATEMENT_SECONDS
    lock_timeout: float = LOCK_SECONDS
    attempts: int = ATTEMPTS

    @classmethod
    def run_batches(
        cls,
        operations: Operations,
        name: str,
        statement: str,
        *,
        table: str,
        key: str,
        schema: str | None = None,
        rows: int = ROWS,
        pause: float = 0.0,
        statement_timeout: float = STATEMENT_SECONDS,
        lock_timeout: float = LOCK_SECONDS,
        attempts: int = ATTEMPTS,
    ) -> int:
        """Run a statement over all rows of a table, some at a time, each time in a transaction.

        Commits what the migration did before. After a failure, running the revision again goes on
        behind the last batch that was committed. Rows that are written after the beginning, with
        keys behind the last one, are not visited.

        :param name: of these batches, while they are under way.
        :param statement: changes the rows whose ``key`` is from ``:first`` to ``:last``, both
            included.
        :param table: its rows are divided; the statement may change those of others, too.
        :param key: a column that is never null, and should be the first of an index.
        :param rows: how many of the table a batch has; more where they have equal keys.
        :param pause: seconds between two batches.
        :param statement_timeout: seconds that one batch may take.
        :param lock_timeout: seconds that it waits for a lock at most.
        :param attempts: how often a batch is tried that meets a lock or a deadlock.
        :return: how many rows were changed, earlier runs included.
        :raises ConfigurationError: the statement has no such parameters, the key may be null, or
            other batches of the name are under way.
        """
        options = (rows, pause, statement_timeout, lock_timeout, attempts)
        operation = cls(name, statement, table, key, schema, *options)
        changed: int = operations.invoke(operation)
        return changed


@Operations.implementation_for(RunBatchesOp)
def run_batches(operations: Operations, operation: RunBatchesOp) -> int:
    """Run what is left of some batches."""
    refuse_as_sql(operations, "run_batches", "where a batch ends depends on the rows")
    _check(operation)
    context = operations.get_context()
    with outside(operations, lock_timeout=operation.lock_timeout) as connection:
        if not batch_progress.is_ready(connection):
            bootstrap_here(context)
        batches = _Batches(operation, connection, shard_of(context))
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=tenacity.stop_after_attempt(operation.attempts),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5.0),
            sleep=sleep,
            reraise=True,
        )
        again(batches.begin)
        while again(batches.run_one):
            sleep(operation.pause)
        changed = batches.changed()
    assert context.connection is not None
    # In the migration's own transaction: the revision is noted as done there, too.
    batch_progress.forget(context.connection, operation.name)
    return changed


class _Batches:
    def __init__(self, operation: RunBatchesOp, connection: Connection, shard: str | None) -> None:
        quoting: Any = connection.dialect.identifier_preparer
        self._operation = operation
        self._connection = connection
        self._where = "" if shard is None else f" on shard {shard}"
        self._table = quoting.format_table(
            Table(operation.table, MetaData(), schema=operation.schema)
        )
        self._key = quoting.format_column(column(operation.key))
        self._type = self._type_of_key()
        self._statement = text(_PARAMETER.sub(rf"CAST(:\1 AS {self._type})", operation.statement))

    def begin(self) -> None:
        """Note the beginning and the end, or see that they are noted."""
        operation, connection = self._operation, self._connection
        batch_progress.begin(connection, operation.name, operation.statement)
        with transaction(connection):
            progress = batch_progress.read(connection, operation.name, operation.statement)
            if progress.ends_at is None and not progress.finished:
                found = connection.exec_driver_sql(
                    f"SELECT {_as_text('k')} FROM (SELECT {self._key} AS k FROM {self._table}"
                    f" ORDER BY {self._key} DESC LIMIT 1) AS last"
                ).scalar_one_or_none()
                if found is None:
                    batch_progress.finish(connection, operation.name)
                else:
                    batch_progress.note_end(connection, operation.name, found)

    def run_one(self) -> bool:
        """Run the next batch; False: there is none."""
        operation, connection = self._operation, self._connection
        with transaction(connection):
            connection.execute(
                text("SELECT set_config('statement_timeout', :value, true)"),
                {"value": f"{round(operation.statement_timeout * 1000)}ms"},
            )
            progress = batch_progress.read(connection, operation.name, operation.statement)
            bounds = None if progress.finished else self._next(progress)
            if bounds is None:
                batch_progress.finish(connection, operation.name)
                return False
            done = connection.execute(self._statement, dict(zip(_BOUNDS, bounds, strict=True)))
            rows = max(done.rowcount, 0)
            batch_progress.note(connection, operation.name, bounds[1], rows)
        log.info(
            "batches %s%s: %s done, %s rows",
            operation.name,
            self._where,
            progress.batches + 1,
            progress.rows + rows,
        )
        return True

    def changed(self) -> int:
        """How many rows were changed."""
        operation = self._operation
        with transaction(self._connection):
            return batch_progress.read(self._connection, operation.name, operation.statement).rows

    def _next(self, progress: batch_progress.BatchProgress) -> tuple[str, str] | None:
        after = "" if progress.done_to is None else f"k > CAST(:done_to AS {self._type}) AND "
        query = (
            "WITH batch AS MATERIALIZED"
            f" (SELECT k FROM (SELECT {self._key} AS k FROM {self._table}) AS keys"
            f" WHERE {after}k <= CAST(:ends_at AS {self._type}) ORDER BY k LIMIT :rows)"
            f" SELECT (SELECT {_as_text('k')} FROM batch ORDER BY k LIMIT 1), {_as_text('k')}"
            " FROM batch ORDER BY k DESC LIMIT 1"
        )
        values = {"ends_at": progress.ends_at, "rows": self._operation.rows}
        if progress.done_to is not None:
            values["done_to"] = progress.done_to
        row = self._connection.execute(text(query), values).one_or_none()
        return None if row is None else (row[0], row[1])

    def _type_of_key(self) -> str:
        table, key = self._operation.table, self._operation.key
        row = self._connection.execute(_KEY_TYPE, {"table": self._table, "key": key}).one_or_none()
        if row is None:
            raise ConfigurationError(
                f"table {table!r} has no column {key!r} to divide its rows by",
                "name one that it has",
            )
        if not row[1]:
            raise ConfigurationError(
                f"column {key!r} of table {table!r} may be null, and rows without a key would be"
                " left out",
                "divide by a column that is NOT NULL, such as the primary key",
            )
        return str(row[0])


def _check(operation: RunBatchesOp) -> None:
    parameters = set(text(operation.statement).compile().params)
    if parameters != set(_BOUNDS):
        raise ConfigurationError(
            f"the statement of the batches {operation.name!r} must have the parameters :first and"
            " :last, and no others",
            f"end it in WHERE {operation.key} BETWEEN :first AND :last",
        )
    if operation.rows < 1 or operation.attempts < 1:
        raise ConfigurationError(
            f"the batches {operation.name!r} have rows={operation.rows} and"
            f" attempts={operation.attempts}",
            "give at least one of each",
        )


def _may_pass(error: BaseException) -> bool:
    return getattr(getattr(error, "orig", None), "sqlstate", None) in BY_THE_SERVER


def _as_text(expression: str) -> str:
    # Keys are text on their way, since Python does not have all of them; and as JSON writes them,
    # which does not depend on the session's DateStyle.
    return f"pg_catalog.to_jsonb({expression}) #>> '{{}}'"
