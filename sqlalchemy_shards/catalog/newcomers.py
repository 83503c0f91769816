"""Shards that join a cluster which has data: what each shard is told of them.

    unknown -> announced -> joined

- Announced: processes whose list of shards does not have the newcomer write no reference table
  any more, as soon as they open a connection. So who has connected since then and writes one writes
  it on the newcomer, too.
- Joined: the newcomer has the copies of the reference tables; processes that do not know it are
  refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import psycopg

_ANNOUNCE: Final = """
UPDATE shards.identity SET newcomers = newcomers
    || pg_catalog.jsonb_build_object(%s::text, '{"joined": false}'::jsonb)
WHERE NOT newcomers ? %s::text
"""

# In a transaction after it: who connects from now on has seen it.
_NOTE_TIME: Final = """
UPDATE shards.identity SET newcomers = pg_catalog.jsonb_set(
    newcomers, ARRAY[%s::text, 'since'], pg_catalog.to_jsonb(pg_catalog.clock_timestamp()))
WHERE NOT newcomers -> %s::text ? 'since'
"""

_JOINED: Final = """
UPDATE shards.identity SET newcomers =
    pg_catalog.jsonb_set(newcomers, ARRAY[%s::text, 'joined'], 'true')
"""

_SINCE: Final = """
SELECT (newcomers -> %s::text ->> 'since')::timestamptz FROM shards.identity
"""

# What the role may not see of others' sessions is NULL, and taken for the worst.
_OLDER: Final = """
SELECT a.pid, a.application_name, a.usename::text, a.client_addr::text, a.backend_start
FROM pg_catalog.pg_stat_activity a
WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
  AND coalesce(a.backend_type, 'client backend') = 'client backend'
  AND (a.backend_start IS NULL OR a.backend_start < %s)
  AND EXISTS (
    SELECT FROM unnest(%s::text[]) AS name
    WHERE pg_catalog.has_table_privilege(a.usesysid, pg_catalog.to_regclass(name),
                                         'INSERT, UPDATE, DELETE, TRUNCATE'))
ORDER BY a.backend_start, a.pid
"""


def announce(driver: psycopg.Connection[Any], shard: str) -> None:
    """Tell a shard, over an autocommit connection, that another one joins; again does no harm."""
    driver.execute(_ANNOUNCE, (shard, shard))
    driver.execute(_NOTE_TIME, (shard, shard))


def announced_since(driver: psycopg.Connection[Any], shard: str) -> datetime | None:
    """Since when all who connect to a shard are told of another one, by the shard's clock."""
    with driver.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_SINCE, (shard,)).fetchone()
    return None if row is None else row[0]


def tell_joined(driver: psycopg.Connection[Any], shard: str) -> None:
    """Tell a shard that a newcomer has the copies of all reference tables."""
    driver.execute(_JOINED, (shard,))


def older_sessions(
    driver: psycopg.Connection[Any], since: datetime, tables: Sequence[str]
) -> list[tuple[Any, ...]]:
    """The sessions on a shard from before a moment that may write one of some tables.

    :param tables: as SQL names them.
    :return: of each its process, application, role, address and when it connected, if seen.
    """
    with driver.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(_OLDER, (since, list(tables))).fetchall()
