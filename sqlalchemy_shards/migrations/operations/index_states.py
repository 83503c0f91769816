"""What became of an index: whether it is there, finished, and the one that is meant."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from alembic.operations.ops import CreateIndexOp
from sqlalchemy import text

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.operations.outside import transaction

if TYPE_CHECKING:
    from alembic.operations import Operations
    from sqlalchemy import Connection, Index

# By name, since an index belongs to a schema, whatever table it is on.
_STATE: Final = text(
    """
    SELECT i.indrelid = t.oid, i.indisvalid, pg_catalog.pg_get_indexdef(i.indexrelid)
    FROM pg_catalog.pg_class t
    JOIN pg_catalog.pg_class c ON c.relnamespace = t.relnamespace AND c.relname = :name
    JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
    WHERE t.oid = CAST(:table AS pg_catalog.regclass)
    """
)


# Who changes a row is its xmax, and whoever is in a transaction holds the lock of its number.
_CHANGING: Final = text(
    """
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = i.xmax
        WHERE i.indrelid = CAST(:table AS pg_catalog.regclass)
    )
    """
)
_POLL_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class IndexState:
    """An index as it is in the database.

    :param is_on_table: it is on the table that is meant, not on another in the same schema.
    :param is_valid: it was built to its end.
    :param definition: as PostgreSQL writes it.
    """

    is_on_table: bool
    is_valid: bool
    definition: str


def state_of(connection: Connection, index: Index) -> IndexState | None:
    """Look for an index; None: there is none of its name."""
    found = connection.execute(_STATE, {"name": index.name, "table": table_text(connection, index)})
    row = found.one_or_none()
    return None if row is None else IndexState(*row)


def wait_for_builder(connection: Connection, index: Index, *, seconds: float) -> None:
    """Wait until nobody builds or drops an index of the table.

    Who builds one holds this lock, and a server goes on building for a client that is dead. The
    lock goes shortly before the end: before the commit that says that the index is valid.

    :param seconds: how long to wait for that commit; `lock_timeout` bounds the wait for the lock.
    """
    table = table_text(connection, index)
    with transaction(connection):
        connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and connection.scalar(_CHANGING, {"table": table}):
        time.sleep(_POLL_SECONDS)


def check_same(operations: Operations, operation: CreateIndexOp, state: IndexState) -> None:
    """Check that an index that is there is the one that an operation would build.

    It is built on an empty copy of the table, so that PostgreSQL writes both definitions alike.

    :raises ConfigurationError: it is another.
    """
    connection = operations.get_context().connection
    assert connection is not None
    index = operation.to_index(operations.get_context())
    wanted = _definition_on_copy(operations, operation, index)
    if state.is_on_table and _without_table(state.definition) == _without_table(wanted):
        return
    raise ConfigurationError(
        f"there is an index {index.name!r} already, and it is another one: {state.definition}",
        "give the new index another name, or drop the old one first",
    )


def table_text(connection: Connection, index: Index) -> str:
    """The name of an index's table as SQL, with its schema."""
    assert index.table is not None
    return connection.dialect.identifier_preparer.format_table(index.table)


def _definition_on_copy(operations: Operations, operation: CreateIndexOp, index: Index) -> str:
    connection = operations.get_context().connection
    assert connection is not None
    copy = CreateIndexOp(
        operation.index_name,
        operation.table_name,
        operation.columns,
        schema="pg_temp",
        unique=operation.unique,
        **operation.kw,
    ).to_index(operations.get_context())
    assert copy.table is not None
    name = connection.dialect.identifier_preparer.quote(copy.table.name)
    with transaction(connection, keep=False):
        # Of the same name, since an expression may name its table.
        connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE {name} (LIKE {table_text(connection, index)})"
        )
        operations.impl.create_index(copy)
        state = state_of(connection, copy)
    assert state is not None
    return state.definition


def _without_table(definition: str) -> tuple[bool, str]:
    head, _, tail = definition.partition(" USING ")
    return head.startswith("CREATE UNIQUE "), tail
