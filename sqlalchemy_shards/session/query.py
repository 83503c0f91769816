"""`Query`, for those who use it, with the routing options as methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.orm import Query

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class ShardedQuery(Query[T]):
    """SQLAlchemy's `Query` with `on_shard` and `on_key`."""

    def on_shard(self, *shards: str) -> Self:
        """Run on the shards of these names; ``"*"`` means all."""
        return self.execution_options(shard=shards[0] if len(shards) == 1 else shards)

    def on_key(self, model: Any, key: Any) -> Self:
        """Run on the shard that holds the rows of a model's shard key."""
        return self.execution_options(shard_key=(model, key))
