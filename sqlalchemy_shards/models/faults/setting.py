"""What the checks know besides the declaration that they look at, and how they name things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.models.distribution import distribution_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Column, FromClause
    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.schema import SchemaItem

    from sqlalchemy_shards.models.distribution import Distribution

PER_SHARD: Final = "per_shard"
"""Under this name the ``info`` of a constraint, index, or column says that each shard keeps it for
its own rows, and that this is meant."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a check takes place.

    :param dialect: tells which PostgreSQL type a column has.
    :param undeclared: what a table is that says nothing; None while it may still be declared.
    """

    dialect: Dialect
    undeclared: Distribution | None = None

    def spread(self, table: FromClause) -> Distribution | None:
        """How ``table`` spreads, or None where that is not known."""
        return distribution_of(table) or self.undeclared


def is_per_shard(*items: SchemaItem) -> bool:
    """Whether one of ``items`` is declared as kept by each shard for its own rows."""
    return any(bool(item.info.get(PER_SHARD)) for item in items)


def label_of(column: Column[Any]) -> str:
    """``table.column``, as the sentences name it."""
    return f"{column.table.fullname}.{column.name}"


def names_of(columns: Iterable[Column[Any]]) -> str:
    """The names of ``columns``, side by side."""
    return ", ".join(column.name for column in columns)
