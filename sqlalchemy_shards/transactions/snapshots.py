"""Snapshots of several shards: taking one, and finding what one shows and another does not.

Each runs on one shard's connection, in the transaction whose snapshot it speaks of. Values travel
as text, and names are qualified: the application may have set what it likes.

- A transaction's part is *shown* by a snapshot if it was committed when the snapshot was taken.
- What is found is exact: a lag that is reported is one, and where none is reported there is none.
  The proof is in decision 14. No clock has a part in it.
- It costs one look at an index for each transaction that was under way on the other shard, and one
  for all that had not begun there, however many markers there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import IsolationLevel
from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    import psycopg

LEVEL = IsolationLevel.REPEATABLE_READ
"""What the transactions must have: one snapshot from beginning to end."""

# Also tells whose snapshot it is, and whether transactions leave markers there. That is read as
# JSON, since older versions of the schema have no such column.
_TAKE = b"""
SELECT pg_catalog.pg_current_snapshot()::text, i.shard_uuid::text,
    (pg_catalog.to_jsonb(i) ->> 'consistent_reads') IS NOT DISTINCT FROM 'true',
    pg_catalog.pg_is_in_recovery()
FROM shards.identity i
"""

_BEGIN_AGAIN = "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ"

# First, peers whose snapshot is older than what markers were removed by; then those that do not
# show what is shown here: under way when it was taken, or not begun. The next marker is asked for,
# in order, so that no planner without statistics reads the table in place of the index.
_COMPARE = """
WITH peers AS MATERIALIZED (
    SELECT peer::uuid, seen::pg_catalog.pg_snapshot
    FROM ROWS FROM (
        pg_catalog.unnest(%(peers)s::text[]), pg_catalog.unnest(%(snapshots)s::text[])
    ) AS p(peer, seen)
)
SELECT p.peer::text, NULL
FROM peers p JOIN shards.marker_horizons h ON h.peer = p.peer
WHERE pg_catalog.pg_snapshot_xmax(h.removed) > pg_catalog.pg_snapshot_xmax(p.seen)
    OR EXISTS (
        SELECT FROM pg_catalog.pg_snapshot_xip(p.seen) AS running(xid)
        WHERE pg_catalog.pg_visible_in_snapshot(running.xid, h.removed))
UNION ALL
SELECT p.peer::text, next.gid
FROM peers p CROSS JOIN LATERAL (
    SELECT running.xid, true FROM pg_catalog.pg_snapshot_xip(p.seen) AS running(xid)
    UNION ALL
    SELECT pg_catalog.pg_snapshot_xmax(p.seen), false
) AS hidden(xid, is_running) CROSS JOIN LATERAL (
    SELECT m.gid, m.peer_xid FROM shards.markers m
    WHERE m.peer = p.peer AND m.peer_xid >= hidden.xid
    ORDER BY m.peer_xid LIMIT 1
) AS next
WHERE next.peer_xid = hidden.xid OR NOT hidden.is_running
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one shard's transaction shows, as PostgreSQL writes it.

    :param has_markers: whether all transactions leave them there.
    :param is_standbys: the server is a standby. PostgreSQL does not write then what was under way,
        so that it cannot be compared.
    """

    shard: UUID | str
    text: str
    has_markers: bool
    is_standbys: bool = False


@dataclass(frozen=True, slots=True)
class PeerLag:
    """A peer's snapshot does not show what this one shows.

    :param peer: UUID of the shard.
    :param gid: of the transaction; None: it is too old to tell, as markers were removed since.
    """

    peer: str
    gid: str | None


def take(driver: psycopg.Connection[Any]) -> Snapshot | None:
    """Take the snapshot of a transaction that has none yet.

    :returns: None where the shard has no identity.
    """
    with driver.cursor(row_factory=tuple_row) as cursor:
        return _snapshot(cursor.execute(_TAKE, prepare=False).fetchone())


def take_again(driver: psycopg.Connection[Any]) -> Snapshot | None:
    """End the transaction, and begin another with a snapshot of now, in one round trip."""
    statement = f"{_BEGIN_AGAIN}{_modes(driver)};".encode() + _TAKE
    with driver.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(statement, prepare=False)
        while cursor.nextset():
            pass
        return _snapshot(cursor.fetchone())


def compare(driver: psycopg.Connection[Any], peers: Sequence[Snapshot]) -> list[PeerLag]:
    """Return which snapshots of other shards do not show what this transaction's shows."""
    parameters = {
        "peers": [str(each.shard) for each in peers],
        "snapshots": [each.text for each in peers],
    }
    with driver.cursor(row_factory=tuple_row) as cursor:
        # Planned each time: a plan that was kept from when there were few markers reads them all.
        found = cursor.execute(_COMPARE, parameters, prepare=False).fetchall()
    return [PeerLag(*row) for row in found]


def _snapshot(row: tuple[Any, ...] | None) -> Snapshot | None:
    return None if row is None else Snapshot(row[1], row[0], row[2], row[3])


def _modes(driver: psycopg.Connection[Any]) -> str:
    read_only, deferrable = driver.read_only, driver.deferrable
    modes = ""
    if read_only is not None:
        modes += " READ ONLY" if read_only else " READ WRITE"
    if deferrable is not None:
        modes += " DEFERRABLE" if deferrable else " NOT DEFERRABLE"
    return modes
