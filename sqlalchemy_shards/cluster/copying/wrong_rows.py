"""What to say of rows that are none: one sentence, with the row's number and none of its values."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from enum import Enum
from numbers import Number
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState

from sqlalchemy_shards.errors import RowRefused

if TYPE_CHECKING:
    from collections.abc import Collection

_TEXT_OR_BYTES: Final = (str, bytes, bytearray, memoryview)


class RowKind(Enum):
    """In which form a row has the values of columns."""

    MAPPING = "mapping"
    SEQUENCE = "sequence"
    INSTANCE = "instance"
    OBJECT = "object"
    NONE = "none"


def kind_of(row: Any) -> RowKind:
    """The form of a row; `RowKind.NONE`: it is a single value, or nothing."""
    if row is None or isinstance(row, (*_TEXT_OR_BYTES, Number)):
        return RowKind.NONE
    if isinstance(row, Mapping):
        return RowKind.MAPPING
    if isinstance(row, Sequence):
        return RowKind.SEQUENCE
    if isinstance(inspect(row, raiseerr=False), InstanceState):
        return RowKind.INSTANCE
    return RowKind.OBJECT


def is_sequence(type_: type) -> bool:
    """Whether rows of a type have their values in an order, and are no text."""
    return issubclass(type_, Sequence) and not issubclass(type_, _TEXT_OR_BYTES)


def names_others(type_: type, told: Sequence[str]) -> bool:
    """Whether it is one of named tuples, whose fields are others than the columns."""
    fields = getattr(type_, "_fields", None)
    return isinstance(fields, tuple) and fields != tuple(told)


def check_rows(rows: Any) -> None:
    """Refuse what is no iterable of rows.

    :raises RowRefused: it is one row, a single value, or text.
    """
    type_ = type(rows).__name__
    if isinstance(rows, Mapping) or isinstance(inspect(rows, raiseerr=False), InstanceState):
        raise RowRefused(f"a single {type_} was given in place of rows", "give it in a list: [row]")
    if isinstance(rows, _TEXT_OR_BYTES):
        raise RowRefused(
            f"a single {type_} was given in place of rows, which is not read as CSV",
            "give an open file: io.StringIO(text) or io.BytesIO(data)",
        )
    if isinstance(rows, Iterable):
        return
    if isinstance(rows, AsyncIterable):
        raise RowRefused(
            "a ShardedSession cannot await the rows of an asynchronous iterable",
            "use the copy_from() of an AsyncShardedSession",
        )
    raise RowRefused(
        f"rows were given as {type_}, which cannot be iterated over",
        "give a list or another iterable of rows, or a CSV file",
    )


def row_refused(number: int, problem: str, advice: str) -> RowRefused:
    """What to raise for a row.

    :param number: of the row, from 1.
    :param problem: follows on ``row 7``.
    """
    error = RowRefused(f"row {number} {problem}", advice)
    error.row = number
    return error


def no_row(number: int, row: Any) -> RowRefused:
    """What to raise for something that has values of no column."""
    return row_refused(
        number,
        f"is of type {type(row).__name__}, and has no values of the table's columns",
        "give each row as a mapping, as a tuple, or as an object with attributes of the columns' "
        "names",
    )


def wrong_row(
    number: int, row: Any, kind: RowKind, told: Sequence[str], attributes: Collection[str]
) -> RowRefused:
    """What to raise for a row that is not as the first one, or not as its columns say.

    :param kind: of the first row.
    :param told: the names of the columns.
    :param attributes: of the mapped class, that hold columns.
    """
    names, own_kind = ", ".join(map(repr, told)), kind_of(row)
    if own_kind is RowKind.NONE:
        return no_row(number, row)
    if own_kind is not kind:
        return row_refused(
            number,
            f"is of type {type(row).__name__}, which has its values in another form than the "
            "first row",
            "give rows of one form, in a copy_from() of their own if they differ",
        )
    if kind is RowKind.SEQUENCE:
        problem = f"has {_counted(len(row), 'value')} for {_counted(len(told), 'column')}: {names}"
        if len(row) == len(told):
            problem = f"names its fields in another way or order than the first row: {names}"
        return row_refused(
            number,
            problem,
            "give one value for each column, or name the columns that there are with columns=",
        )
    held = _held(row, kind, told, attributes)
    missing = [repr(name) for name in told if name not in held]
    if missing:
        problem = f"has no value for {', '.join(missing)}, and is to have {names}"
    else:
        more = [repr(name) for name in held if name not in told]
        problem = f"has {', '.join(more)} beside the columns of the first row: {names}"
    return row_refused(
        number,
        problem,
        "give the same columns in each row, in a copy_from() of their own if they differ",
    )


def _held(
    row: Any, kind: RowKind, told: Sequence[str], attributes: Collection[str]
) -> Collection[str]:
    """The names that a row has values for."""
    if kind is RowKind.MAPPING:
        return list(row)
    if kind is RowKind.INSTANCE:
        state: Any = inspect(row)
        return [name for name in state.dict if name in attributes or name in told]
    return [name for name in told if hasattr(row, name)]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
