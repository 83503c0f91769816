"""Validating a constraint that was added without looking at the rows.

A constraint that is added with ``postgresql_not_valid=True`` holds for what is written from then
on, and its lock is short. Validating it looks at all rows, and lets others read and write.
"""

from __future__ import annotations

from typing import Any

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import MetaData, Table

from sqlalchemy_shards.migrations.operations.outside import LOCK_SECONDS, outside


@Operations.register_operation("validate_constraint")
class ValidateConstraintOp(MigrateOperation):
    """Validates a constraint outside of the migration's transaction."""

    def __init__(
        self,
        constraint_name: str,
        table_name: str,
        *,
        schema: str | None = None,
        lock_timeout: float = LOCK_SECONDS,
    ) -> None:
        self.constraint_name = constraint_name
        self.table_name = table_name
        self.schema = schema
        self.lock_timeout = lock_timeout

    @classmethod
    def validate_constraint(
        cls,
        operations: Operations,
        constraint_name: str,
        table_name: str,
        *,
        schema: str | None = None,
        lock_timeout: float = LOCK_SECONDS,
    ) -> None:
        """Check the rows that were there before a constraint (``VALIDATE CONSTRAINT``).

        Commits what the migration did before, since the lock with which the constraint was added
        would be held meanwhile. May be run again: a valid one stays as it is.

        :param lock_timeout: seconds that its wait for the table's lock may last.
        """
        operations.invoke(
            cls(constraint_name, table_name, schema=schema, lock_timeout=lock_timeout)
        )


@Operations.implementation_for(ValidateConstraintOp)
def validate_constraint(operations: Operations, operation: ValidateConstraintOp) -> None:
    """Validate a constraint."""
    context = operations.get_context()
    quoting: Any = context.dialect.identifier_preparer
    table = Table(operation.table_name, MetaData(), schema=operation.schema)
    statement = (
        f"ALTER TABLE {quoting.format_table(table)}"
        f" VALIDATE CONSTRAINT {quoting.quote(operation.constraint_name)}"
    )
    if context.as_sql:
        with context.autocommit_block():
            context.impl.static_output(f"{statement};")
        return
    with outside(operations, lock_timeout=operation.lock_timeout) as connection:
        connection.exec_driver_sql(statement)
