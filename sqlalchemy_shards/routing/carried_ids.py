"""Which generated ids a statement writes: ids that say in which bucket their row is.

A comparison with such an id finds the shard only as long as each row's ids carry the bucket of the
row's own shard key. So whatever writes one is looked at; what cannot be looked at is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.dml import Insert, Update

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.distribution import Sharded, distribution_of
from sqlalchemy_shards.models.generated_id import carries_bucket
from sqlalchemy_shards.models.key_types import KeyFamily, KeyType

from .conflicts import moved_ids
from .inserts import parameter_of_row
from .targets import plain_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Column, Table
    from sqlalchemy.sql.compiler import SQLCompiler

    from .conditions import Parameter

_ID = KeyType(KeyFamily.INTEGER)


@dataclass(frozen=True, slots=True)
class WrittenId:
    """A generated id that a statement writes into one column.

    :param parameter: its value; None: only SQL knows it.
    :param is_identity: the primary key is unique over all shards only because this id is one.
    """

    column: str
    parameter: Parameter | None
    is_identity: bool


@dataclass(frozen=True, slots=True)
class CarriedIds:
    """The generated ids that a statement writes.

    :param keyspace: the one that places the table's rows.
    :param ids: those of an UPDATE, or of each row of an INSERT.
    :param rows: those of each row of a VALUES list; none: there is no such list.
    :param set_on_conflict: columns that ON CONFLICT DO UPDATE may give another bucket.
    """

    table: str
    keyspace: str
    ids: tuple[WrittenId, ...]
    rows: tuple[tuple[WrittenId, ...], ...] = ()
    set_on_conflict: tuple[str, ...] = ()


def carried_ids(compiled: SQLCompiler) -> CarriedIds | None:
    """The generated ids that a statement writes into a sharded table, None: it writes none."""
    statement: Any = _compat.core_statement(compiled)
    if not isinstance(statement, (Insert, Update)):
        return None
    table = plain_table(statement.table)
    sharded = distribution_of(table)
    if not isinstance(sharded, Sharded):
        return None
    columns = [column for column in table.c if carries_bucket(column.type)]
    if not columns:
        return None
    if isinstance(statement, Update):
        return _updated(compiled, table, sharded, columns)
    return _inserted(compiled, statement, table, sharded, columns)


def _updated(
    compiled: SQLCompiler, table: Table, sharded: Sharded, columns: list[Column[Any]]
) -> CarriedIds | None:
    given = _compat.dml_values(compiled) or {}
    named = set(given) | set(compiled.column_keys or ())
    ids = [
        _written(each, given, each.key, sharded, compiled) for each in columns if each.key in named
    ]
    return CarriedIds(table.fullname, sharded.keyspace, tuple(ids)) if ids else None


def _inserted(
    compiled: SQLCompiler,
    insert: Insert,
    table: Table,
    sharded: Sharded,
    columns: list[Column[Any]],
) -> CarriedIds:
    given = _compat.dml_values(compiled) or {}
    rows = tuple(
        tuple(
            _written(
                each,
                row,
                _compat.name_in_row(each.key, index, is_default=each.key not in row),
                sharded,
                compiled,
            )
            for each in columns
        )
        for index, row in enumerate(_compat.values_rows(compiled))
    )
    single = () if rows else tuple(_written(c, given, c.key, sharded, compiled) for c in columns)
    clause = _compat.post_values_clause(insert)
    names = {column.key for column in columns}
    moved = () if clause is None else moved_ids(clause, table, sharded, names)
    return CarriedIds(table.fullname, sharded.keyspace, single, rows, moved)


def _written(
    column: Column[Any],
    given: Mapping[str, Any],
    name: str,
    sharded: Sharded,
    compiled: SQLCompiler,
) -> WrittenId:
    keys = {each.key for each in column.table.primary_key}
    is_identity = (
        column.primary_key and not sharded.globally_unique and not keys.issuperset(sharded.key)
    )
    is_selected = getattr(_compat.core_statement(compiled), "select", None) is not None
    parameter = (
        None if is_selected else parameter_of_row(given.get(column.key), name, _ID, compiled)
    )
    return WrittenId(column.key, parameter, is_identity)
