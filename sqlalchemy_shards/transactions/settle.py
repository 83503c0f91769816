"""The only way to ask what became of a distributed transaction.

- Asked on the decision shard's verified primary: its identity is the one in the gid, and it is not
  in recovery. "No row" in another database, a restored copy or a standby means nothing.
- ABORTED is for ever: either the deciding transaction is over without a row, or an abort row
  stands under the gid, so that the coordinator's row can no longer be committed.
- Reading alone is not asking: the deciding COMMIT may still lie in the socket of a stopped server
  process. So where that transaction may live, the abort row is inserted before "aborted" is said.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions.fail_points import AFTER_ABORT_ROW, BEFORE_ABORT_ROW
from sqlalchemy_shards.transactions.gid import FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.events import Hooks
    from sqlalchemy_shards.transactions.gid import TransactionGid

LOCK_SECONDS = 2.0
"""How long the abort row waits for a coordinator that is just deciding."""

# One statement, so that the row, the transaction's end and the server's identity are looked at
# through one snapshot of one server.
_ASK = """
SELECT
    (SELECT outcome FROM shards.decisions WHERE gid = %(gid)s::text),
    %(xid)s::text::xid8 < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()),
    EXISTS (SELECT FROM shards.identity
        WHERE shard_uuid = %(shard)s::text::uuid AND cluster_uuid = %(cluster)s::text::uuid)
        AND NOT pg_catalog.pg_is_in_recovery()
"""

_INSERT_ABORT = """
INSERT INTO shards.decisions (gid, decision_xid, outcome, participants, format)
SELECT %(gid)s::text, %(xid)s::text::xid8, 'abort', '{}', %(format)s::smallint
FROM shards.identity
WHERE shard_uuid = %(shard)s::text::uuid AND cluster_uuid = %(cluster)s::text::uuid
ON CONFLICT (gid) DO NOTHING
"""


class Outcome(enum.Enum):
    """What became of a distributed transaction."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


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
    outcome, is_over, is_verified = _ask(connection, gid)
    if not is_verified:
        return Outcome.UNKNOWN
    if outcome is not None:
        return outcome
    if is_over:
        return Outcome.ABORTED
    hooks.reach(BEFORE_ABORT_ROW)
    settled = _insert_abort(connection, gid, lock_seconds)
    hooks.reach(AFTER_ABORT_ROW)
    return settled


def _ask(
    connection: psycopg.Connection[Any], gid: TransactionGid
) -> tuple[Outcome | None, bool, bool]:
    with (
        _read_committed(connection),
        connection.cursor(row_factory=tuple_row) as cursor,
    ):
        row = cursor.execute(_ASK, _parameters(gid)).fetchone()
    if row is None:
        raise psycopg.InternalError("the server did not answer with a row")
    outcome, is_over, is_verified = row
    return _OUTCOMES[outcome], bool(is_over), bool(is_verified)


def _insert_abort(
    connection: psycopg.Connection[Any], gid: TransactionGid, lock_seconds: float
) -> Outcome:
    try:
        with _read_committed(connection):
            connection.execute("SET TRANSACTION READ WRITE")
            connection.execute(
                "SELECT pg_catalog.set_config('lock_timeout', %s::text, true),"
                " pg_catalog.set_config('synchronous_commit', 'on', true)",
                (f"{max(1, round(lock_seconds * 1000))}ms",),
            )
            inserted = connection.execute(
                _INSERT_ABORT, {**_parameters(gid), "format": FORMAT}
            ).rowcount
    except psycopg.errors.LockNotAvailable:
        # The coordinator's row is there and not decided yet.
        return Outcome.UNKNOWN
    if inserted == 1:
        return Outcome.ABORTED
    outcome, _, is_verified = _ask(connection, gid)
    # A row stood in our way; one that is gone again cannot tell any more which one it was.
    return outcome if is_verified and outcome is not None else Outcome.UNKNOWN


@contextmanager
def _read_committed(connection: psycopg.Connection[Any]) -> Iterator[None]:
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


def _parameters(gid: TransactionGid) -> dict[str, str]:
    return {
        "gid": str(gid),
        "xid": str(gid.decision_xid),
        "shard": str(gid.decision_shard),
        "cluster": str(gid.cluster),
    }


_OUTCOMES: dict[str | None, Outcome | None] = {
    None: None,
    "commit": Outcome.COMMITTED,
    "abort": Outcome.ABORTED,
}
