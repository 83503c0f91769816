"""Finishing over connections of their own: for the coordinator that lost one, and for recovery.

- A prepared transaction is finished only on the verified primary of the shard that its name gives:
  in another database, or on a standby, "it does not exist" means nothing.
- It is finished as the role that prepared it, since PostgreSQL asks for that role or a superuser.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy.exc import SQLAlchemyError

from sqlalchemy_shards.connections.event_loop import sleep
from sqlalchemy_shards.connections.fan_out import Branch
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions.protocol.recovering import read_listing
from sqlalchemy_shards.transactions.protocol.replies import Reply
from sqlalchemy_shards.transactions.protocol.settling import Outcome
from sqlalchemy_shards.transactions.settle import settle
from sqlalchemy_shards.transactions.statements import command, reply_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.connections.fan_out import FanOut
    from sqlalchemy_shards.events import Hooks
    from sqlalchemy_shards.transactions.gid import ParticipantGid, TransactionGid

Connect: TypeAlias = Callable[[str], AbstractContextManager[psycopg.Connection[Any]]]
"""Shard name -> an idle autocommit connection of its own to that shard, given back at the end."""

UNREACHABLE = (psycopg.Error, SQLAlchemyError, OSError)
"""What opening or using such a connection may raise; nothing is known then."""

PAUSE_SECONDS_FIRST = 0.02
PAUSE_SECONDS_MAX = 1.0
PATIENCE_SECONDS_MIN = 0.1

_VERIFY = """
SELECT
    EXISTS (SELECT FROM shards.identity
        WHERE shard_uuid = %(shard)s::text::uuid AND cluster_uuid = %(cluster)s::text::uuid)
        AND NOT pg_catalog.pg_is_in_recovery(),
    (SELECT owner FROM pg_catalog.pg_prepared_xacts
        WHERE gid = %(gid)s::text AND database = pg_catalog.current_database()),
    current_user
"""


def finish_prepared(connection: psycopg.Connection[Any], verb: str, gid: ParticipantGid) -> Reply:
    """Commit or roll back a prepared transaction, as its owner.

    :param connection: idle and in autocommit mode, to the shard that the gid names.
    :returns: DONE or NOT_THERE.
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
    is_verified, owner, user = row or (False, None, None)
    found = read_listing(is_verified=is_verified, is_listed=owner is not None)
    if found is Reply.LOST:
        raise ConfigurationError(
            f"the database is not the primary of the shard {gid.participant}",
            "check where the shard's URL leads",
        )
    if found is not None:
        return found
    try:
        with acting_as(connection, None if owner == user else owner):
            command(connection, verb, gid)
    except psycopg.Error as error:
        reply = reply_of(error, verb, is_lost=connection.closed)
        if reply is not Reply.NOT_THERE:
            raise
        return reply
    return Reply.DONE


def settle_within(
    connect: Connect,
    shard: str,
    gid: TransactionGid,
    *,
    fan_out: FanOut,
    hooks: Hooks,
    seconds: float,
) -> tuple[Outcome, BaseException | None]:
    """Ask what became of a transaction, again and again until there is an answer or time is up.

    :param shard: name of its decision shard.
    :returns: the outcome, and the last error where it is UNKNOWN.
    """
    deadline = time.monotonic() + seconds
    pause = next_pause(0.0)
    while True:
        # Half of what is left: where the network swallows all that is said on one connection,
        # another one may still lead to the server.
        patience = max(PATIENCE_SECONDS_MIN, (deadline - time.monotonic()) / 2)
        asking = _asking(connect, shard, gid, hooks=hooks, lock_seconds=0.8 * patience)
        [answer] = fan_out.run([asking], deadline_seconds=patience)
        if answer.error is not None and not isinstance(answer.error, UNREACHABLE):
            raise answer.error
        outcome = answer.value or Outcome.UNKNOWN
        if outcome is not Outcome.UNKNOWN or time.monotonic() + pause > deadline:
            return outcome, answer.error
        sleep(pause)
        pause = next_pause(pause)


def next_pause(seconds: float) -> float:
    """Return how long to wait before the next attempt, after a pause of so many seconds.

    >>> next_pause(0.0), next_pause(0.02), next_pause(0.9)
    (0.02, 0.04, 1.0)
    """
    return min(max(2 * seconds, PAUSE_SECONDS_FIRST), PAUSE_SECONDS_MAX)


def _asking(
    connect: Connect, shard: str, gid: TransactionGid, *, hooks: Hooks, lock_seconds: float
) -> Branch[Outcome]:
    opened: list[psycopg.Connection[Any]] = []

    def ask() -> Outcome:
        with connect(shard) as connection:
            opened.append(connection)
            return settle(connection, gid, hooks=hooks, lock_seconds=lock_seconds)

    return Branch(shard, ask, lambda: opened[-1] if opened else None)


@contextmanager
def acting_as(connection: psycopg.Connection[Any], role: str | None) -> Iterator[None]:
    """Be another role on an idle autocommit connection, and the same as before at the end."""
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
