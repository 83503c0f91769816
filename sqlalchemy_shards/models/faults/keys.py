"""The columns of a shard key: of a type that can be hashed, known to the client, never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.types import NullType

from sqlalchemy_shards.models.faults.server_values import is_expression, source_of_numbers
from sqlalchemy_shards.models.faults.setting import label_of
from sqlalchemy_shards.models.faults.unfit_types import why_unfit
from sqlalchemy_shards.models.generated_id import carries_bucket
from sqlalchemy_shards.models.key_types import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Column, Table
    from sqlalchemy.engine import Dialect

    from sqlalchemy_shards.models.distribution import Sharded


def key_faults(table: Table, sharded: Sharded, dialect: Dialect) -> Iterator[str]:
    """What is wrong with each column of the key."""
    for column in (table.c[name] for name in sharded.key):
        label = label_of(column)
        if column.nullable and not column.primary_key:
            yield f"shard key {label} can be NULL; make it nullable=False"
        if not is_unresolved(column) and family_of(column.type, dialect) is None:
            yield f"shard key {label} has type {column.type!r}, {why_unfit(column.type, dialect)}"
        if carries_bucket(column.type):
            yield (
                f"shard key {label} is a GeneratedId, which carries the bucket of a shard key and "
                "cannot be one; use BigInteger (ids of an IdGenerator need a row's key first)"
            )
        if source_of_numbers(column, dialect) is None:
            yield from _value_faults(column, label)


def unresolved_faults(table: Table, sharded: Sharded) -> Iterator[str]:
    """Columns of the key whose type is still that of a table nobody defined."""
    for column in (table.c[name] for name in sharded.key):
        if is_unresolved(column):
            yield (
                f"shard key {label_of(column)} has no type, since the table that its foreign key "
                "refers to is not defined; import that table's module or give the column a type"
            )


def is_unresolved(column: Column[Any]) -> bool:
    """Whether ``column`` waits for the type of the column that its foreign key refers to."""
    return isinstance(column.type, NullType) and bool(column.foreign_keys)


def _value_faults(column: Column[Any], label: str) -> Iterator[str]:
    """The value must be there before the shard is known, and stay."""
    if column.computed is not None:
        yield f"shard key {label} is computed by the server; let the client give its value"
        return
    if column.server_default is not None:
        yield f"shard key {label} has a server default; give it a client-side default or none"
    if is_expression(column.default):
        yield (
            f"shard key {label} has an SQL expression as default, whose value no client knows; "
            "use a Python value or callable"
        )
    if column.onupdate is not None or column.server_onupdate is not None:
        yield f"shard key {label} has onupdate, which would change it in place; leave it out"
