"""The ledger: what was asked of a shard, and how it ended, in its table ``shards.migrations``.

- It is history. Which revisions a shard has, its version table tells, and nothing here is believed
  against it.
- It is written outside of the transactions of migrations, so that one that was rolled back stands
  in it too. That all shards are done in one moment stands in their transactions (`atomic`).
- A run that was killed stays ``running``. It is at work as long as its server process holds the
  lock of migrations; else it is *interrupted*, which the next run writes down.
- Errors are kept by their first line, without values of rows.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards.errors import ConfigurationError, MigrationBlocked
from sqlalchemy_shards.migrations.turns.origin import INTERRUPTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    Outcome = Literal["running", "done", "failed", "interrupted"]

RUNS_KEPT: Final = 100
"""How many runs a shard remembers."""

_ERROR_LENGTH_MAX: Final = 500

_MAY_WRITE: Final = """
SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege('shards.migrations', privilege))
FROM (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS p(privilege)
"""

_INTERRUPTED: Final = (
    "UPDATE shards.migrations SET outcome = 'interrupted' WHERE outcome = 'running'"
)

_BEGIN: Final = """
INSERT INTO shards.migrations (run, command, target, revisions_before, client)
VALUES (%s::text::uuid, %s::text, %s::text, %s::text[], %s::text) RETURNING id
"""

# Tried again after all shards were rolled back: one run is one row.
_BEGIN_AGAIN: Final = """
UPDATE shards.migrations SET outcome = 'running', error = NULL, revisions_after = NULL,
    finished_at = NULL, server_pid = pg_catalog.pg_backend_pid()
WHERE id = (SELECT id FROM shards.migrations ORDER BY id DESC LIMIT 1)
    AND run = %s::text::uuid AND outcome <> 'done'
RETURNING id
"""

_FORGET: Final = """
DELETE FROM shards.migrations WHERE id <= (
    SELECT id FROM shards.migrations ORDER BY id DESC OFFSET %s::integer LIMIT 1
)
"""

_FINISH: Final = """
UPDATE shards.migrations SET outcome = %s::text, revisions_after = %s::text[], error = %s::text,
    finished_at = pg_catalog.clock_timestamp()
WHERE id = %s::bigint AND outcome = 'running'
"""

# A run that found nothing to do is worth a row only if the one before it did not end well.
_NOTHING_DONE: Final = """
DELETE FROM shards.migrations m WHERE id = %s::bigint AND outcome = 'running' AND coalesce((
    SELECT earlier.outcome = 'done' FROM shards.migrations earlier
    WHERE earlier.id < m.id ORDER BY earlier.id DESC LIMIT 1
), true)
"""

_READABLE: Final = """
SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
   AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'shards' AND c.relname = 'migrations'
"""

_LAST: Final = """
SELECT id, run::text, command, target, outcome, revisions_before, revisions_after, error,
       started_at, finished_at, server_pid, role, client
FROM shards.migrations ORDER BY id DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What was asked of a shard once.

    :param run: the same on all shards that one command went through.
    :param before: the revisions that the shard had.
    :param after: those that it had at the end; None: it was killed, or the shard was lost.
    :param error: the first line of what went wrong.
    :param server_pid: of the server process that ran the migrations.
    :param client: the machine and the process that ran the command.
    """

    number: int
    run: UUID
    command: str
    target: str | None
    outcome: Outcome
    before: tuple[str, ...]
    after: tuple[str, ...] | None
    error: str | None
    started_at: datetime
    finished_at: datetime | None
    server_pid: int
    role: str
    client: str


@dataclass(frozen=True, slots=True)
class Beginning:
    """What is known of a run when it begins."""

    run: UUID
    command: str
    target: str | None
    before: Sequence[str]


def begin(driver: psycopg.Connection[Any], shard: str, beginning: Beginning) -> int:
    """Write down that a run begins, or begins again, and return its number.

    Its session holds the lock.

    :param driver: an idle connection; it is idle again afterwards.
    :raises ConfigurationError: the role may not.
    :raises MigrationBlocked: a run of all shards or none is not finished there.
    """
    with driver.transaction(), driver.cursor(row_factory=tuple_row) as cursor:
        _check_rights(cursor, shard)
        try:
            cursor.execute(_INTERRUPTED)
        except psycopg.errors.LockNotAvailable as error:
            raise MigrationBlocked(
                f"a migration of all shards or none is not finished on shard {shard!r}",
                "run shards transactions recover, and then this again",
                shard=shard,
            ) from error
        target, before = beginning.target, sorted(beginning.before)
        row = cursor.execute(_BEGIN_AGAIN, (str(beginning.run),)).fetchone()
        if row is None:
            row = cursor.execute(
                _BEGIN, (str(beginning.run), beginning.command, target, before, client())
            ).fetchone()
        cursor.execute(_FORGET, (RUNS_KEPT,))
    return int(row[0]) if row is not None else 0


def finish(
    driver: psycopg.Connection[Any],
    number: int,
    outcome: Outcome,
    *,
    after: Sequence[str] | None,
    error: str | None = None,
) -> None:
    """Write down how a run ended, unless another has found it dead in the meantime."""
    with driver.transaction():
        revisions = None if after is None else sorted(after)
        driver.execute(_FINISH, (outcome, revisions, error, number))


def finish_without_a_step(
    driver: psycopg.Connection[Any], number: int, revisions: Sequence[str]
) -> None:
    """Write down that a run found nothing to do; or forget it, where all was well before."""
    with driver.transaction():
        driver.execute(_NOTHING_DONE, (number,))
    finish(driver, number, "done", after=revisions)


def last_run(driver: psycopg.Connection[Any]) -> Run | None:
    """The last run on the shard behind a connection; None: there was none, or no ledger is there.

    :raises ConfigurationError: the role may not read it.
    """
    with driver.transaction(), driver.cursor(row_factory=tuple_row) as cursor:
        readable = cursor.execute(_READABLE).fetchone()
        if readable is None:
            return None
        if not readable[0]:
            raise ConfigurationError(
                "the role may not read 'shards.migrations'",
                "grant it USAGE on the schema shards, and SELECT on its table migrations",
            )
        row = cursor.execute(_LAST).fetchone()
    if row is None:
        return None
    number, run, command, target, outcome, before, after, *rest = row
    return Run(
        number,
        UUID(run),
        command,
        target,
        outcome,
        tuple(before or ()),
        None if after is None else tuple(after),
        *rest,
    )


def client() -> str:
    """Who runs this: the machine and the process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def told(error: BaseException) -> str:
    """What an error says in one line, without values of rows."""
    if isinstance(error, INTERRUPTIONS):
        return "interrupted"
    driver_error = getattr(error, "orig", None) if isinstance(error, DBAPIError) else error
    primary = getattr(getattr(driver_error, "diag", None), "message_primary", None)
    text = str(primary or driver_error or error).partition("\n")[0].strip()
    kind = type(driver_error or error).__name__
    return f"{kind}: {text}"[:_ERROR_LENGTH_MAX] if text else kind


def _check_rights(cursor: psycopg.Cursor[Any], shard: str) -> None:
    row = cursor.execute(_MAY_WRITE).fetchone()
    if row is None or not row[0]:
        raise ConfigurationError(
            f"the role may not write to 'shards.migrations' of shard {shard!r}, where migrations"
            " are written down",
            "migrate as the role that owns the schema shards, or grant this one USAGE on the schema"
            " and SELECT, INSERT, UPDATE and DELETE on the table",
            shard=shard,
        )
