"""Creating and dropping tables on the shards that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy_shards.catalog.schema import bootstrap_cluster
from sqlalchemy_shards.connections.fan_out import Branch
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.models.checks import check_tables, undeclared_error
from sqlalchemy_shards.models.distribution import Global, Sharded, distribution_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Engine, MetaData, Table

    from .cluster import Cluster


def prepare_shards(cluster: Cluster) -> None:
    """Create or upgrade the schema ``shards`` everywhere."""
    bootstrap_cluster(
        cluster.reach,
        shard_names=tuple(cluster.shards),
        cluster_name=cluster.name,
        identities=cluster.identities,
        shard_map=cluster.shard_map,
    )


def create_tables(cluster: Cluster, metadata: MetaData) -> None:
    """Create what is missing: global tables on their shard, all others on every shard."""
    tables = checked_tables(cluster, metadata)
    _on_each_shard(
        cluster,
        lambda shard, engine: metadata.create_all(engine, tables=tables_on(cluster, shard, tables)),
    )


def drop_tables(cluster: Cluster, metadata: MetaData) -> None:
    """Drop the tables where they are."""
    tables = list(metadata.tables.values())
    _on_each_shard(
        cluster,
        lambda shard, engine: metadata.drop_all(engine, tables=tables_on(cluster, shard, tables)),
    )


def checked_tables(cluster: Cluster, metadata: MetaData) -> list[Table]:
    """The tables of a cluster.

    :raises ConfigurationError: a table is not declared, or in a way that cannot work.
    """
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


def _on_each_shard(cluster: Cluster, work: Callable[[str, Engine], None]) -> None:
    cluster.check_open()
    outcomes = cluster.fan_out.run(
        [
            Branch(name, lambda name=name, shard=shard: work(name, shard.engine))  # type: ignore[misc]
            for name, shard in cluster.shards.items()
        ]
    )
    errors = {outcome.shard: outcome.error for outcome in outcomes if outcome.error is not None}
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        raise ConfigurationError(
            f"tables could not be created or dropped on shards {', '.join(map(repr, errors))}",
            "see .shard_errors, mend the cause, and repeat: what is done is left as it is",
            shard_errors=errors,
        )
