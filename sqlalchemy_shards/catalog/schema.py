"""The schema `shards`, and how it is created and brought from version to version.

- `bootstrap` does all or nothing, may run any number of times, and at the same time from any
  number of processes: it holds the advisory lock `BOOTSTRAP_LOCK` until its transaction ends.
- A step that was released is never changed; a new version is a new step. Version n is reached by
  running the first n steps.
- A database that already is another shard, or has a newer schema, is refused and left as it is.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from sqlalchemy_shards.catalog.identity import (
    SCHEMA_VERSION,
    Identity,
    IdentityRegistry,
    check_is_shard,
    check_placement,
    read_identity,
)
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.recorded_placement import added_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import psycopg

    from sqlalchemy_shards.topology.shard_map import ShardMap

BOOTSTRAP_LOCK = 0x7368617264730001
"""Key of `pg_advisory_xact_lock`: the ASCII of "shards", then 1. Databases lock apart."""

# `gid` is compared byte by byte: an index in another collation breaks when the operating system's
# collations change, and the uniqueness of gids is what settles a race.
_VERSION_1 = (
    """
    CREATE TABLE shards.identity (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        cluster_uuid uuid NOT NULL,
        cluster_name text NOT NULL,
        shard_uuid uuid NOT NULL,
        shard_name text NOT NULL,
        schema_version integer NOT NULL,
        created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
    )
    """,
    """
    CREATE TABLE shards.decisions (
        gid text COLLATE "C" PRIMARY KEY,
        decision_xid xid8 NOT NULL,
        outcome text NOT NULL CHECK (outcome IN ('commit', 'abort')),
        participants text[] NOT NULL,
        decided_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
        format smallint NOT NULL
    )
    """,
    "COMMENT ON SCHEMA shards IS 'sqlalchemy_shards: do not change by hand'",
    "COMMENT ON TABLE shards.decisions IS"
    " 'outcomes of distributed transactions that this shard decided; a row that is removed by hand"
    " can turn a commit into half a commit'",
)

_VERSION_2 = (
    "ALTER TABLE shards.identity ADD COLUMN placement jsonb NOT NULL DEFAULT '{}'",
    "COMMENT ON COLUMN shards.identity.placement IS"
    " 'on which shard each bucket is: rows are found by it'",
)

# Not unique: a shard that lost transactions in a failover gives their xids to others, whose commits
# must not fail for it. Vacuumed by the number of rows that were removed, as they come and go. Where
# all tables are published, only rows with a replica identity can be removed.
_VERSION_3 = (
    "ALTER TABLE shards.identity ADD COLUMN consistent_reads boolean NOT NULL DEFAULT false",
    "COMMENT ON COLUMN shards.identity.consistent_reads IS"
    " 'whether every distributed transaction leaves markers'",
    """
    CREATE TABLE shards.markers (
        peer uuid NOT NULL,
        peer_xid xid8 NOT NULL,
        gid text COLLATE "C" NOT NULL
    ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)
    """,
    "ALTER TABLE shards.markers REPLICA IDENTITY FULL",
    "CREATE INDEX markers_peer_xid ON shards.markers (peer, peer_xid)",
    """
    CREATE TABLE shards.marker_horizons (
        peer uuid PRIMARY KEY,
        removed pg_snapshot,
        next pg_snapshot NOT NULL,
        next_at timestamptz NOT NULL
    )
    """,
    "COMMENT ON TABLE shards.markers IS"
    " 'recent distributed transactions that committed here, and the xids of their other parts'",
    "COMMENT ON TABLE shards.marker_horizons IS"
    " 'which markers were removed: those that the snapshot of the other shard shows'",
)

# The revisions that a shard has stand in Alembic's version table, and nowhere else: this tells what
# was tried. A run that was killed stays `running`, under a server process that holds no lock of
# migrations any more.
_VERSION_4 = (
    """
    CREATE TABLE shards.migrations (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        run uuid NOT NULL,
        command text NOT NULL,
        target text,
        revisions_before text[],
        revisions_after text[],
        outcome text NOT NULL DEFAULT 'running'
            CHECK (outcome IN ('running', 'done', 'failed', 'interrupted')),
        error text,
        started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
        finished_at timestamptz,
        server_pid integer NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
        role text NOT NULL DEFAULT session_user,
        client text NOT NULL
    )
    """,
    "COMMENT ON TABLE shards.migrations IS"
    " 'what was asked of this shard by migrations, and how it ended; its revisions are in the"
    " version table of Alembic'",
    """
    CREATE TABLE shards.batches (
        name text COLLATE "C" PRIMARY KEY,
        statement text NOT NULL,
        done_to text,
        ends_at text,
        batches bigint NOT NULL DEFAULT 0,
        rows bigint NOT NULL DEFAULT 0,
        finished boolean NOT NULL DEFAULT false,
        begun_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
        changed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
    )
    """,
    "COMMENT ON TABLE shards.batches IS"
    " 'how far op.run_batches() has come in revisions that are under way'",
)

_VERSION_5 = (
    "ALTER TABLE shards.identity ADD COLUMN newcomers jsonb NOT NULL DEFAULT '{}'",
    "COMMENT ON COLUMN shards.identity.newcomers IS"
    " 'shards that were added when others had data: since when that is told, and whether they have"
    " copies of the reference tables'",
)

STEPS: tuple[tuple[str, ...], ...] = (
    _VERSION_1,
    _VERSION_2,
    _VERSION_3,
    _VERSION_4,
    _VERSION_5,
)
"""Statements that lead from version n to version n + 1, at index n."""

_SCHEMA_EXISTS = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'shards'"

_INSERT_IDENTITY = """
INSERT INTO shards.identity (cluster_uuid, cluster_name, shard_uuid, shard_name, schema_version)
VALUES (%s::text::uuid, %s::text, %s::text::uuid, %s::text, %s::integer)
"""


def bootstrap(
    connection: psycopg.Connection[Any],
    *,
    cluster_uuid: UUID | None,
    cluster_name: str,
    shard_name: str,
    shard_uuid: UUID | None = None,
    shard_map: ShardMap | None = None,
    consistent_reads: bool = False,
) -> Identity:
    """Create or upgrade the schema `shards` of one database, and return who it is from now on.

    :param connection: an idle one; it is idle again afterwards.
    :param cluster_uuid: None keeps the one that is there, or makes a new one.
    :param shard_uuid: likewise.
    :param shard_map: is written down, where it was not; None: it is not known.
    :param consistent_reads: True is written down, and stays; False changes nothing.
    :raises ConfigurationError: the database already is another shard, or one of another cluster,
        or its schema is newer than this release knows. Nothing was changed.
    """
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        raise ConfigurationError(
            f"the connection to shard {shard_name!r} is in a transaction or closed",
            "bootstrap over an idle connection",
            shard=shard_name,
        )
    with _locked_transaction(connection):
        identity = read_identity(connection)
        if identity is None:
            identity = Identity(
                cluster_uuid or uuid4(), cluster_name, shard_uuid or uuid4(), shard_name, 0
            )
        check_is_shard(identity, shard_name, cluster_name)
        _check_uuids(identity, cluster_uuid, shard_uuid)
        upgraded = _upgrade(connection, identity)
        if consistent_reads and not upgraded.consistent_reads:
            connection.execute("UPDATE shards.identity SET consistent_reads = true")
            upgraded = replace(upgraded, consistent_reads=True)
        return upgraded if shard_map is None else _record(connection, upgraded, shard_map)


def bootstrap_cluster(
    connect: Callable[[str], AbstractContextManager[psycopg.Connection[Any]]],
    *,
    shard_names: Sequence[str],
    cluster_name: str,
    identities: IdentityRegistry,
    shard_map: ShardMap | None = None,
    consistent_reads: bool = False,
) -> Mapping[str, Identity]:
    """Create or upgrade the schema `shards` of every shard, and return who they are.

    Looks at all of them before it changes the first, so that a wrong URL is found in time. May run
    from several processes at once: where no shard has a cluster's UUID yet, the first shard by name
    decides it.

    :param connect: gives an idle connection to the shard of that name.
    :param shard_map: is written down in each of them.
    :param consistent_reads: likewise, if True.
    :raises ConfigurationError: as `bootstrap` and `IdentityRegistry.admit` do.
    """
    cluster_uuid = _look_at_all(connect, shard_names, cluster_name, shard_map)
    created = {}
    for name in sorted(shard_names):
        with connect(name) as connection:
            identity = bootstrap(
                connection,
                cluster_uuid=cluster_uuid,
                cluster_name=cluster_name,
                shard_name=name,
                shard_map=shard_map,
                consistent_reads=consistent_reads,
            )
        identities.admit(name, identity)
        cluster_uuid = identity.cluster_uuid
        created[name] = identity
    return created


@contextmanager
def _locked_transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    with connection.transaction():
        # READ COMMITTED, so that what another process has just committed is seen under the lock.
        connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
        # It holds no lock yet that another could wait for, however many processes start at once.
        connection.execute("SET LOCAL lock_timeout = 0")
        connection.execute(f"SELECT pg_catalog.pg_advisory_xact_lock({BOOTSTRAP_LOCK})".encode())
        yield


def _check_uuids(identity: Identity, cluster_uuid: UUID | None, shard_uuid: UUID | None) -> None:
    for kind, wanted, found in (
        ("cluster", cluster_uuid, identity.cluster_uuid),
        ("shard", shard_uuid, identity.shard_uuid),
    ):
        if wanted is not None and wanted != found:
            raise ConfigurationError(
                f"the database of shard {identity.shard_name!r} has the {kind} UUID {found}, not"
                f" {wanted}: it belongs to another {kind}",
                "check its URL",
                shard=identity.shard_name,
            )


def _upgrade(connection: psycopg.Connection[Any], identity: Identity) -> Identity:
    if identity.version == SCHEMA_VERSION:
        return identity
    with connection.cursor(row_factory=tuple_row) as cursor:
        # CREATE SCHEMA IF NOT EXISTS asks for the right to create one even where it exists.
        if cursor.execute(_SCHEMA_EXISTS).fetchone() is None:
            cursor.execute("CREATE SCHEMA shards")
        for step in STEPS[identity.version :]:
            for statement in step:
                cursor.execute(statement.encode())
        if identity.version == 0:
            cursor.execute(_INSERT_IDENTITY, _row(identity))
        else:
            cursor.execute("UPDATE shards.identity SET schema_version = %s", (SCHEMA_VERSION,))
    return replace(identity, version=SCHEMA_VERSION)


def _record(
    connection: psycopg.Connection[Any], identity: Identity, shard_map: ShardMap
) -> Identity:
    check_placement(identity, shard_map)
    placement = added_to(identity.placement, shard_map)
    if placement != identity.placement:
        connection.execute(
            "UPDATE shards.identity SET placement = %s::text::jsonb", (json.dumps(placement),)
        )
    return replace(identity, placement=placement)


def _row(identity: Identity) -> tuple[str, str, str, str, int]:
    return (
        str(identity.cluster_uuid),
        identity.cluster_name,
        str(identity.shard_uuid),
        identity.shard_name,
        SCHEMA_VERSION,
    )


def _look_at_all(
    connect: Callable[[str], AbstractContextManager[psycopg.Connection[Any]]],
    shard_names: Sequence[str],
    cluster_name: str,
    shard_map: ShardMap | None,
) -> UUID | None:
    seen = IdentityRegistry(cluster_name)
    faults = []
    for name in shard_names:
        with connect(name) as connection:
            identity = read_identity(connection)
        if identity is None:
            continue
        try:
            seen.admit(name, identity)
        except ConfigurationError as error:
            faults.append(error.problem)
    if faults:
        raise ConfigurationError(
            "the shards are not what the configuration says:",
            "check the URLs; nothing was changed",
            faults=faults,
        )
    if shard_map is not None:
        for name in shard_names:
            known = seen.of(name)
            if known is not None:
                check_placement(known, shard_map)
    return seen.cluster_uuid
