"""The only way to ask what became of a distributed transaction: over a connection to one database.

What its answers mean is concluded in `protocol.settling`, whose invariants these are.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions.fail_points import (
    AFTER_ABORT_ROW,
    AFTER_LOOK,
    BEFORE_ABORT_ROW,
    BEFORE_LOOK,
)
from sqlalchemy_shards.transactions.gid import FORMAT
from sqlalchemy_shards.transactions.protocol.settling import (
    AbortRow,
    Outcome,
    Sight,
    conclude,
    conclude_again,
    conclude_insert,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy_shards.events import Hooks
    from sqlalchemy_shards.transactions.gid import TransactionGid

OUTCOMES: Final = {"commit": Outcome.COMMITTED, "abort": Outcome.ABORTED}
"""Outcomes as `shards.decisions` holds them."""

LOCK_SECONDS = 2.0
"""How long the abort row waits for a coordinator that is just deciding."""

# One statement, so that the rows, the transactions' ends and the server's identity are looked at
# through one snapshot of one server.
_LOOK = """
SELECT decided.outcome,
    asked.xid::xid8 < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()),
    EXISTS (SELECT FROM shards.identity
        WHERE shard_uuid = asked.shard::uuid AND cluster_uuid = asked.cluster::uuid)
        AND NOT pg_catalog.pg_is_in_recovery()
FROM ROWS FROM (
    pg_catalog.unnest(%(gids)s::text[]), pg_catalog.unnest(%(xids)s::text[]),
    pg_catalog.unnest(%(shards)s::text[]), pg_catalog.unnest(%(clusters)s::text[])
) WITH ORDINALITY AS asked(gid, xid, shard, cluster, number)
LEFT JOIN shards.decisions decided ON decided.gid = asked.gid
ORDER BY asked.number
"""

_INSERT_ABORT = """
INSERT INTO shards.decisions (gid, decision_xid, outcome, participants, format)
SELECT %(gid)s::text, %(xid)s::text::xid8, 'abort', '{}', %(format)s::smallint
FROM shards.identity
WHERE shard_uuid = %(shard)s::text::uuid AND cluster_uuid = %(cluster)s::text::uuid
ON CONFLICT (gid) DO NOTHING
"""


def settle(
    connection: psycopg.Connection[Any],
    gid: TransactionGid,
    *,
    hooks: Hooks,
    lock_seconds: float = LOCK_SECONDS,
) -> Outcome:
    """Return what became of the transaction; where it is still open, try to abort it for ever.

    :param connection: idle and in autocommit mode, to the decision shard.
    :param lock_seconds: how long to wait for a coordinator that is just deciding.
    :returns: UNKNOWN where it is still being decided, or this is not the decision shard's primary.
    :raises psycopg.Error: the server could not be asked; the outcome is unknown then.
    """
    if not connection.autocommit or connection.pgconn.transaction_status != TransactionStatus.IDLE:
        raise ConfigurationError(
            "a distributed transaction can only be settled over an idle autocommit connection",
            "pass one of its own",
            shard=None,
        )
    hooks.reach(BEFORE_LOOK)
    [sight] = look(connection, [gid])
    outcome = conclude(sight)
    hooks.reach(AFTER_LOOK)
    if outcome is None:
        hooks.reach(BEFORE_ABORT_ROW)
        outcome = conclude_insert(_insert_abort(connection, gid, lock_seconds))
        hooks.reach(AFTER_ABORT_ROW)
    if outcome is None:
        [sight] = look(connection, [gid])
        outcome = conclude_again(sight)
    return outcome


def look(connection: psycopg.Connection[Any], gids: Sequence[TransactionGid]) -> list[Sight]:
    """Return what one statement sees of each of these transactions, in their order.

    :param connection: idle and in autocommit mode.
    """
    parameters = {
        "gids": [str(gid) for gid in gids],
        "xids": [str(gid.decision_xid) for gid in gids],
        "shards": [str(gid.decision_shard) for gid in gids],
        "clusters": [str(gid.cluster) for gid in gids],
    }
    with (
        read_committed(connection),
        connection.cursor(row_factory=tuple_row) as cursor,
    ):
        rows = cursor.execute(_LOOK, parameters).fetchall()
    return [
        Sight(None if outcome is None else OUTCOMES[outcome], is_over, is_verified)
        for outcome, is_over, is_verified in rows
    ]


def _insert_abort(
    connection: psycopg.Connection[Any], gid: TransactionGid, lock_seconds: float
) -> AbortRow:
    try:
        with read_committed(connection):
            connection.execute("SET TRANSACTION READ WRITE")
            connection.execute(
                "SELECT pg_catalog.set_config('lock_timeout', %s::text, true),"
                " pg_catalog.set_config('synchronous_commit', 'on', true)",
                (f"{max(1, round(lock_seconds * 1000))}ms",),
            )
            inserted = connection.execute(_INSERT_ABORT, _parameters(gid)).rowcount
    except psycopg.errors.LockNotAvailable:
        return AbortRow.BUSY
    return AbortRow.INSERTED if inserted == 1 else AbortRow.IN_THE_WAY


@contextmanager
def read_committed(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Run in a transaction of its own whose statements see what is committed when they begin."""
    connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    try:
        yield
    except BaseException:
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
        raise
    connection.execute("COMMIT")


def _parameters(gid: TransactionGid) -> dict[str, str | int]:
    return {
        "gid": str(gid),
        "xid": str(gid.decision_xid),
        "shard": str(gid.decision_shard),
        "cluster": str(gid.cluster),
        "format": FORMAT,
    }
