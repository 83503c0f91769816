"""The column type of generated ids: BIGINT in the database, and known to routing.

Invariant: in a sharded table, a value of a `GeneratedId` column that carries a bucket carries that
of its row's shard key. What would break it is refused where it is written, so that a comparison
with such a column finds the shard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger

if TYPE_CHECKING:
    from sqlalchemy.types import TypeEngine


class GeneratedId(BigInteger):
    """A BIGINT that holds ids of an `IdGenerator`, for the key of the row that it stands in.

    Alone it finds the shard: ``where(Order.id == x)`` goes to one. As a primary key without the
    shard key it needs no promise to be unique over all shards. A foreign key to such a column has
    this type too, as SQLAlchemy takes the type of the column that is referred to.

    A column that holds ids of rows with *other* shard keys is a plain `BigInteger`.
    """


def carries_bucket(type_: TypeEngine[Any]) -> bool:
    """Whether values of a column type tell the bucket of their row."""
    return isinstance(type_, GeneratedId)
