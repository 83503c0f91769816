"""Every new connection of a shard's pool is asked whose database it reached.

So swapped URLs, two shards that are one database, a restored copy or a failover to the wrong server
are noticed before a row is written there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from sqlalchemy_shards.catalog.identity import IdentityRegistry, read_identity
from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy_shards.connections.shard import Shard


def admit_connections(shard: Shard, identities: IdentityRegistry) -> None:
    """Check each connection that the shard's pool opens from now on.

    A database without the schema ``shards`` is let in as long as it never had one: transactions on
    one shard need no schema.
    """

    def admit(driver_connection: Any, record: Any) -> None:
        identity = read_identity(driver_connection)
        if identity is not None:
            identities.admit(shard.name, identity)
        elif identities.of(shard.name) is not None:
            raise ConfigurationError(
                f"the database behind shard {shard.name!r} at {shard.masked_url} has no schema "
                "'shards' any more: it is not the database that it was",
                "check where the URL leads, then make a new Cluster",
                shard=shard.name,
            )

    event.listen(shard.engine, "connect", admit)
