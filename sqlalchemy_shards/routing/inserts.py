"""Where the shard key of an inserted row comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.elements import BindParameter, ClauseElement

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.key_types import key_type_of

from .conditions import Parameter
from .sources import InsertedKey

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.dml import Insert

    from sqlalchemy_shards.models.distribution import Sharded
    from sqlalchemy_shards.models.key_types import KeyType


def inserted_key(
    insert: Insert,
    compiled: SQLCompiler,
    table: Table,
    sharded: Sharded,
    key_types: tuple[KeyType, ...],
) -> InsertedKey:
    """Find the parameters that hold the shard key of the rows of an INSERT.

    Values given to ``values()`` stand in the statement; all others arrive at execution under the
    column's key, and so do client-side defaults.
    """
    given = _compat.dml_values(compiled) or {}
    is_readable = insert.select is None and not _compat.multi_values(insert)
    parameters: list[Parameter | None] = []
    for key, key_type in zip(sharded.key, key_types, strict=True):
        value = given.get(key)
        if not is_readable:
            parameters.append(None)
        elif isinstance(value, BindParameter):
            parameters.append(_parameter(value, compiled, key_type))
        elif isinstance(value, ClauseElement):
            parameters.append(None)
        else:
            parameters.append(Parameter(key, key_type))
    return InsertedKey(table.fullname, sharded.keyspace, sharded.key, tuple(parameters))


def _parameter(
    value: BindParameter[Any], compiled: SQLCompiler, key_type: KeyType
) -> Parameter | None:
    """The parameter that was compiled for a value; None: it is not of the column's kind.

    A value without a type of its own is compiled as a copy that has the column's, and keeps its
    key.
    """
    for bound, name in compiled.bind_names.items():
        if bound is value or bound.key == value.key:
            given_type = key_type_of(bound.type, compiled.dialect)
            matches = given_type is not None and given_type.family is key_type.family
            return Parameter(name, key_type) if matches else None
    return None
