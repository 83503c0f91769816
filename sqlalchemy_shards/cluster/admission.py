"""Every new connection of a shard's pool is asked whose database it reached.

So swapped URLs, two shards that are one database, a restored copy, a failover to the wrong server
and a list of shards by which rows would not be found are noticed before a row is read or written.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from sqlalchemy import event

from sqlalchemy_shards.catalog.identity import (
    IdentityRegistry,
    check_consistent_reads,
    check_newcomers,
    check_placement,
    one_database,
    read_identity,
)
from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy_shards.catalog.identity import Identity
    from sqlalchemy_shards.connections.shard import Shard
    from sqlalchemy_shards.topology.shard_map import ShardMap


# A server's start is told to the microsecond; its system identifier would not do, since copies of
# a data directory share it.
_DATABASE = """
SELECT pg_catalog.pg_postmaster_start_time()::text, d.oid
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""


class NamelessDatabases:
    """The databases without the schema ``shards`` behind a cluster's shards. Thread-safe.

    Two shards that are one such database would answer with every row twice.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_shard: dict[str, Any] = {}

    def admit(self, shard_name: str, driver_connection: Any) -> None:
        """Remember the database behind a shard.

        :raises ConfigurationError: it is that of another shard.
        """
        is_idle = driver_connection.info.transaction_status == TransactionStatus.IDLE
        with driver_connection.cursor(row_factory=tuple_row) as cursor:
            database = cursor.execute(_DATABASE).fetchone()
        if is_idle and not driver_connection.autocommit:
            driver_connection.rollback()
        with self._lock:
            for name, known in self._by_shard.items():
                if name != shard_name and known == database:
                    raise one_database(name, shard_name)
            self._by_shard[shard_name] = database


class Placements:
    """Holds what shards have recorded against the shard map.

    All of them have the same record, as a rule, so the last one that was right is remembered.

    :param tell_unknown: is told of shards that are being added, and that this process does not
        know.
    """

    def __init__(
        self, shard_map: ShardMap, tell_unknown: Callable[[tuple[str, ...]], None]
    ) -> None:
        self._shard_map = shard_map
        self._tell_unknown = tell_unknown
        self._last_right: Mapping[str, Any] | None = None

    def check(self, identity: Identity) -> None:
        """Check that rows are looked for where they were put, as `check_placement` does.

        And that shards that were added are known, as `check_newcomers` does.
        """
        if identity.newcomers:
            unknown = check_newcomers(identity, self._shard_map)
            if unknown:
                self._tell_unknown(unknown)
        if identity.placement != self._last_right:
            check_placement(identity, self._shard_map)
            self._last_right = identity.placement


def admit_connections(
    shard: Shard,
    identities: IdentityRegistry,
    nameless: NamelessDatabases,
    placements: Placements,
    *,
    leaves_markers: bool = False,
) -> None:
    """Check each connection that the shard's pool opens from now on.

    A database without the schema ``shards`` is let in as long as it never had one: transactions on
    one shard need no schema.

    :param leaves_markers: whether transactions of this process do, as the cluster's all do or none.
    """

    def admit(driver_connection: Any, record: Any) -> None:
        try:
            check(driver_connection)
        except BaseException:
            driver_connection.close()  # the pool forgets what it could not make
            raise

    def check(driver_connection: Any) -> None:
        identity = read_identity(driver_connection)
        if identity is not None:
            identities.admit(shard.name, identity)
            placements.check(identity)
            check_consistent_reads(identity, leaves_markers=leaves_markers)
        elif identities.of(shard.name) is not None:
            raise ConfigurationError(
                f"the database behind shard {shard.name!r} at {shard.masked_url} has no schema "
                "'shards' any more: it is not the database that it was",
                "check where the URL leads, then make a new Cluster",
                shard=shard.name,
            )
        else:
            nameless.admit(shard.name, driver_connection)

    event.listen(shard.engine, "connect", admit)
