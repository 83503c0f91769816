"""The comparators that Alembic calls around its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.operations import ops
from alembic.util import DispatchPriority, PriorityDispatchResult

from sqlalchemy_shards.cluster.schema import checked_tables
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.autogenerate.arranging import arrange
from sqlalchemy_shards.migrations.autogenerate.kinds import kinds_of
from sqlalchemy_shards.migrations.autogenerate.written import write_down
from sqlalchemy_shards.migrations.turns.place import place_of

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.runtime.plugins import Plugin
    from sqlalchemy import MetaData

    from sqlalchemy_shards.migrations.autogenerate.kinds import Kinds


def add_comparators(plugin: Plugin) -> None:
    """Have Alembic call what is here, before and after its own."""
    plugin.add_autogenerate_comparator(
        check_models, "autogenerate", priority=DispatchPriority.FIRST
    )
    plugin.add_autogenerate_comparator(
        arrange_operations, "autogenerate", priority=DispatchPriority.LAST
    )


def check_models(context: AutogenContext, operations: ops.UpgradeOps) -> PriorityDispatchResult:
    """Check the models, before anything is compared with them.

    :raises ConfigurationError: they declare what the shards cannot keep.
    """
    del operations
    place = place_of(context.migration_context)
    if place is not None:
        checked_tables(place.cluster, _metadata(context))
    return PriorityDispatchResult.CONTINUE


def arrange_operations(
    context: AutogenContext, operations: ops.UpgradeOps
) -> PriorityDispatchResult:
    """Put what was found into the form that a revision for all shards has.

    :raises ConfigurationError: a table was created as something else than the models say, or it
        cannot be told what a table was.
    """
    tables = [table for each in _metadata(context) for table in each.tables.values()]
    migration = context.migration_context
    kinds = kinds_of(tables, migration, place_of(migration))
    kinds.check()
    schema = context.dialect.default_schema_name
    _check_removals(operations, kinds)
    for operation in operations.ops:
        write_down(operation, kinds.kind, schema)
    operations.ops[:] = arrange(operations.ops, kinds.is_global, schema)
    return PriorityDispatchResult.CONTINUE


def _check_removals(operations: ops.UpgradeOps, kinds: Kinds) -> None:
    """Check that it is known of removed tables what they were, or that other shards can tell."""
    if kinds.is_alone or not kinds.is_on_global_shard or kinds.elsewhere is not None:
        return
    removed = [each for each in operations.ops if isinstance(each, ops.DropTableOp)]
    if any(kinds.kind((each.schema, each.table_name)) is None for each in removed):
        raise ConfigurationError(
            "tables are to be dropped, and it cannot be told whether they are on all shards: no"
            " other shard answers and is at the same revisions",
            "migrate all shards to the heads first",
        )


def _metadata(context: AutogenContext) -> list[MetaData]:
    given = context.metadata
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]  # type: ignore[list-item]
