"""A table that is made in a world for one test."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, Table

from sqlalchemy_shards import shard_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Column

    from tests.shards.shop import World


@contextmanager
def made(world: World, *columns: Column[Any], key: Any = "id") -> Iterator[Table]:
    """The table ``made`` of these columns, sharded by its key where there are shards."""
    table = Table("made", MetaData(), *columns)
    if world.is_spread:
        shard_table(table, key=key)
    table.metadata.create_all(world.engine)
    try:
        yield table
    finally:
        table.metadata.drop_all(world.engine)
