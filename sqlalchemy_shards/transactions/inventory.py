"""What one shard holds of distributed transactions: prepared parts, and decision rows to remove.

- Only the connection's own database is looked at: a server lists the prepared transactions of all
  its databases, and finishes them from their own only.
- Ages are taken by the server's clock.
- Rows are looked through page by page along the primary key, so that no statement takes longer
  because the table is large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.rows import tuple_row

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions.gid import FORMAT, ParticipantGid
from sqlalchemy_shards.transactions.protocol.cleaning import DecisionRow
from sqlalchemy_shards.transactions.protocol.recovering import Listed, recognise
from sqlalchemy_shards.transactions.settle import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    import psycopg

    from sqlalchemy_shards.catalog.identity import Identity
    from sqlalchemy_shards.transactions.gid import TransactionGid

_LIST = b"""
SELECT gid, owner, prepared, pg_catalog.clock_timestamp() - prepared, current_user
FROM pg_catalog.pg_prepared_xacts
WHERE database = pg_catalog.current_database()
ORDER BY prepared
"""

# A row in a format of a later release is that release's to judge. Rows that `may_go` would keep
# whatever the shards hold are not even sent.
_PAGE = b"""
WITH page AS MATERIALIZED (
    SELECT gid, outcome, participants, format,
        decided_at < pg_catalog.clock_timestamp() - %(retention)s::interval AS is_expired,
        decision_xid < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) AS is_over
    FROM shards.decisions
    WHERE gid > %(after)s::text
    ORDER BY gid
    LIMIT %(rows)s::integer
)
SELECT all_of_it.last, all_of_it.number,
    page.gid, page.outcome, page.participants, page.is_expired, page.is_over
FROM (SELECT pg_catalog.max(gid) AS last, pg_catalog.count(*) AS number FROM page) AS all_of_it
LEFT JOIN page ON page.format = %(format)s::smallint
    AND CASE page.outcome WHEN 'commit' THEN page.is_expired ELSE page.is_over END
"""

_REMOVE = b"""
DELETE FROM shards.decisions WHERE gid IN (
    SELECT gid FROM shards.decisions WHERE gid = ANY(%s::text[]) FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class PreparedPart:
    """A part of a distributed transaction that is prepared on ``shard``.

    :param owner: the role that may finish it; None: it was dropped.
    """

    shard: str
    gid: ParticipantGid
    owner: str | None
    prepared_at: datetime
    age: timedelta


@dataclass(frozen=True, slots=True)
class ForeignPrepared:
    """What somebody else prepared in a shard's database."""

    gid: str
    owner: str | None
    age: timedelta


@dataclass(frozen=True, slots=True)
class Listing:
    """What is prepared in one shard's database.

    :param parts: those of our cluster.
    :param not_understood: gids of our cluster that are not, or that do not belong here.
    :param user: the role that looked.
    """

    parts: tuple[PreparedPart, ...]
    not_understood: tuple[str, ...]
    foreign: tuple[ForeignPrepared, ...]
    user: str

    def only(self, gid: TransactionGid) -> Listing:
        """Return what there is of one transaction."""
        return Listing(tuple(part for part in self.parts if part.gid.of == gid), (), (), self.user)


@dataclass(frozen=True, slots=True)
class DecisionsPage:
    """Some rows of `shards.decisions`, in the order of their gids.

    :param expired: those of them that may go, as far as their shard can tell.
    :param last: the gid behind which to go on; "" where no more rows come after these.
    """

    expired: tuple[DecisionRow, ...]
    last: str


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
    """Return what is prepared in this database."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_LIST).fetchall()
    parts, not_understood, foreign = [], [], []
    for text, owner, prepared_at, age, _ in rows:
        found = recognise(text, cluster=identity.cluster_uuid, shard=identity.shard_uuid)
        if isinstance(found, ParticipantGid):
            parts.append(PreparedPart(shard, found, owner, prepared_at, age))
        elif found is Listed.NOT_UNDERSTOOD:
            not_understood.append(text)
        else:
            foreign.append(ForeignPrepared(text, owner, age))
    user = rows[0][-1] if rows else ""
    return Listing(tuple(parts), tuple(not_understood), tuple(foreign), user)


def decisions_page(
    connection: psycopg.Connection[Any], retention: timedelta, *, after: str, rows: int
) -> DecisionsPage:
    """Look through the decision rows whose gids come after one, in the order of the index."""
    parameters = {"retention": retention, "after": after, "rows": rows, "format": FORMAT}
    with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(_PAGE, parameters).fetchall()
    last, number = found[0][:2]
    expired = tuple(
        DecisionRow(gid, OUTCOMES[outcome], frozenset(map(UUID, needs)), is_expired, is_over)
        for _, _, gid, outcome, needs, is_expired, is_over in found
        if gid is not None
    )
    return DecisionsPage(expired, last if number == rows else "")


def remove_decisions(connection: psycopg.Connection[Any], gids: Sequence[str]) -> int:
    """Remove decision rows; return how many were there."""
    if not gids:
        return 0
    with connection.transaction():
        return connection.execute(_REMOVE, (list(gids),)).rowcount
