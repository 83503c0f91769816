"""A statement with its values written into it, for commands that take no parameters, as COPY.

Each value is written as a quoted constant of the type that the driver would have sent it with, so
that the statement means what it means with parameters: no number becomes a constant of SQL, whose
type and sign PostgreSQL reads otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import Buffer, Dumper, PyFormat, Transformer
from psycopg.pq import Escaping

if TYPE_CHECKING:
    from collections.abc import Mapping


def with_values(
    connection: psycopg.Connection[Any], sql: str, parameters: Mapping[str, Any]
) -> bytes:
    """Write values into a statement, in the encoding of a connection.

    :param sql: as psycopg takes it: ``%(name)s`` for a parameter, ``%%`` for a percent sign.
    :raises psycopg.ProgrammingError: a value has no form as text, or none that has a name.
    """
    cursor = psycopg.ClientCursor(connection)
    cursor.adapters.register_dumper(_Constant, _ConstantDumper)
    names = list(parameters)
    transformer = Transformer.from_context(connection)
    cells = transformer.dump_sequence(
        [parameters[name] for name in names], [PyFormat.TEXT] * len(names)
    )
    escaping = Escaping(connection.pgconn)
    constants = {
        name: _Constant(_constant(connection, escaping, cell, oid))
        for name, cell, oid in zip(names, cells, transformer.types or (), strict=True)
    }
    return cursor.mogrify(sql, constants).encode(connection.info.encoding)


def _constant(
    connection: psycopg.Connection[Any], escaping: Any, cell: Buffer | None, oid: int
) -> bytes:
    quoted = b"NULL" if cell is None else bytes(escaping.escape_literal(cell)).strip(b" ")
    if oid == 0:
        return quoted
    info = connection.adapters.types.get(oid)
    if info is None:
        raise psycopg.ProgrammingError(f"the type of a parameter has no known name: {oid}")
    array = "[]" if oid == info.array_oid else ""
    return b"(%s::%s%s)" % (quoted, info.regtype.encode(), array.encode())


class _Constant:
    """A value that is written already."""

    __slots__ = ("sql",)

    def __init__(self, sql: bytes) -> None:
        self.sql = sql


class _ConstantDumper(Dumper):
    def dump(self, obj: _Constant) -> Buffer:
        return obj.sql

    def quote(self, obj: _Constant) -> Buffer:
        return obj.sql
