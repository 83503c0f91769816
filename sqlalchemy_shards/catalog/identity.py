"""Who a shard is: the one row of `shards.identity`, and whether it is the shard that was asked for.

- A name in a configuration can be wrong; the UUIDs in the database cannot. Whoever decides about a
  distributed transaction goes by the UUIDs.
- An `IdentityRegistry` never holds two shards with one UUID, nor shards of two clusters.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.recorded_placement import placement_faults

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from sqlalchemy_shards.topology.shard_map import ShardMap

SCHEMA_VERSION = 5
"""The version of the schema `shards` that this release works with."""

CONSISTENT_READS_VERSION = 3
"""The first version in which it is written down whether distributed transactions leave markers."""

# Read from the system catalogue, since `to_regclass` raises where the role may not use the schema,
# and an error would spoil a transaction that is open.
_READABLE = """
SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
   AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'shards' AND c.relname = 'identity'
"""

# As JSON, since older versions have fewer columns.
_READ = "SELECT pg_catalog.to_jsonb(i)::text FROM shards.identity i"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which shard of which cluster a database is.

    :param version: that of its schema `shards`.
    :param placement: where the cluster's buckets are, as `record_of` writes it down.
    :param consistent_reads: whether every distributed transaction leaves markers here, by which
        readers see it wholly or not at all.
    :param newcomers: shards that were added to the cluster when others had data, and whether they
        have joined: hold copies of the reference tables.

    ``shard_text`` is the UUID of the shard as every commit writes it down.
    """

    cluster_uuid: UUID
    cluster_name: str
    shard_uuid: UUID
    shard_name: str
    version: int
    placement: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    consistent_reads: bool = field(default=False, compare=False)
    newcomers: Mapping[str, bool] = field(default_factory=dict, compare=False, repr=False)
    shard_text: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shard_text", str(self.shard_uuid))


def read_identity(driver: psycopg.Connection[Any]) -> Identity | None:
    """Return who the database is, or None where it has no schema `shards`.

    Does not spoil an open transaction, and leaves an idle connection idle.

    :raises ConfigurationError: the role may not read it.
    """
    leave_idle = (
        not driver.autocommit and driver.pgconn.transaction_status == TransactionStatus.IDLE
    )
    try:
        with driver.cursor(row_factory=tuple_row) as cursor:
            readable = cursor.execute(_READABLE).fetchone()
            if readable is None:
                return None
            if not readable[0]:
                raise ConfigurationError(
                    "the role of the application may not read 'shards.identity'",
                    "grant it USAGE on the schema shards, SELECT on its table identity, and"
                    " SELECT, INSERT, UPDATE and DELETE on its other tables",
                )
            row = cursor.execute(_READ).fetchone()
    finally:
        if leave_idle and not driver.closed:
            driver.rollback()
    if row is None:
        return None
    found = json.loads(row[0])
    return Identity(
        UUID(found["cluster_uuid"]),
        found["cluster_name"],
        UUID(found["shard_uuid"]),
        found["shard_name"],
        found["schema_version"],
        found.get("placement", {}),
        found.get("consistent_reads", False),
        {name: each["joined"] for name, each in found.get("newcomers", {}).items()},
    )


class IdentityRegistry:
    """The identities of a cluster's shards, as far as they were seen. Thread-safe.

    :param cluster_name: where given, a shard of a cluster with another name is refused.
    """

    def __init__(self, cluster_name: str | None = None) -> None:
        self._cluster_name = cluster_name
        self._lock = threading.Lock()
        self._by_name: dict[str, Identity] = {}

    @property
    def cluster_uuid(self) -> UUID | None:
        """UUID of the cluster, or None as long as no shard was admitted."""
        with self._lock:
            return next((known.cluster_uuid for known in self._by_name.values()), None)

    def of(self, shard_name: str) -> Identity | None:
        """Return the identity of a shard, or None where it was not admitted yet."""
        return self._by_name.get(shard_name)

    def name_of(self, shard_uuid: UUID) -> str | None:
        """Return the name of the shard with this UUID, or None where none was admitted."""
        with self._lock:
            for name, known in self._by_name.items():
                if known.shard_uuid == shard_uuid:
                    return name
        return None

    def admit(self, shard_name: str, identity: Identity) -> None:
        """Remember that the database behind ``shard_name`` has this identity.

        :raises ConfigurationError: it is another shard (swapped URLs), a shard of another cluster,
            the same database as another shard, another database than before, or has a newer schema
            than this release knows.
        """
        with self._lock:
            check_is_shard(identity, shard_name, self._cluster_name)
            self._check_against_others(shard_name, identity)
            self._by_name[shard_name] = identity

    def _check_against_others(self, shard_name: str, identity: Identity) -> None:
        for name, known in self._by_name.items():
            if known.cluster_uuid != identity.cluster_uuid:
                raise ConfigurationError(
                    f"shards {name!r} and {shard_name!r} belong to two clusters"
                    f" ({known.cluster_uuid} and {identity.cluster_uuid})",
                    "check their URLs",
                    shard=shard_name,
                )
            if name == shard_name and known.shard_uuid != identity.shard_uuid:
                raise ConfigurationError(
                    f"the database behind shard {shard_name!r} has become another one"
                    f" ({identity.shard_uuid} instead of {known.shard_uuid})",
                    "check where its URL leads, then make a new Cluster",
                    shard=shard_name,
                )
            if name != shard_name and known.shard_uuid == identity.shard_uuid:
                raise one_database(name, shard_name)


