"""Asks one shard for what a report is made of; changes nothing.

Statements name the system catalogs in full, since a schema of the application's may come first in
the search path. Columns that not every PostgreSQL has are read through ``to_jsonb``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import tuple_row

from sqlalchemy_shards.catalog.identity import read_identity
from sqlalchemy_shards.transactions.inventory import list_prepared

from .looking_at_tables import look_at_tables
from .seen import DatabaseSeen, Prepared, ServerSeen, ShardFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from sqlalchemy_shards.catalog.identity import Identity

    from .seen import TableExpected

# The system identifier does not tell servers apart that were copied from one data directory.
_SERVER: Final = """
SELECT pg_catalog.current_setting('server_version_num')::int,
       (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint,
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('transaction_read_only') = 'on',
       pg_catalog.current_setting('max_prepared_transactions')::int,
       pg_catalog.current_setting('wal_level'),
       least(
           pg_catalog.current_setting('max_connections')::int
           - pg_catalog.current_setting('superuser_reserved_connections')::int
           - coalesce(pg_catalog.current_setting('reserved_connections', true)::int, 0),
           (SELECT nullif(datconnlimit, -1) FROM pg_catalog.pg_database
            WHERE datname = pg_catalog.current_database()),
           (SELECT nullif(rolconnlimit, -1) FROM pg_catalog.pg_roles
            WHERE rolname = current_user))
"""

_SETTINGS: Final = """
SELECT name, pg_catalog.current_setting(name)
FROM unnest(%s::text[]) WITH ORDINALITY AS wanted (name, place) ORDER BY place
"""

_SETTING_NAMES: Final = [
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "bytea_output",
    "extra_float_digits",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "default_text_search_config",
    "search_path",
]
"""Settings on which the text or the meaning of an answer depends."""

_DATABASE: Final = """
SELECT oid::bigint, pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype,
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c'),
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale'),
       pg_catalog.to_jsonb(d) ->> 'datcollversion'
FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database()
"""

_LIBRARY_VERSION: Final = "SELECT pg_catalog.pg_database_collation_actual_version(%s::oid)"
_LIBRARY_VERSION_SINCE: Final = 150000

_PROVIDERS: Final = {"c": "libc", "i": "icu", "b": "builtin", "d": "libc"}

_MAY_USE: Final = """
SELECT pg_catalog.has_table_privilege('shards.decisions', 'SELECT')
   AND pg_catalog.has_table_privilege('shards.decisions', 'INSERT')
   AND pg_catalog.has_table_privilege('shards.decisions', 'UPDATE')
   AND pg_catalog.has_table_privilege('shards.decisions', 'DELETE')
"""
_MAY_USE_MARKERS: Final = """
SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege(name, privilege))
FROM (VALUES ('shards.markers'), ('shards.marker_horizons')) AS t(name),
    (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS p(privilege)
"""

# Only its own role, one that may become it, or a superuser may finish a prepared transaction.
_PREPARED: Final = """
SELECT gid, extract(epoch FROM pg_catalog.clock_timestamp() - prepared)::float8,
       pg_catalog.pg_has_role(owner, 'MEMBER'), owner
FROM pg_catalog.pg_prepared_xacts
WHERE database = pg_catalog.current_database()
"""


def look_at(
    driver: psycopg.Connection[Any], shard: str, tables: Sequence[TableExpected] | None
) -> ShardFacts:
    """Return what is to be seen of a shard over an autocommit connection.

    :param tables: those that the models place there; None: nobody asked for tables.
    """
    server = look_at_server(driver)
    identity = read_identity(driver)
    with driver.cursor(row_factory=tuple_row) as cursor:
        may_use = identity is not None and cursor.execute(_MAY_USE).fetchone() == (True,)
        if may_use and identity is not None and identity.consistent_reads:
            may_use = cursor.execute(_MAY_USE_MARKERS).fetchone() == (True,)
    return ShardFacts(
        server=server,
        database=look_at_database(driver, server.version),
        identity=identity,
        may_use_schema=may_use,
        prepared=_prepared(driver, shard, identity),
        tables=None if tables is None else look_at_tables(driver, tables),
    )


def look_at_server(driver: psycopg.Connection[Any]) -> ServerSeen:
    """Return what is to be seen of the server behind an autocommit connection."""
    with driver.cursor(row_factory=tuple_row) as cursor:
        row: Any = cursor.execute(_SERVER).fetchone()
        version, started_at, is_standby, is_read_only, prepared_max, wal_level, connections = row
        rows: list[tuple[str, str]] = cursor.execute(_SETTINGS, (_SETTING_NAMES,)).fetchall()
    ahead, unsure = _clock(driver)
    return ServerSeen(
        version=version,
        started_at=started_at,
        is_standby=is_standby,
        is_read_only=is_read_only and not is_standby,
        prepared_transactions_max=prepared_max,
        wal_level=wal_level,
        connections_max=connections,
        settings=dict(rows),
        seconds_ahead=ahead,
        seconds_unsure=unsure,
    )


def _clock(driver: psycopg.Connection[Any]) -> tuple[float, float]:
    """By how many seconds the server's clock is ahead of ours, and how sure that is."""
    query = "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8"
    with driver.cursor(row_factory=tuple_row) as cursor:
        before = time.time()
        row: Any = cursor.execute(query).fetchone()
        after = time.time()
    return row[0] - (before + after) / 2, abs(after - before) / 2


def look_at_database(driver: psycopg.Connection[Any], server_version: int) -> DatabaseSeen:
    """Return what is to be seen of the database behind an autocommit connection."""
    with driver.cursor(row_factory=tuple_row) as cursor:
        row: Any = cursor.execute(_DATABASE).fetchone()
        oid, encoding, collate, ctype, provider, locale, recorded = row
        library = None
        if server_version >= _LIBRARY_VERSION_SINCE:
            answer: Any = cursor.execute(_LIBRARY_VERSION, (oid,)).fetchone()
            library = answer[0]
    text = {"encoding": encoding, "collation": collate, "character types": ctype}
    text["provider"] = _PROVIDERS.get(provider, provider)
    if locale is not None:
        text["locale"] = locale
    return DatabaseSeen(oid, text, recorded, library)


def _prepared(
    driver: psycopg.Connection[Any], shard: str, identity: Identity | None
) -> tuple[Prepared, ...]:
    ours: set[str] = set()
    if identity is not None:
        listing = list_prepared(driver, shard, identity)
        ours = {str(part.gid) for part in listing.parts} | set(listing.not_understood)
    with driver.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_PREPARED).fetchall()
    return tuple(Prepared(gid in ours, age, may, str(owner)) for gid, age, may, owner in rows)
