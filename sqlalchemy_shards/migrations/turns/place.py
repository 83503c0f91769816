"""Where a migration runs: told by whoever configures Alembic, read by operations and autogenerate.

It stands in the options of Alembic's `MigrationContext`. Stock Alembic, on one shard alone, tells
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

    from sqlalchemy_shards.cluster.cluster import Cluster

PLACE_KEY: Final = "sqlalchemy_shards.place"
"""The name in ``MigrationContext.opts`` under which the `Place` stands."""


@dataclass(frozen=True, slots=True)
class Place:
    """A shard of a cluster."""

    cluster: Cluster
    shard: str

    @property
    def is_global(self) -> bool:
        """Whether this is the global shard."""
        return self.shard == self.cluster.global_shard


def place_of(context: MigrationContext) -> Place | None:
    """Where the migrations of a context run, if that is known."""
    place: Place | None = context.opts.get(PLACE_KEY)
    return place
