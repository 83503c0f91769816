"""Where a revision runs, and what of ours is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg
from alembic.operations import MigrateOperation, Operations
from sqlalchemy import text

from sqlalchemy_shards.catalog.identity import SCHEMA_VERSION, read_identity
from sqlalchemy_shards.catalog.schema import bootstrap
from sqlalchemy_shards.cluster.schema import prepare_shard
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.operations.outside import refuse_as_sql
from sqlalchemy_shards.migrations.turns.place import place_of

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

GLOBAL_SHARD_OPTION: Final = "global_shard"
"""Argument of ``context.configure()`` with which an ``env.py`` that is not ours names it."""


@Operations.register_operation("is_global_shard")
class IsGlobalShardOp(MigrateOperation):
    """Tells whether the global shard is migrated."""

    @classmethod
    def is_global_shard(cls, operations: Operations) -> bool:
        """Whether the migration runs on the global shard, where global tables are.

        Alembic without `run_migrations` is told which shard that is by the argument
        ``global_shard=`` of ``context.configure()``, and reads in the database which shard it is.

        :raises ConfigurationError: that cannot be told.
        """
        context = operations.get_context()
        place = place_of(context)
        if place is not None:
            return place.is_global
        global_shard = context.opts.get(GLOBAL_SHARD_OPTION)
        shard = None if global_shard is None or context.as_sql else _shard_by_database(context)
        if shard is None:
            raise ConfigurationError(
                "the revision has steps for the global shard alone, and it cannot be told whether"
                " this database is it",
                "call run_migrations() in env.py; or bootstrap the cluster, and give"
                " context.configure() the global_shard= by name",
            )
        return bool(shard == global_shard)


@Operations.register_operation("bootstrap_shards")
class BootstrapShardsOp(MigrateOperation):
    """Creates or upgrades the schema ``shards``."""

    @classmethod
    def bootstrap_shards(cls, operations: Operations) -> None:
        """Create the schema ``shards`` of the shard at hand, or upgrade it to this release.

        Commits what the migration did before, if there is anything to do; may be run any number of
        times.

        :raises ConfigurationError: the database is another shard, or it cannot be told which.
        """
        operations.invoke(cls())


@Operations.implementation_for(BootstrapShardsOp)
def bootstrap_shards(operations: Operations, operation: BootstrapShardsOp) -> None:
    """Bootstrap one shard.

    :raises ConfigurationError: it cannot be told which shard this is.
    """
    del operation
    refuse_as_sql(operations, "bootstrap_shards", "it depends on what is there")
    context = operations.get_context()
    if not _is_bootstrapped(context):
        with context.autocommit_block():
            bootstrap_here(context)


def bootstrap_here(context: MigrationContext) -> None:
    """Bootstrap the shard that a context in autocommit mode is connected to.

    :raises ConfigurationError: it cannot be told which shard this is.
    """
    place = place_of(context)
    if place is not None:
        prepare_shard(place.cluster, place.shard)
        return
    assert context.connection is not None
    driver: Any = context.connection.connection.driver_connection
    known = read_identity(driver) if isinstance(driver, psycopg.Connection) else None
    if known is None:
        raise ConfigurationError(
            "it cannot be told which shard of which cluster this database is",
            "call run_migrations() in env.py, or bootstrap the cluster first",
        )
    bootstrap(
        driver,
        cluster_uuid=known.cluster_uuid,
        cluster_name=known.cluster_name,
        shard_name=known.shard_name,
    )


def _is_bootstrapped(context: MigrationContext) -> bool:
    """Whether the shard is as it would be afterwards. It is looked at within the transaction."""
    place = place_of(context)
    assert context.connection is not None
    driver: Any = context.connection.connection.driver_connection
    if place is None or not isinstance(driver, psycopg.Connection):
        return False
    known = read_identity(driver)
    return (
        known is not None
        and known.version == SCHEMA_VERSION
        and known.shard_name == place.shard
        and known.consistent_reads == place.cluster.consistent_reads
    )


def _shard_by_database(context: MigrationContext) -> str | None:
    connection = context.connection
    assert connection is not None
    is_there = connection.execute(text("SELECT to_regclass('shards.identity') IS NOT NULL"))
    if not is_there.scalar_one():
        return None
    return connection.execute(text("SELECT shard_name FROM shards.identity")).scalar_one_or_none()
