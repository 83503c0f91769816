"""Building and dropping indexes while others read and write.

- May be run again after any failure: what a failure left is found, and finished or built anew.
- An index that is there is never taken for another.
- Every wait is bounded. PostgreSQL waits for the transactions that have written to the table, and
  then for all that hold a snapshot older than the index, whatever they read.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from alembic.operations import Operations, ops

from sqlalchemy_shards.migrations.operations.index_states import (
    check_same,
    state_of,
    wait_for_builder,
)
from sqlalchemy_shards.migrations.operations.outside import LOCK_SECONDS, outside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, TextClause

log = logging.getLogger("alembic.shards")


@Operations.register_operation("create_index_concurrently")
class CreateIndexConcurrentlyOp(ops.CreateIndexOp):
    """Builds an index outside of a transaction."""

    lock_timeout: float = LOCK_SECONDS

    @classmethod
    def of(cls, operation: ops.CreateIndexOp) -> CreateIndexConcurrentlyOp:
        """The same, outside of a transaction."""
        return cls(
            operation.index_name,
            operation.table_name,
            operation.columns,
            schema=operation.schema,
            unique=operation.unique,
            **without_concurrently(operation.kw),
        )

    @classmethod
    def create_index_concurrently(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        columns: Sequence[str | TextClause | ColumnElement[Any]],
        *,
        schema: str | None = None,
        unique: bool = False,
        lock_timeout: float = LOCK_SECONDS,
        **options: Any,
    ) -> None:
        """Build an index while others write to the table (``CREATE INDEX CONCURRENTLY``).

        Commits what the migration did before. May be run again: an index that is there and valid is
        left alone if it is the same, and one that a failure left invalid is built anew.

        :param lock_timeout: seconds that each of its waits for other transactions may last.
        :param options: as of ``op.create_index()``: ``postgresql_using=``, ``postgresql_where=``,
            ``postgresql_include=`` and so on.
        :raises ConfigurationError: there is another index of that name.
        """
        operation = cls(index_name, table_name, columns, schema=schema, unique=unique, **options)
        operation.lock_timeout = lock_timeout
        operations.invoke(operation)

    def reverse(self) -> DropIndexConcurrentlyOp:
        """Drop it, likewise."""
        return DropIndexConcurrentlyOp.of(super().reverse())


@Operations.register_operation("drop_index_concurrently")
class DropIndexConcurrentlyOp(ops.DropIndexOp):
    """Drops an index outside of a transaction."""

    lock_timeout: float = LOCK_SECONDS

    @classmethod
    def of(cls, operation: ops.DropIndexOp) -> DropIndexConcurrentlyOp:
        """The same, outside of a transaction."""
        return cls.from_index(operation.to_index())  # type: ignore[return-value]

    @classmethod
    def drop_index_concurrently(
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        *,
        schema: str | None = None,
        lock_timeout: float = LOCK_SECONDS,
    ) -> None:
        """Drop an index while others use the table (``DROP INDEX CONCURRENTLY``).

        Commits what the migration did before. May be run again: an index that is not there is no
        error.

        :param lock_timeout: seconds that each of its waits for other transactions may last.
        """
        operation = cls(index_name, table_name, schema=schema)
        operation.lock_timeout = lock_timeout
        operations.invoke(operation)

    def reverse(self) -> CreateIndexConcurrentlyOp:
        """Build it, likewise."""
        return CreateIndexConcurrentlyOp.of(super().reverse())


@Operations.implementation_for(CreateIndexConcurrentlyOp)
def create_index_concurrently(operations: Operations, operation: CreateIndexConcurrentlyOp) -> None:
    """Build an index, or find it built."""
    context = operations.get_context()
    index = operation.to_index(context)
    if context.as_sql:
        with context.autocommit_block():
            operations.impl.create_index(_concurrent(index))
        return
    with outside(operations, lock_timeout=operation.lock_timeout) as connection:
        state = state_of(connection, index)
        if state is not None and not state.is_valid:
            wait_for_builder(connection, index, seconds=operation.lock_timeout)
            state = state_of(connection, index)
        if state is not None and state.is_on_table and not state.is_valid:
            log.info("index %s was not built to its end: it is built anew", index.name)
            operations.impl.drop_index(_concurrent(index), if_exists=True)
            state = None
        if state is not None:
            check_same(operations, operation, state)
        else:
            operations.impl.create_index(_concurrent(index))


@Operations.implementation_for(DropIndexConcurrentlyOp)
def drop_index_concurrently(operations: Operations, operation: DropIndexConcurrentlyOp) -> None:
    """Drop an index, or find it dropped."""
    context = operations.get_context()
    index = _concurrent(operation.to_index(context))
    if context.as_sql:
        with context.autocommit_block():
            operations.impl.drop_index(index, if_exists=True)
        return
    with outside(operations, lock_timeout=operation.lock_timeout):
        operations.impl.drop_index(index, if_exists=True)


def without_concurrently(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an index, but for the one that takes it out of the transaction."""
    return {name: value for name, value in options.items() if name != "postgresql_concurrently"}


def _concurrent(index: Any) -> Any:
    index.dialect_options["postgresql"]["concurrently"] = True
    return index
