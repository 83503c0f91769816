"""How far batches have come: a row of ``shards.batches``.

A row is changed in the transaction of the batch that it tells of, so it is true after any failure.
It stays until the revision is done, and goes in the transaction in which Alembic notes that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Connection

_BEGIN: Final = text(
    "INSERT INTO shards.batches (name, statement) VALUES (:name, :statement)"
    " ON CONFLICT (name) DO NOTHING"
)
_READ: Final = text(
    "SELECT statement, done_to, ends_at, batches, rows, finished FROM shards.batches"
    " WHERE name = :name FOR UPDATE"
)
_END: Final = text("UPDATE shards.batches SET ends_at = :ends_at WHERE name = :name")
_NOTE: Final = text(
    "UPDATE shards.batches SET done_to = :done_to, batches = batches + 1, rows = rows + :rows,"
    " changed_at = pg_catalog.clock_timestamp() WHERE name = :name"
)
_FINISH: Final = text(
    "UPDATE shards.batches SET finished = true, changed_at = pg_catalog.clock_timestamp()"
    " WHERE name = :name"
)
_FORGET: Final = text("DELETE FROM shards.batches WHERE name = :name")


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far some batches are.

    :param done_to: the last key that is done, as text; None: none is.
    :param ends_at: the last key that there was at the beginning.
    """

    done_to: str | None
    ends_at: str | None
    batches: int
    rows: int
    finished: bool


def begin(connection: Connection, name: str, statement: str) -> None:
    """Note that batches begin, if they have not begun."""
    connection.execute(_BEGIN, {"name": name, "statement": statement})


def read(connection: Connection, name: str, statement: str) -> BatchProgress:
    """Read how far batches are, and keep others from going on with them in this transaction.

    :raises ConfigurationError: other batches of the name are under way.
    """
    begun, *rest = connection.execute(_READ, {"name": name}).one()
    if begun != statement:
        raise ConfigurationError(
            f"batches of the name {name!r} are under way here with another statement",
            "give these another name, or finish those with their revision as it was",
        )
    return BatchProgress(*rest)


def note_end(connection: Connection, name: str, ends_at: str) -> None:
    """Note the last key that there is: later rows are not for these batches."""
    connection.execute(_END, {"name": name, "ends_at": ends_at})


def note(connection: Connection, name: str, done_to: str, rows: int) -> None:
    """Note that a batch is done."""
    connection.execute(_NOTE, {"name": name, "done_to": done_to, "rows": rows})


def finish(connection: Connection, name: str) -> None:
    """Note that there is no further batch."""
    connection.execute(_FINISH, {"name": name})


def forget(connection: Connection, name: str) -> None:
    """Remove the row: the revision is done."""
    connection.execute(_FORGET, {"name": name})


def is_ready(connection: Any) -> bool:
    """Whether the database has the table."""
    found = connection.execute(text("SELECT to_regclass('shards.batches') IS NOT NULL"))
    return bool(found.scalar_one())
