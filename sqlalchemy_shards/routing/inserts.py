"""Where the shard key of an inserted row comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.elements import BindParameter, ClauseElement
from sqlalchemy.types import NullType

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.distribution import Sharded, identity_of
from sqlalchemy_shards.models.key_types import key_type_of

from .beside import anchor_named
from .conditions import Parameter
from .sources import InsertedKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Table
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.dml import Insert

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
    types = tuple(zip(sharded.key, key_types, strict=True))
    is_one_row = insert.select is None and not _compat.multi_values(insert)
    given = (_compat.dml_values(compiled) or {}) if is_one_row else {}
    anchor = anchor_named(table, sharded)
    identity = None
    if anchor is not None and is_one_row:
        identity = _identity(compiled, table, sharded, given)
    if sharded.beside is not None:
        types = ()
    return InsertedKey(
        table.fullname,
        sharded.keyspace,
        sharded.key,
        tuple(
            parameter_of_row(given.get(key), key, key_type, compiled) if is_one_row else None
            for key, key_type in types
        ),
        tuple(
            tuple(
                parameter_of_row(
                    row.get(key),
                    _compat.name_in_row(key, index, is_default=key not in row),
                    key_type,
                    compiled,
                )
                for key, key_type in types
            )
            for index, row in enumerate(_compat.values_rows(compiled))
        ),
        lies_beside=sharded.beside is not None,
        anchor=anchor,
        identity=identity,
    )


def parameter_of_row(
    value: Any, name: str, key_type: KeyType, compiled: SQLCompiler
) -> Parameter | None:
    """The parameter of one value of a row, None: only SQL knows it.

    :param name: what it is called if the value is a plain one, or comes with the execution.
    """
    if isinstance(value, BindParameter):
        return parameter_of(value, compiled, key_type)
    return None if isinstance(value, ClauseElement) else Parameter(name, key_type)


def _identity(
    compiled: SQLCompiler, table: Table, sharded: Sharded, given: Mapping[str, Any]
) -> tuple[str, ...] | None:
    """The names of the parameters that name the anchor's row; None: not all are parameters."""
    names = []
    for key in identity_of(table, sharded):
        value = given.get(key, key)
        if isinstance(value, BindParameter):
            bound = [n for each, n in compiled.bind_names.items() if each.key == value.key]
            value = bound[0] if bound else None
        if not isinstance(value, str):
            return None
        names.append(value)
    return tuple(names)


def parameter_of(
    value: BindParameter[Any], compiled: SQLCompiler, key_type: KeyType
) -> Parameter | None:
    """The parameter that was compiled for a value; None: it is not of the column's kind.

    A value without a type of its own is compiled as a copy that has the column's, and keeps its
    key.
    """
    for bound, name in compiled.bind_names.items():
        if bound is value or bound.key == value.key:
            if isinstance(bound.type, NullType):
                return Parameter(name, key_type)  # sent as it is, and stored as the column's type
            given_type = key_type_of(bound.type, compiled.dialect)
            matches = given_type is not None and given_type.family is key_type.family
            return Parameter(name, key_type) if matches else None
    return None
