"""Leaving the transaction of a migration, with waits that are bounded."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.turns.place import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

LOCK_SECONDS: Final = 600.0
"""How long each wait of an operation may last that keeps nobody from reading and writing."""


@contextmanager
def outside(operations: Operations, *, lock_timeout: float) -> Iterator[Connection]:
    """Commit what the migration did so far, and begin anew afterwards.

    :param lock_timeout: seconds that a wait for a lock may last in the block.
    """
    context = operations.get_context()
    with context.autocommit_block():
        connection = context.connection
        assert connection is not None
        with _lock_timeout(connection, lock_timeout):
            yield connection


@contextmanager
def transaction(connection: Connection, *, keep: bool = True) -> Iterator[None]:
    """A transaction over a connection in autocommit mode.

    :param keep: False rolls it back in any case.
    """
    connection.exec_driver_sql("BEGIN")
    try:
        yield
    except BaseException:
        with suppress(SQLAlchemyError):  # the connection may be lost, and that is what is told
            connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT" if keep else "ROLLBACK")


def refuse_as_sql(operations: Operations, name: str, why: str) -> None:
    """Refuse an operation with ``--sql``.

    :raises ConfigurationError: SQL is to be written.
    """
    if operations.get_context().as_sql:
        raise ConfigurationError(
            f"op.{name}() cannot be written as SQL: {why}",
            "migrate online, or leave its revision out of --sql by the revisions that you give",
        )


def shard_of(context: MigrationContext) -> str | None:
    """The name of the shard at hand, where it is known."""
    place = place_of(context)
    return None if place is None else place.shard


@contextmanager
def _lock_timeout(connection: Connection, seconds: float) -> Iterator[None]:
    before: str = connection.execute(text("SELECT current_setting('lock_timeout')")).scalar_one()
    _set_lock_timeout(connection, f"{round(seconds * 1000)}ms")
    try:
        yield
    except BaseException:
        with suppress(SQLAlchemyError):  # the connection may be lost, and that is what is told
            _set_lock_timeout(connection, before)
        raise
    _set_lock_timeout(connection, before)


def _set_lock_timeout(connection: Connection, value: str) -> None:
    connection.execute(text("SELECT set_config('lock_timeout', :value, false)"), {"value": value})
