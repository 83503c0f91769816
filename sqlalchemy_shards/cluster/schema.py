"""Creating and dropping tables on the shards that they belong to.

- One process at a time does so in a shard's database: it holds the advisory lock `TABLES_LOCK` to
  the end of its transaction there, and so no longer than that, whatever becomes of it. The next one
  finds everything there. PostgreSQL itself refuses two that create one type or table at once.
- A shard's transaction waits for nothing of another shard, so that none wait crosswise.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import psycopg
from sqlalchemy import MetaData
from sqlalchemy.exc import OperationalError, StatementError

from sqlalchemy_shards.catalog.identity import check_placement, read_identity
from sqlalchemy_shards.catalog.schema import bootstrap, bootstrap_cluster
from sqlalchemy_shards.connections.fan_out import branch_for_each
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.checks import check_tables, undeclared_error
from sqlalchemy_shards.models.distribution import Global, Sharded, distribution_of
from sqlalchemy_shards.transactions.refusals import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from sqlalchemy import Connection, Engine, Table

    from sqlalchemy_shards.catalog.identity import Identity

    from .cluster import Cluster

TABLES_LOCK: Final = 0x7368617264730003
"""Key of `pg_advisory_xact_lock`: the ASCII of "shards", then 3. Databases lock apart."""

_LOCK: Final = f"SELECT pg_catalog.pg_advisory_xact_lock({TABLES_LOCK})"

_ASKED_AT_ONCE: Final = 4
_ASKED_SECONDS: Final = 10.0


def prepare_shards(cluster: Cluster) -> None:
    """Create or upgrade the schema ``shards`` everywhere."""
    bootstrap_cluster(
        cluster.reach,
        shard_names=tuple(cluster.shards),
        cluster_name=cluster.name,
        identities=cluster.identities,
        shard_map=cluster.shard_map,
        consistent_reads=cluster.consistent_reads,
    )


def prepare_shard(cluster: Cluster, shard: str) -> Identity:
    """Create or upgrade the schema ``shards`` on one shard, whether or not others answer.

    A shard that is new to the cluster gets the UUID that any other has. Where none has one, all
    must answer, and the first by name decides, as it does for `prepare_shards`: a shard that is
    down might have one.

    :raises ConfigurationError: it is another shard than it should be, or it cannot be told which
        cluster it is to belong to.
    """
    with cluster.reach(shard) as connection:
        if read_identity(connection) is None:
            cluster_uuid = cluster.identities.cluster_uuid or _uuid_of_others(cluster, shard)
        else:
            cluster_uuid = None
        identity = bootstrap(
            connection,
            cluster_uuid=cluster_uuid,
            cluster_name=cluster.name,
            shard_name=shard,
            shard_map=cluster.shard_map,
            consistent_reads=cluster.consistent_reads,
        )
    cluster.identities.admit(shard, identity)
    return identity


def create_tables(cluster: Cluster, metadata: MetaData) -> None:
    """Create what is missing: global tables on their shard, all others on every shard."""
    tables = checked_tables(cluster, metadata)
    _on_each_shard(
        cluster,
        lambda shard, connection: metadata.create_all(
            connection, tables=tables_on(cluster, shard, tables)
        ),
    )


def drop_tables(cluster: Cluster, metadata: MetaData) -> None:
    """Drop the tables where they are."""
    tables = list(metadata.tables.values())
    _on_each_shard(
        cluster,
        lambda shard, connection: metadata.drop_all(
            connection, tables=tables_on(cluster, shard, tables)
        ),
    )


def checked_tables(cluster: Cluster, metadata: MetaData | Sequence[MetaData]) -> list[Table]:
    """The tables of a cluster.

    :param metadata: several are checked one after the other.
    :raises ConfigurationError: a table is not declared, or in a way that cannot work.
    """
    if not isinstance(metadata, MetaData):
        return [table for each in metadata for table in checked_tables(cluster, each)]
    tables = list(metadata.tables.values())
    for table in tables:
        if distribution_of(table) is None and cluster.undeclared == "refuse":
            raise undeclared_error(table)
    check_declared(cluster, tables)
    return tables


def check_declared(cluster: Cluster, tables: Sequence[Table]) -> None:
    """Check tables, of which those that say nothing are global.

    :raises ConfigurationError: one is declared in a way that cannot work.
    """
    for table in tables:
        distribution = distribution_of(table)
        if isinstance(distribution, Sharded):
            cluster.shard_map.shards_of(distribution.keyspace)  # raises where there is no such
    if len(cluster.shards) > 1:
        check_tables(tables, cluster.dialect, undeclared=Global())


def tables_on(cluster: Cluster, shard: str, tables: Sequence[Table]) -> list[Table]:
    """Those of the tables that belong on a shard."""
    if shard == cluster.global_shard:
        return list(tables)
    return [table for table in tables if not isinstance(distribution_of(table) or Global(), Global)]


def _uuid_of_others(cluster: Cluster, shard: str) -> UUID | None:
    """The cluster's UUID, for a shard that has none; None: it is the one that decides."""
    others = [name for name in sorted(cluster.shards) if name != shard]
    unreachable: dict[str, BaseException] = {}
    # First the one that decides, alone: with many processes at work it is the one that knows.
    batches = [others[at : at + _ASKED_AT_ONCE] for at in range(1, len(others), _ASKED_AT_ONCE)]
    for names in (others[:1], *batches) if others else ():
        outcomes = cluster.fan_out.run(
            branch_for_each(names, partial(_identity_of, cluster)),
            deadline_seconds=_ASKED_SECONDS,
        )
        for outcome in outcomes:
            if outcome.error is not None:
                unreachable[outcome.shard] = outcome.error
            elif outcome.value is not None:
                check_placement(outcome.value, cluster.shard_map)
                cluster.identities.admit(outcome.shard, outcome.value)
        if cluster.identities.cluster_uuid is not None:
            return cluster.identities.cluster_uuid
    if unreachable:
        raise ConfigurationError(
            f"shard {shard!r} has no schema 'shards' yet, and neither has any shard that answers;"
            f" {', '.join(map(repr, unreachable))} may have the identity of the cluster, and"
            " cannot be asked",
            "repeat this when all shards answer",
            shard=shard,
            shard_errors=unreachable,
        )
    decides = min(cluster.shards)
    return None if decides == shard else prepare_shard(cluster, decides).cluster_uuid


