"""What one shard holds of distributed transactions: prepared parts, and decision rows to remove.

- Only the connection's own database is looked at: a server lists the prepared transactions of all
  its databases, and finishes them from their own only.
- Ages are taken by the server's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.rows import tuple_row

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions.gid import FORMAT, PREFIX, ParticipantGid, cluster_of, parse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    import psycopg

    from sqlalchemy_shards.catalog.identity import Identity

_LIST = """
SELECT gid, prepared, pg_catalog.clock_timestamp() - prepared
FROM pg_catalog.pg_prepared_xacts
WHERE database = pg_catalog.current_database() AND pg_catalog.starts_with(gid, %s::text)
ORDER BY prepared
"""

# A row in a format of a later release is that release's to judge. An abort row has done its work as
# soon as the transaction that it forestalled is over: then "no row" says the same.
_EXPIRED = """
SELECT gid, participants
FROM shards.decisions
WHERE format = %s::smallint AND (
    (outcome = 'commit' AND decided_at < pg_catalog.clock_timestamp() - %s::interval)
    OR (outcome = 'abort'
        AND decision_xid < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())))
"""

_REMOVE = """
DELETE FROM shards.decisions WHERE gid IN (
    SELECT gid FROM shards.decisions WHERE gid = ANY(%s::text[]) FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class PreparedPart:
    """A part of a distributed transaction that is prepared on ``shard``."""

    shard: str
    gid: ParticipantGid
    prepared_at: datetime
    age: timedelta


@dataclass(frozen=True, slots=True)
class Listing:
    """The prepared parts of our cluster on one shard, and gids of it that are not understood."""

    parts: tuple[PreparedPart, ...]
    not_understood: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExpiredDecision:
    """A row that may go, if none of the shards ``needs`` holds a prepared part of ``gid``."""

    gid: str
    needs: tuple[UUID, ...]


def check_primary(
    connection: psycopg.Connection[Any], shard: str, identity: Identity | None
) -> None:
    """Check that the connection leads to a primary with the schema `shards`.

    :raises ConfigurationError: it does not.
    """
    if identity is None:
        raise ConfigurationError(
            f"shard {shard!r} has no schema 'shards'", "run cluster.bootstrap()", shard=shard
        )
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
    if row is None or row[0]:
        raise ConfigurationError(
            f"the URL of shard {shard!r} leads to a standby",
            "let it lead to the primary",
            shard=shard,
        )


def list_prepared(connection: psycopg.Connection[Any], shard: str, identity: Identity) -> Listing:
    """Return what is prepared of our cluster in this database."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_LIST, (PREFIX,)).fetchall()
    parts, not_understood = [], []
    for text, prepared_at, age in rows:
        if cluster_of(text) != identity.cluster_uuid:
            continue
        gid = parse(text)
        if gid is None or gid.participant != identity.shard_uuid:
            not_understood.append(text)
        else:
            parts.append(PreparedPart(shard, gid, prepared_at, age))
    return Listing(tuple(parts), tuple(not_understood))


def expired_decisions(
    connection: psycopg.Connection[Any], retention: timedelta
) -> Sequence[ExpiredDecision]:
    """Return the decision rows of this shard that may go, as far as this shard can tell."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_EXPIRED, (FORMAT, retention)).fetchall()
    return [ExpiredDecision(gid, tuple(map(UUID, participants))) for gid, participants in rows]


def remove_decisions(connection: psycopg.Connection[Any], gids: Sequence[str]) -> int:
    """Remove decision rows; return how many were there."""
    if not gids:
        return 0
    return connection.execute(_REMOVE, (list(gids),)).rowcount
