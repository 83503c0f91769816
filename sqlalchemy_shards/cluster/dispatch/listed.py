"""The lists of values of a statement that are sent as arrays, one parameter each.

SQL before:  id IN (__[POSTCOMPILE_id_1])       -- one parameter for each value, at each execution
SQL after:   id = ANY (%(id_1)s::BIGINT[])      -- the same text, whatever the number of values

A list of rows becomes ``(a, b) IN (SELECT * FROM unnest(%(p)s::BIGINT[], %(p_of_2)s::UUID[]))``.

Invariants: a list has a form of its own only where every place of it in the SQL is one behind IN or
NOT IN, of an expression of the values' own kind; and takes it only where `array_texts` knows a text
of its values. Otherwise it is written as SQLAlchemy writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BindParameter, Tuple
from sqlalchemy.sql.operators import in_op, not_in_op

from sqlalchemy_shards import _compat

from .array_texts import CASTS, INTEGERS, array_text, uncast_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import BinaryExpression
    from sqlalchemy.sql.compiler import SQLCompiler


class NotedList(NamedTuple):
    """A list that may be sent as arrays.

    :param types: of the values, or of the items of its rows.
    :param casts: the types that these are in the database.
    """

    types: tuple[Any, ...]
    casts: tuple[str, ...]
    is_rows: bool


def is_list_membership(binary: BinaryExpression[Any]) -> bool:
    """Whether an expression is IN or NOT IN, of a list of values."""
    bind = binary.right
    is_membership = binary.operator in (in_op, not_in_op)
    return is_membership and isinstance(bind, BindParameter) and _compat.is_expanding(bind)


def noted_list(binary: BinaryExpression[Any], compiler: SQLCompiler) -> NotedList | None:
    """The list of an IN or NOT IN, None: its values cannot be sent as arrays."""
    bind: Any = binary.right
    left = binary.left
    if bind.literal_execute:
        return None
    is_rows = isinstance(left, Tuple)
    columns = tuple(left.clauses) if isinstance(left, Tuple) else (left,)
    types = tuple(getattr(bind.type, "types", ())) if is_rows else (bind.type,)
    if len(types) != len(columns):
        return None
    casts = []
    for column, type_ in zip(columns, types, strict=True):
        cast = _compat.cast_of(type_, compiler)
        if cast not in CASTS or not _are_alike(cast, _compat.cast_of(column.type, compiler)):
            return None
        casts.append(cast)
    return NotedList(types, tuple(casts), is_rows)


def form_of(noted: NotedList, name: str, compiler: SQLCompiler) -> _compat.ListForm | None:
    """How a list is written as arrays, None: some of its places in the SQL are others than these.

    :param name: of its parameter.
    """
    places = compiler.string.count(f"IN {_compat.list_marker(compiler, name)}")
    if places == 0 or places != _compat.times_expanded(compiler, name):
        return None
    escaped_names: Mapping[str, str] = compiler.escaped_bind_names or {}
    written = escaped_names.get(name, name)
    more = tuple(f"{written}_of_{number}" for number in range(2, len(noted.casts) + 1))
    if any(other in compiler.binds for other in more):
        return None
    arrays = ", ".join(
        f"%({each})s::{cast}[]" for each, cast in zip((written, *more), _sent(noted), strict=True)
    )
    names = (name, *more)
    if noted.is_rows:
        rows = f"IN (SELECT * FROM unnest({arrays}))"
        return _compat.ListForm(names, rows, f"NOT {rows}")
    return _compat.ListForm(names, f"= ANY ({arrays})", f"<> ALL ({arrays})")


def texts_of(noted: NotedList, listed: Sequence[Any], dialect: Any) -> tuple[str, ...] | None:
    """The arrays of a list's values, None: these values cannot be sent so.

    :param listed: not empty.
    """
    columns = _columns(noted, listed)
    if columns is None:
        return None
    texts = []
    for cast, type_, column in zip(noted.casts, noted.types, columns, strict=True):
        process = type_.dialect_impl(dialect).bind_processor(dialect)
        values = column if process is None else [process(value) for value in column]
        text = uncast_text(cast, values) if noted.is_rows else array_text(cast, values)
        if text is None:
            return None
        texts.append(text)
    return tuple(texts)


def _sent(noted: NotedList) -> tuple[str, ...]:
    """The types of the arrays' items."""
    if not noted.is_rows:
        return noted.casts
    return tuple("BIGINT" if cast in INTEGERS else cast for cast in noted.casts)


def _columns(noted: NotedList, listed: Sequence[Any]) -> Sequence[Sequence[Any]] | None:
    if not noted.is_rows:
        return (listed,)
    width = len(noted.casts)
    if any(not isinstance(row, (tuple, list)) or len(row) != width for row in listed):
        return None
    return list(zip(*listed, strict=True))


def _are_alike(cast: str | None, other: str | None) -> bool:
    """Whether values of two types compare alike, each by itself or within an array."""
    return cast == other or (cast in INTEGERS and other in INTEGERS)