def _identity_of(cluster: Cluster, shard: str) -> Identity | None:
    with cluster.reach(shard) as connection:
        return read_identity(connection)


def _on_each_shard(cluster: Cluster, work: Callable[[str, Connection], None]) -> None:
    cluster.check_open()

    def alone(shard: str) -> None:
        try:
            with _alone(cluster.shards[shard].engine) as connection:
                work(shard, connection)
        except StatementError as error:
            error.add_detail(f"shard: {shard}")
            raise

    outcomes = cluster.fan_out.run(branch_for_each(cluster.shards, alone))
    errors = {outcome.shard: outcome.error for outcome in outcomes if outcome.error is not None}
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        shard, first = next(iter(errors.items()))
        told = getattr(first, "orig", None) or first
        raise ConfigurationError(
            f"tables could not be created or dropped on shards {', '.join(map(repr, errors))};"
            f" the error of {shard!r} is {type(told).__name__}: {first_line(told)}",
            "see .shard_errors, mend the cause, and repeat: what is done is left as it is",
            shard_errors=errors,
        ) from first


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction on a shard, in which no other process creates or drops tables there."""
    with engine.connect() as connection:
        # So that what another process has just committed is seen under the lock.
        connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            try:
                connection.exec_driver_sql(_LOCK)
            except OperationalError as error:
                if isinstance(error.orig, psycopg.errors.LockNotAvailable):
                    error.add_detail("another process is creating or dropping tables there")
                raise
            yield connection