def check_is_shard(identity: Identity, shard_name: str, cluster_name: str | None = None) -> None:
    """Check what an identity tells by itself: is this the shard that was asked for?

    :raises ConfigurationError: it is not, or its schema is newer than this release knows.
    """
    if cluster_name is not None and identity.cluster_name != cluster_name:
        raise ConfigurationError(
            f"the database of shard {shard_name!r} is shard {identity.shard_name!r} of the cluster"
            f" {identity.cluster_name!r}, not of {cluster_name!r}",
            "check the URL of the shard and the name of the cluster",
            shard=shard_name,
        )
    if identity.shard_name != shard_name:
        raise one_database(identity.shard_name, shard_name)
    if identity.version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"the schema 'shards' of shard {shard_name!r} has version {identity.version}, and this"
            f" release knows versions up to {SCHEMA_VERSION}",
            "upgrade sqlalchemy-shards in this process",
            shard=shard_name,
        )


def check_placement(identity: Identity, shard_map: ShardMap) -> None:
    """Check that rows are looked for where they were put.

    :raises ConfigurationError: the shard has recorded that buckets are elsewhere.
    """
    faults = placement_faults(shard_map, identity.placement)
    if faults:
        raise ConfigurationError(
            f"shard {identity.shard_name!r} has recorded another placement than the one configured,"
            " by which rows that are there would not be found:",
            "configure the shards and the placement that are recorded; if no row lies by them yet,"
            " see 'another placement' in the runbook",
            shard=identity.shard_name,
            faults=faults,
        )


def check_consistent_reads(identity: Identity, *, leaves_markers: bool) -> None:
    """Check that transactions of this process can be told apart by those who read consistently.

    :param leaves_markers: whether this process has consistent reads switched on.
    :raises ConfigurationError: the shard has recorded that all processes have, and this one has
        not.
    """
    if identity.consistent_reads and not leaves_markers:
        raise ConfigurationError(
            f"shard {identity.shard_name!r} has recorded that its cluster has consistent reads, and"
            " this process has not: its transactions would be seen in halves",
            "set consistent_reads=True (in the file: consistent_reads = true under [cluster])",
            shard=identity.shard_name,
        )


def check_newcomers(identity: Identity, shard_map: ShardMap) -> tuple[str, ...]:
    """Check the shards that were added; return those that this process does not know.

    Those have not joined yet, so that nothing but writes of reference tables concerns them.

    :raises ConfigurationError: one has joined that this process does not know, or this one has not
        joined, and keys are placed on it.
    """
    unknown = [name for name in identity.newcomers if name not in shard_map.shards]
    joined = [name for name in unknown if identity.newcomers[name] or len(shard_map.shards) == 1]
    if joined:
        raise ConfigurationError(
            f"shard {joined[0]!r} has been added to the cluster, and this process does not know it",
            "name it at the end of the shards in its configuration",
            shard=identity.shard_name,
        )
    own = identity.shard_name
    if identity.newcomers.get(own) is False and shard_map.holds_anything(own):
        raise ConfigurationError(
            f"shard {own!r} has not joined yet, and keys are placed on it: rows there would miss "
            "reference rows",
            f"place nothing on it until `shards migrate join {own}` has ended",
            shard=own,
        )
    return tuple(unknown)


def one_database(name: str, other: str) -> ConfigurationError:
    """Return the error for two shards of a cluster that lead to one database."""
    return ConfigurationError(
        f"shards {name!r} and {other!r} are one database or their URLs are swapped",
        f"check the URLs of both; nothing was changed in the database behind {other!r}",
        shard=other,
    )
