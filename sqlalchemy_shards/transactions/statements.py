"""What the rounds say to one server, statement by statement.

- Names are qualified and rows are tuples whatever the application has set on its connection; values
  travel as text, so that no adapter of the application's changes them.
- A command's tag is checked, since a failed transaction answers PREPARE and COMMIT with ROLLBACK
  and raises nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import tuple_row

from sqlalchemy_shards.transactions.gid import FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from sqlalchemy_shards.transactions.gid import ParticipantGid, TransactionGid

PREPARE = "PREPARE TRANSACTION"
COMMIT_PREPARED = "COMMIT PREPARED"
ROLLBACK_PREPARED = "ROLLBACK PREPARED"
DOES_NOT_EXIST = "42704"

# Only a session that ever had temporary objects looks further: a lock on one tells that this
# transaction touched it, so that PREPARE would be refused.
_ASK = """
SELECT pg_catalog.{function}()::text,
    CASE WHEN pg_catalog.pg_my_temp_schema() = 0 THEN false ELSE EXISTS (
        SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
        WHERE l.pid = pg_catalog.pg_backend_pid()
            AND c.relnamespace = pg_catalog.pg_my_temp_schema())
    END
"""
_ASK_ONLY = _ASK.format(function="pg_current_xact_id_if_assigned").encode()
_ASK_AND_ASSIGN = _ASK.format(function="pg_current_xact_id").encode()

# One round trip: no row where this is another database, or another transaction than was asked.
# `raised` must be read, or PostgreSQL would not run it.
_INSERT_DECISION = """
WITH raised AS MATERIALIZED (
    SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
    WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
)
INSERT INTO shards.decisions (gid, decision_xid, outcome, participants, format)
SELECT %(gid)s::text, %(xid)s::text::xid8, 'commit', %(participants)s::text[], %(format)s::smallint
FROM shards.identity
WHERE shard_uuid = %(shard)s::text::uuid
    AND pg_catalog.pg_current_xact_id_if_assigned() = %(xid)s::text::xid8
RETURNING (SELECT pg_catalog.count(*) FROM raised)
"""

# Skips what recovery is just removing, and need not be on disk: a row that comes back is harmless.
_FORGET_DECISIONS = """
WITH quick AS MATERIALIZED (SELECT pg_catalog.set_config('synchronous_commit', 'off', true))
DELETE FROM shards.decisions WHERE gid IN (
    SELECT gid FROM shards.decisions WHERE gid = ANY(%s::text[]) FOR UPDATE SKIP LOCKED
) AND (SELECT pg_catalog.count(*) FROM quick) = 1
"""


class RolledBackError(Exception):
    """A failed transaction was told to prepare or commit, and the server rolled it back."""


def ask(driver: psycopg.Connection[Any], *, assign: bool) -> tuple[int | None, bool]:
    """Return the xid of the open transaction, and whether temporary objects forbid to prepare it.

    :param assign: give it an xid if it has none.
    """
    with driver.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_ASK_AND_ASSIGN if assign else _ASK_ONLY).fetchone()
    if row is None:
        raise psycopg.InternalError("the server did not answer with a row")
    xid, has_temporary = row
    return None if xid is None else int(xid), bool(has_temporary)


def insert_decision(
    driver: psycopg.Connection[Any], gid: TransactionGid, participants: Sequence[UUID]
) -> bool:
    """Put the decision row into the open transaction, and make its COMMIT wait for the disk.

    Returns False where this is not the decision shard's database or transaction.
    """
    parameters = {
        "gid": str(gid),
        "xid": str(gid.decision_xid),
        "participants": [str(participant) for participant in participants],
        "format": FORMAT,
        "shard": str(gid.decision_shard),
    }
    with driver.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(_INSERT_DECISION, parameters).rowcount == 1


def prepare(driver: psycopg.Connection[Any], gid: ParticipantGid) -> None:
    """Prepare the open transaction.

    :raises RolledBackError: an earlier statement had failed; it is rolled back.
    """
    command(driver, PREPARE, gid)


def finish(driver: psycopg.Connection[Any], verb: str, gid: ParticipantGid) -> None:
    """Commit or roll back a prepared transaction over an idle connection."""
    with autocommit(driver):
        command(driver, verb, gid)


def command(driver: psycopg.Connection[Any], verb: str, gid: ParticipantGid) -> None:
    """Run a two-phase command and check its tag."""
    # A gid consists of letters, digits and slashes, and these commands take no parameters.
    cursor = driver.execute(f"{verb} '{gid}'".encode("ascii"), prepare=False)
    tag = cursor.statusmessage
    if tag != verb:
        raise RolledBackError(f"{verb} was answered {tag}: an earlier statement had failed")


def forget_decisions(driver: psycopg.Connection[Any], gids: Sequence[str]) -> None:
    """Remove decision rows whose transactions are finished everywhere, over an idle connection."""
    with autocommit(driver):
        driver.execute(_FORGET_DECISIONS, (list(gids),))


@contextmanager
def autocommit(driver: psycopg.Connection[Any]) -> Iterator[None]:
    """Send what runs inside without a BEGIN before it; the connection must be idle."""
    before = driver.autocommit
    if not before:
        driver.autocommit = True
    try:
        yield
    finally:
        if not before and not driver.closed:
            driver.autocommit = False
