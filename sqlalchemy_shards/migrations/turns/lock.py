"""One migration at a time on a shard: an advisory lock of PostgreSQL's, held by a session.

- It is held by the session that migrates, not by one beside it: as long as a server process is at
  work for a migration, be its client dead, no other can begin.
- It is asked for again and again, never waited for: who waits inside a statement keeps a snapshot,
  for which ``CREATE INDEX CONCURRENTLY`` of the holder would wait in its turn.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import tuple_row

from sqlalchemy_shards.connections.event_loop import sleep
from sqlalchemy_shards.errors import MigrationBlocked

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import psycopg

MIGRATION_LOCK: Final = 0x7368617264730002
"""Key of `pg_try_advisory_lock`: the ASCII of "shards", then 2. Databases lock apart."""

_PAUSE_SECONDS: Final = 0.25

_TRY: Final = f"SELECT pg_catalog.pg_try_advisory_lock({MIGRATION_LOCK})"

_HOLDER: Final = f"""
SELECT l.pid, a.application_name, a.usename::text, a.client_addr::text, a.backend_start
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.classid::bigint = {MIGRATION_LOCK >> 32} AND l.objid::bigint = {MIGRATION_LOCK & 0xFFFFFFFF}
  AND l.database = (
    SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
  )
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """The session that migrates a shard.

    :param pid: of its server process.
    :param application: its ``application_name``, which tells the command and where it runs; empty:
        it has none; None: it may not be seen.
    :param role: None: it may not be seen.
    :param address: from where it comes; None: over a local socket, or it may not be seen.
    :param since: when it connected; None: it may not be seen.
    """

    pid: int
    application: str | None
    role: str | None
    address: str | None
    since: datetime | None

    def __str__(self) -> str:
        """Tell who it is, as far as that is known.

        >>> str(Holder(4711, "shop", "app", "10.0.0.1", None))
        'server process 4711 (shop; role app from 10.0.0.1)'
        >>> str(Holder(4711, "", "app", None, None))
        'server process 4711 (without an application_name; role app)'
        """
        if self.application is None and self.role is None:
            return f"server process {self.pid} (whose it is may not be seen by this role)"
        application = self.application or "without an application_name"
        source = f" from {self.address}" if self.address else ""
        since = f", connected since {self.since:%Y-%m-%d %H:%M:%S %Z}" if self.since else ""
        role = self.role or "unknown"
        return f"server process {self.pid} ({application}; role {role}{source}{since})"


def try_lock(driver: psycopg.Connection[Any]) -> bool:
    """Take the lock for this session, if nobody has it. Idle connections stay idle."""
    with driver.transaction(), driver.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_TRY.encode()).fetchone()
    return row is not None and bool(row[0])


def wait_for_lock(
    driver: psycopg.Connection[Any], shard: str, seconds: float, tell: Callable[[str], None]
) -> None:
    """Take the lock for this session, which keeps it until it ends.

    :param seconds: how long another migration is waited for.
    :param tell: is called with a sentence, once, if one is waited for.
    :raises MigrationBlocked: it is at work still.
    """
    until = time.monotonic() + seconds
    is_told = False
    while not try_lock(driver):
        holder = holder_of(driver)
        if holder is not None and time.monotonic() >= until:  # None: it has just ended
            raise MigrationBlocked(
                f"shard {shard!r} is being migrated by {holder}",
                "run this again when that has ended; if nobody works there any more, end it with"
                f" SELECT pg_terminate_backend({holder.pid}) on that shard",
                shard=shard,
            )
        if holder is not None and not is_told:
            tell(f"waits, since it is being migrated by {holder}")
            is_told = True
        sleep(_PAUSE_SECONDS)


def holder_of(driver: psycopg.Connection[Any]) -> Holder | None:
    """Who migrates the database behind a connection just now."""
    with driver.transaction(), driver.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_HOLDER.encode()).fetchone()
    if row is None:
        return None
    pid, application, role, address, since = row
    return Holder(pid, application, role, address, since)
