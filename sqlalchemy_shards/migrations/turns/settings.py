"""Settings of PostgreSQL for the session that migrates a shard, which ends with it.

The cluster gives its connections the timeouts of the application. Those of migrations are told
apart: what nobody says of them is what the role, the database or the server has.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import event

from sqlalchemy_shards.cluster.readiness.report import some
from sqlalchemy_shards.migrations.turns.bounds import LOCK_TIMEOUT_DEFAULT
from sqlalchemy_shards.migrations.turns.ledger import client
from sqlalchemy_shards.sql_text import beginnings
from sqlalchemy_shards.topology.durations import shown_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from sqlalchemy_shards.migrations.turns.bounds import Bounds

_RESET: Final = (
    b"RESET lock_timeout",
    b"RESET statement_timeout",
    b"RESET idle_in_transaction_session_timeout",
)
_GIVE: Final = "SELECT pg_catalog.set_config(%s::text, %s::text, false)"
_GIVE_IF_UNBOUND: Final = (
    "SELECT pg_catalog.set_config(%s::text, %s::text, false)"
    " WHERE pg_catalog.current_setting('lock_timeout') = '0'"
)

# Since PostgreSQL 14, and not on every operating system.
_NOTICE_DEATH: Final = b"SET client_connection_check_interval = '2s'"

_NAME_LENGTH_MAX: Final = 63

_LOCKED: Final = """ARRAY(
    SELECT DISTINCT c.relname::text
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
    WHERE l.granted AND l.locktype = 'relation' AND c.relkind IN ('r', 'p', 'm') AND l.database = (
        SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
    ) AND c.relnamespace::regnamespace::text NOT IN ('pg_catalog', 'shards') AND {whose}
    ORDER BY 1
)"""

_PREPARED: Final = """l.pid IS NULL AND l.virtualtransaction = (
    SELECT own.virtualtransaction FROM pg_catalog.pg_locks own
    WHERE own.pid IS NULL AND own.locktype = 'transactionid' AND own.granted
      AND own.transactionid = p.transaction
)"""

_OPEN_FOR_LONG: Final = f"""
SELECT name, extract(epoch FROM pg_catalog.clock_timestamp() - since)::float8, tables
FROM (
    SELECT pg_catalog.format(
            'process %s (%s)', pid, coalesce(nullif(application_name, ''), usename::text)
        ) AS name, xact_start AS since, {_LOCKED.format(whose="l.pid = a.pid")} AS tables
    FROM pg_catalog.pg_stat_activity a
    WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
      AND xact_start IS NOT NULL AND backend_type = 'client backend'
    UNION ALL
    SELECT pg_catalog.format('%L (prepared)', gid), prepared,
        {_LOCKED.format(whose=_PREPARED)}
    FROM pg_catalog.pg_prepared_xacts p WHERE database = pg_catalog.current_database()
) AS found
ORDER BY cardinality(tables) = 0, since LIMIT 3
"""


def give_settings(driver: psycopg.Connection[Any], bounds: Bounds, command: str) -> None:
    """Give a session the timeouts of migrations, and a name that tells what it does.

    :param driver: an idle connection; it is idle again afterwards.
    """
    with driver.transaction():
        for statement in _RESET:
            driver.execute(statement)
        name = f"shards migrate {command} {client()}"
        driver.execute(_GIVE, ("application_name", name[:_NAME_LENGTH_MAX]))
        if bounds.statement_timeout is not None:
            driver.execute(_GIVE, ("statement_timeout", _milliseconds(bounds.statement_timeout)))
        if bounds.lock_timeout is not None:
            driver.execute(_GIVE, ("lock_timeout", _milliseconds(bounds.lock_timeout)))
        else:
            default = _milliseconds(LOCK_TIMEOUT_DEFAULT)
            driver.execute(_GIVE_IF_UNBOUND, ("lock_timeout", default))
    # What a killed process was running is to end with it, and not to hold its locks for hours.
    with suppress(psycopg.Error), driver.transaction():
        driver.execute(_NOTICE_DEATH)


def let_index_builds_wait(connection: Connection) -> None:
    """Let an index be built ``CONCURRENTLY`` however long that waits, where nobody said how long.

    It waits for every older transaction, but nobody waits behind it; to give up leaves an index
    that is invalid. Whoever sets ``lock_timeout`` over the connection has said how long.
    """
    restored: list[str] = []
    is_said = False

    def before(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal is_said
        is_said = is_said or "lock_timeout" in statement
        driver = cursor.connection
        if is_said or not driver.autocommit or not _builds_an_index_beside(statement):
            return
        value = driver.execute(b"SHOW lock_timeout").fetchone()[0]
        if value == f"{LOCK_TIMEOUT_DEFAULT:g}s":
            driver.execute(b"SET lock_timeout = 0")
            restored.append(value)

    def after(connection: Connection, cursor: Any, *_: Any) -> None:
        while restored:
            cursor.connection.execute(_GIVE, ("lock_timeout", restored.pop()))

    event.listen(connection, "before_cursor_execute", before)
    event.listen(connection, "after_cursor_execute", after)


def bystanders(driver: psycopg.Connection[Any]) -> str:
    """The oldest transactions of others, as the end of a sentence, if any is seen.

    Those that have locked tables come first.
    """
    with driver.transaction(), driver.cursor(row_factory=tuple_row) as cursor:
        found = [
            f"{name} for {shown_duration(seconds)}{_locked(tables)}"
            for name, seconds, tables in cursor.execute(_OPEN_FOR_LONG.encode())
        ]
    return f"; open there are the transactions of {', '.join(found)}" if found else ""


def _locked(tables: Sequence[str]) -> str:
    return f" with locks on {some(tables, shown_max=3)}" if tables else ""


def _builds_an_index_beside(statement: str) -> bool:
    lowered = statement.lower()
    return "concurrently" in lowered and any(
        words[:1] in (("create",), ("drop",), ("reindex",)) for words in beginnings(lowered)
    )


def _milliseconds(seconds: float) -> str:
    # Rounded up: 0 would be no bound.
    return str(math.ceil(seconds * 1000))
