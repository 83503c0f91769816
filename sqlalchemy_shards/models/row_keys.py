"""The shard key of the row for which a column's default is asked.

Invariant: the values are those that routing will read for the same row, in the form in which the
database will hold them; where there is none, the row is refused rather than given another key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import BindParameter

from sqlalchemy_shards import _compat
from sqlalchemy_shards.errors import ConfigurationError, MissingShardKey, RoutingError
from sqlalchemy_shards.models.distribution import Sharded, distribution_of
from sqlalchemy_shards.models.faults.setting import label_of
from sqlalchemy_shards.models.key_types import KeyType, NotOfFamily, key_type_of_column

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Column, Table
    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.default import DefaultExecutionContext


class RowKey(NamedTuple):
    """A row's shard key, and the keyspace that places it."""

    keyspace: str
    key: tuple[Any, ...]


class _Part(NamedTuple):
    """How to read one part of a table's shard key."""

    column: Column[Any]
    processor: Callable[[Any], Any] | None
    key_type: KeyType


class RowKeyReader:
    """Reads shard keys; remembers for each dialect and table how. Safe over threads."""

    def __init__(self) -> None:
        self._parts: WeakKeyDictionary[Dialect, dict[Table, tuple[_Part, ...]]] = (
            WeakKeyDictionary()
        )

    def row_key(self, context: DefaultExecutionContext) -> RowKey:
        """The shard key of the row that is being inserted.

        :raises ConfigurationError: the default is not one of an inserted column of a sharded table.
        :raises MissingShardKey: the row has no value for its shard key, or one that only SQL knows.
        :raises RoutingError: a value is not of the key column's type.
        """
        table = _compat.column_of_default(context).table
        sharded = distribution_of(table)
        if not isinstance(sharded, Sharded):
            raise ConfigurationError(
                f"an id for table {table.fullname!r} cannot carry a bucket: the table is not "
                "declared to be sharded",
                "declare it with ShardKeyMixin or shard_table(), or use another default",
            )
        if not context.isinsert:
            raise ConfigurationError(
                f"an id for table {table.fullname!r} would be made by an UPDATE",
                "use the generator as default=, not as onupdate=",
            )
        row = _compat.row_of_default(context)
        parts = self._parts_of(table, sharded, context.dialect)
        return RowKey(sharded.keyspace, tuple(_value(part, row, context) for part in parts))

    def _parts_of(self, table: Table, sharded: Sharded, dialect: Dialect) -> tuple[_Part, ...]:
        known = self._parts.get(dialect)
        if known is None:
            known = self._parts.setdefault(dialect, {})
        parts = known.get(table)
        if parts is None:
            columns = [table.c[name] for name in sharded.key]
            parts = known[table] = tuple(_part(column, dialect) for column in columns)
        return parts


def _part(column: Column[Any], dialect: Dialect) -> _Part:
    key_type = key_type_of_column(column, dialect)
    return _Part(column, column.type.dialect_impl(dialect).bind_processor(dialect), key_type)


def _value(part: _Part, row: Mapping[str, Any], context: DefaultExecutionContext) -> Any:
    column = part.column
    value = row.get(column.key)
    if value is None and column.key not in row:
        value = _value_of_bind(column, row, context)
    if part.processor is not None and value is not None:
        is_stored = column.key in getattr(context, "shards_stored", ())  # text that is copied in
        value = value if is_stored else part.processor(value)
    if value is None:
        raise MissingShardKey(
            f"a row for table {column.table.fullname!r} has no value for its shard key "
            f"{column.key!r} at the moment when its id is made",
            "set it before the flush; if both columns have client-side defaults, let the shard "
            "key's stand before the id's in the table",
        )
    try:
        return part.key_type.stored_value(value)
    except NotOfFamily as reason:
        raise RoutingError(
            f"the value given for shard-key column {label_of(column)} is of type "
            f"{type(value).__name__}, which does not store as it is: {reason}",
            "give a value of the column's own type",
        ) from None


def _value_of_bind(
    column: Column[Any], row: Mapping[str, Any], context: DefaultExecutionContext
) -> Any:
    """The value of a ``bindparam()`` of another name that stands for the column."""
    compiled: Any = context.compiled
    given = (_compat.dml_values(compiled) or {}).get(column.key)
    return row.get(given.key) if isinstance(given, BindParameter) else None
