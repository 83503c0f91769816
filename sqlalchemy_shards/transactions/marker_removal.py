"""Removing markers that no reader needs any more.

A marker on a shard tells about a *peer*. It may go once the part there is finished: once a snapshot
of the peer shows it. A reader whose own snapshot of the peer is older than that would miss it, so:

1. What was removed is written down in the shard, before or with the removal: the *horizon*, a
   snapshot of the peer that shows the part of every marker about it that is not there any more.
   Readers refuse a snapshot of the peer that does not show all that the horizon shows.
2. A horizon only goes forward: each shows all that the ones before it show.
3. Horizons lie `HORIZON` in the past, so that hardly any reader is refused. That is the only thing
   for which a clock is asked.

Any number of processes may remove at the same time.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import tuple_row

from sqlalchemy_shards.transactions.settle import read_committed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    import psycopg

    from sqlalchemy_shards.catalog.identity import Identity
    from sqlalchemy_shards.transactions.visits import Visits

HORIZON: Final = timedelta(minutes=1)
"""How long markers stay at least after their transaction was finished: longer than a reader takes
from the first of its snapshots to the last, or it has to take some of them anew."""

BATCH: Final = 5_000
"""How many rows one statement removes."""

SECONDS: Final = 5.0
"""How long one call goes on removing from a shard; the next one does the rest."""

_SNAPSHOT = b"SELECT pg_catalog.pg_current_snapshot()::text"

# The snapshot of the last time becomes the horizon, and the new one waits for its turn. A time in
# the future is that of a clock which was set back.
_ADVANCE = """
INSERT INTO shards.marker_horizons AS h (peer, next, next_at)
SELECT p.peer::uuid, p.seen::pg_catalog.pg_snapshot, pg_catalog.clock_timestamp()
FROM ROWS FROM (
    pg_catalog.unnest(%(peers)s::text[]), pg_catalog.unnest(%(snapshots)s::text[])
) AS p(peer, seen)
ORDER BY 1
ON CONFLICT (peer) DO UPDATE
SET removed = h.next, next = excluded.next, next_at = excluded.next_at
WHERE h.next_at NOT BETWEEN pg_catalog.clock_timestamp() - %(horizon)s::interval
        AND pg_catalog.clock_timestamp()
    AND pg_catalog.pg_snapshot_xmax(h.next) <= pg_catalog.pg_snapshot_xmax(excluded.next)
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_snapshot_xip(excluded.next) AS running(xid)
        WHERE pg_catalog.pg_visible_in_snapshot(running.xid, h.next))
"""

_REMOVE = f"""
DELETE FROM shards.markers WHERE ctid = ANY (ARRAY(
    SELECT finished.ctid
    FROM shards.marker_horizons h CROSS JOIN LATERAL (
        SELECT m.ctid FROM shards.markers m
        WHERE m.peer = h.peer AND m.peer_xid < pg_catalog.pg_snapshot_xmax(h.removed)
            AND pg_catalog.pg_visible_in_snapshot(m.peer_xid, h.removed)
        ORDER BY m.peer_xid
        LIMIT {BATCH}
        FOR UPDATE SKIP LOCKED
    ) AS finished
    LIMIT {BATCH}))
"""


def current_snapshot(connection: psycopg.Connection[Any]) -> str:
    """Return what the shard shows now.

    :param connection: idle and in autocommit mode, to its verified primary.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_SNAPSHOT).fetchone()
    return "" if row is None else str(row[0])


def remove_markers(
    connection: psycopg.Connection[Any],
    peers: Mapping[UUID, str],
    *,
    horizon: timedelta = HORIZON,
    seconds: float = SECONDS,
) -> int:
    """Remove the markers of one shard that the horizons allow; return how many they were.

    :param connection: idle and in autocommit mode, to its verified primary.
    :param peers: the other shards, and what they show now.
    :param horizon: how old a snapshot must be to become a horizon.
    :param seconds: after which no further statement is begun.
    """
    deadline = monotonic() + seconds
    parameters = {
        "peers": [str(peer) for peer in peers],
        "snapshots": list(peers.values()),
        "horizon": horizon,
    }
    with read_committed(connection):
        connection.execute(_ADVANCE, parameters)
    removed = 0
    while True:
        with read_committed(connection):
            rows = connection.execute(_REMOVE).rowcount
        removed += rows
        if rows < BATCH or monotonic() >= deadline:
            return removed


def remove_everywhere(shard_names: Sequence[str], visits: Visits, *, seconds: float) -> int:
    """Remove markers on all shards that answer, where consistent reads are switched on.

    Those about a shard that does not answer stay. Returns how many they were.

    :param seconds: for each shard.
    """
    shown = visits.ask(dict.fromkeys(shard_names, _shown))
    peers = {name: seen for name, seen in shown.items() if seen is not None}
    remove = partial(_remove, shown=dict(peers.values()), seconds=seconds)
    return sum(visits.ask(dict.fromkeys(peers, remove)).values())


def _shown(connection: psycopg.Connection[Any], identity: Identity) -> tuple[UUID, str] | None:
    if not identity.consistent_reads:
        return None
    return identity.shard_uuid, current_snapshot(connection)


def _remove(
    connection: psycopg.Connection[Any],
    identity: Identity,
    *,
    shown: Mapping[UUID, str],
    seconds: float,
) -> int:
    peers = {uuid: seen for uuid, seen in shown.items() if uuid != identity.shard_uuid}
    return remove_markers(connection, peers, seconds=seconds)
