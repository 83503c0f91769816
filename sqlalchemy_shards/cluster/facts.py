"""Looks at every shard of a cluster for `Cluster.check`, at all of them at once.

Each shard is asked over a fresh connection beside its pool, in autocommit; nothing is changed. A
shard that does not answer by the deadline is an error among the facts, and stops no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import tuple_row

from sqlalchemy_shards.catalog.identity import read_identity
from sqlalchemy_shards.connections.fan_out import Branch
from sqlalchemy_shards.transactions.inventory import list_prepared

from .check import Expectation, Prepared, Report, ShardFacts, judge
from .schema import checked_tables, tables_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg
    from sqlalchemy import MetaData, Table

    from sqlalchemy_shards.catalog.identity import Identity

    from .cluster import Cluster

CHECK_SECONDS: Final = 10.0
"""How long a check waits for the shards, all of them together."""

# The system identifier does not tell servers apart that were copied from one data directory.
_SERVER = """
SELECT pg_catalog.current_setting('server_version_num')::int,
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('max_prepared_transactions')::int,
       pg_catalog.pg_postmaster_start_time(),
       (SELECT oid::bigint FROM pg_catalog.pg_database
        WHERE datname = pg_catalog.current_database())
"""

_PREPARED = """
SELECT gid, extract(epoch FROM pg_catalog.clock_timestamp() - prepared)::float8
FROM pg_catalog.pg_prepared_xacts
WHERE database = pg_catalog.current_database()
"""

_MAY_USE = """
SELECT pg_catalog.has_table_privilege('shards.decisions', 'SELECT')
   AND pg_catalog.has_table_privilege('shards.decisions', 'INSERT')
   AND pg_catalog.has_table_privilege('shards.decisions', 'UPDATE')
   AND pg_catalog.has_table_privilege('shards.decisions', 'DELETE')
"""

_MISSING = """
SELECT name FROM unnest(%s::text[]) WITH ORDINALITY AS wanted (name, place)
WHERE pg_catalog.to_regclass(name) IS NULL ORDER BY place
"""


def check_cluster(
    cluster: Cluster, metadata: MetaData | None, deadline_seconds: float | None
) -> Report:
    """Look at all shards and judge what was seen; see `Cluster.check`."""
    cluster.check_open()
    tables = [] if metadata is None else checked_tables(cluster, metadata)
    outcomes = cluster.fan_out.run(
        [
            Branch(name, lambda name=name: _look_at(cluster, name, tables))  # type: ignore[misc]
            for name in cluster.shards
        ],
        deadline_seconds=deadline_seconds,
    )
    seen: dict[str, ShardFacts | Exception] = {}
    for outcome in outcomes:
        seen[outcome.shard] = outcome.result() if outcome.error is None else outcome.error
    expectation = Expectation(
        cluster.name,
        commits_atomically=cluster.multi_shard_writes == "atomic" and len(cluster.shards) > 1,
        checks_tables=metadata is not None,
    )
    addresses = {name: shard.masked_url for name, shard in cluster.shards.items()}
    return judge(seen, addresses, expectation)


def _look_at(cluster: Cluster, shard: str, tables: Sequence[Table]) -> ShardFacts:
    format_table = cluster.dialect.identifier_preparer.format_table
    names = [format_table(table) for table in tables_on(cluster, shard, tables)]
    with cluster.connect(shard) as driver, driver.cursor(row_factory=tuple_row) as cursor:
        row: Any = cursor.execute(_SERVER).fetchone()
        version, is_standby, prepared_max, started_at, database = row
        identity = read_identity(driver)
        may_use = identity is not None and cursor.execute(_MAY_USE).fetchone() == (True,)
        return ShardFacts(
            server_version=version,
            is_standby=is_standby,
            prepared_transactions_max=prepared_max,
            database=(started_at, database),
            identity=identity,
            may_use_schema=may_use,
            prepared=_prepared(driver, shard, identity),
            missing_tables=tuple(name for (name,) in cursor.execute(_MISSING, (names,))),
        )


def _prepared(
    driver: psycopg.Connection[Any], shard: str, identity: Identity | None
) -> tuple[Prepared, ...]:
    ours: set[str] = set()
    if identity is not None:
        listing = list_prepared(driver, shard, identity)
        ours = {str(part.gid) for part in listing.parts} | set(listing.not_understood)
    with driver.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_PREPARED).fetchall()
    return tuple(Prepared(gid in ours, age) for gid, age in rows)
