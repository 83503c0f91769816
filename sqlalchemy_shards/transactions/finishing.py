"""Finishing over connections of their own: for the coordinator that lost one, and for recovery.

- A prepared transaction is finished only on the verified primary of the shard that its name gives:
  in another database, or on a standby, "it does not exist" means nothing.
- It is finished as the role that prepared it, since PostgreSQL asks for that role or a superuser.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy.exc import SQLAlchemyError

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions.settle import Outcome, settle
from sqlalchemy_shards.transactions.statements import DOES_NOT_EXIST, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.events import Hooks
    from sqlalchemy_shards.transactions.gid import ParticipantGid, TransactionGid

Connect: TypeAlias = Callable[[str], AbstractContextManager[psycopg.Connection[Any]]]
"""Shard name -> an idle autocommit connection of its own to that shard, given back at the end."""

UNREACHABLE = (psycopg.Error, SQLAlchemyError, OSError)
"""What opening or using such a connection may raise; nothing is known then."""

PAUSE_SECONDS_FIRST = 0.02
PAUSE_SECONDS_MAX = 1.0

_VERIFY = """
SELECT
    EXISTS (SELECT FROM shards.identity
        WHERE shard_uuid = %(shard)s::text::uuid AND cluster_uuid = %(cluster)s::text::uuid)
        AND NOT pg_catalog.pg_is_in_recovery(),
    (SELECT owner FROM pg_catalog.pg_prepared_xacts
        WHERE gid = %(gid)s::text AND database = pg_catalog.current_database()),
    current_user
"""


class Finish(enum.Enum):
    """What finishing a prepared transaction came to."""

    DONE = "done here"
    GONE = "not there: finished by someone else, or never prepared"


def finish_prepared(connection: psycopg.Connection[Any], verb: str, gid: ParticipantGid) -> Finish:
    """Commit or roll back a prepared transaction, as its owner.

    :param connection: idle and in autocommit mode, to the shard that the gid names.
    :raises ConfigurationError: this is not the primary of that shard.
    :raises psycopg.Error: it could not be done, or nobody knows.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(
            _VERIFY,
            {
                "gid": str(gid),
                "shard": str(gid.participant),
                "cluster": str(gid.of.cluster),
            },
        ).fetchone()
    if row is None or not row[0]:
        raise ConfigurationError(
            f"the database is not the primary of the shard {gid.participant}",
            "check where the shard's URL leads",
        )
    _, owner, user = row
    if owner is None:
        return Finish.GONE
    try:
        with _acting_as(connection, None if owner == user else owner):
            command(connection, verb, gid)
    except psycopg.Error as error:
        if error.sqlstate != DOES_NOT_EXIST:
            raise
        return Finish.GONE
    return Finish.DONE


def settle_within(
    connect: Connect, shard: str, gid: TransactionGid, *, hooks: Hooks, seconds: float
) -> tuple[Outcome, BaseException | None]:
    """Ask what became of a transaction, again and again until there is an answer or time is up.

    :param shard: name of its decision shard.
    :returns: the outcome, and the last error where it is UNKNOWN.
    """
    deadline = time.monotonic() + seconds
    pause = PAUSE_SECONDS_FIRST
    while True:
        failure: BaseException | None = None
        try:
            with connect(shard) as connection:
                left = max(0.05, deadline - time.monotonic())
                outcome = settle(connection, gid, hooks=hooks, lock_seconds=left)
        except UNREACHABLE as error:
            outcome, failure = Outcome.UNKNOWN, error
        if outcome is not Outcome.UNKNOWN or time.monotonic() + pause > deadline:
            return outcome, failure
        time.sleep(pause)
        pause = min(2 * pause, PAUSE_SECONDS_MAX)


@contextmanager
def _acting_as(connection: psycopg.Connection[Any], role: str | None) -> Iterator[None]:
    if role is None:
        yield
        return
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT pg_catalog.current_setting('role')").fetchone()
    before = "none" if row is None else row[0]
    set_role = "SELECT pg_catalog.set_config('role', %s::text, false)"
    connection.execute(set_role, (role,))
    try:
        yield
    finally:
        try:
            connection.execute(set_role, (before,))
        except psycopg.Error:
            # Never give a connection back that acts as somebody else.
            connection.close()
