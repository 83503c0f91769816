"""Where the shard key of an inserted row comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
            name = compiled.bind_names.get(value)
            given_type = key_type_of(value.type, compiled.dialect)
            matches = given_type is not None and given_type.family is key_type.family
            parameters.append(Parameter(name, key_type) if name and matches else None)
        elif isinstance(value, ClauseElement):
            parameters.append(None)
        else:
            parameters.append(Parameter(key, key_type))
    return InsertedKey(table.fullname, sharded.keyspace, sharded.key, tuple(parameters))
