"""What the tests of mappings share: how models are declared in each world, and what must hold.

A test module makes its models in ``make_models(say)``. `Saying` stands for what this package adds
to a model: on a plain database it adds nothing, so that the same body runs without the package.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from sqlalchemy_shards import (
    GlobalMixin,
    ReferenceMixin,
    ShardKeyMixin,
    global_table,
    reference_table,
    shard_table,
)
from sqlalchemy_shards.models.distribution import Reference, Sharded, distribution_of
from tests.databases import libpq_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Table

    from tests.shards.shop import World

T = TypeVar("T")

_EMPTY = """
DO $$
DECLARE name text;
BEGIN
    SET LOCAL session_replication_role = replica;
    FOR name IN
        SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
        WHERE schemaname !~ '^pg_' AND schemaname NOT IN ('information_schema', 'shards')
    LOOP
        EXECUTE 'DELETE FROM ' || name;
    END LOOP;
END
$$
"""


class _Nothing:
    """Stands where a mixin would."""


@dataclass(frozen=True)
class Saying:
    """What models say of shards: nothing on a plain database."""

    is_declared: bool

    @property
    def sharded(self) -> type:
        return ShardKeyMixin if self.is_declared else _Nothing

    @property
    def reference(self) -> type:
        return ReferenceMixin if self.is_declared else _Nothing

    @property
    def global_(self) -> type:
        return GlobalMixin if self.is_declared else _Nothing

    def shard_table(self, table_or_class: T, key: Any = "id", **more: Any) -> T:
        if self.is_declared:
            shard_table(table_or_class, key, **more)
        return table_or_class

    def reference_table(self, table_or_class: T) -> T:
        return reference_table(table_or_class) if self.is_declared else table_or_class

    def global_table(self, table_or_class: T) -> T:
        return global_table(table_or_class) if self.is_declared else table_or_class


class Keeper:
    """Empties a world's databases, and looks whether their rows are where they belong."""

    def __init__(self, urls: dict[str, str]) -> None:
        self._connections = {name: _connect(url) for name, url in urls.items()}

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def empty(self) -> None:
        for connection in self._connections.values():
            connection.execute(_EMPTY)

    def misplaced(self, world: World) -> list[str]:
        """Tables that hold a row on another shard than its key's, or copies that differ."""
        faults = []
        for table in _sorted_tables(world):
            distribution = distribution_of(table)
            if not isinstance(distribution, (Reference, Sharded)):
                continue
            rows = {name: self._rows(name, table) for name in self._connections}
            if isinstance(distribution, Reference):
                copies = [Counter(map(repr, each)) for each in rows.values()]
                if any(copy != copies[0] for copy in copies):
                    faults.append(table.fullname)
            elif distribution.beside is None:  # else a foreign key holds it beside its base
                names = [table.c[key].name for key in distribution.key]
                faults += [
                    f"{table.fullname} {key} on {shard}"
                    for shard, found in rows.items()
                    for key in {tuple(row[name] for name in names) for row in found}
                    if _shard_of(world, distribution, key) != shard
                ]
        return faults

    def _rows(self, shard: str, table: Table) -> list[dict[str, Any]]:
        schema = f'"{table.schema}".' if table.schema else ""
        query = f'SELECT * FROM {schema}"{table.name}"'
        cursor = self._connections[shard].execute(query.encode())
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def _sorted_tables(world: World) -> Sequence[Table]:
    return sorted(world.models.metadata.tables.values(), key=lambda table: table.fullname)


def _shard_of(world: World, distribution: Sharded, stored_key: tuple[Any, ...]) -> str:
    assert world.cluster is not None
    return world.cluster.shard_map.shard_for(distribution.keyspace, stored_key)


def _connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        libpq_url(url),
        autocommit=True,
        options="-c lock_timeout=5000 -c client_min_messages=warning",
    )
