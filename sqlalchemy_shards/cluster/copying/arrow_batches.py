"""Rows as Arrow record batches, whose types follow from those of the statement's columns.

What Arrow has no type for is text: UUIDs, enums by their names, JSON, and numbers without a
precision.
"""

from __future__ import annotations

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum as PythonEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ARRAY, JSON, DateTime, Integer, Numeric
from sqlalchemy import Enum as SqlEnum

from sqlalchemy_shards import _compat

from .arrow import pyarrow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine

    Shown = tuple[Any, Callable[[Any], Any] | None]

PRECISION_MAX: Final = 38
"""Digits that a decimal of Arrow's 128 bits has."""


class RecordBatches(NamedTuple):
    """Record batches, each made when it is asked for.

    :param schema: theirs, of pyarrow.
    """

    schema: Any
    batches: Iterator[Any]


def batches_of(
    statement: Any, dialect: Dialect, rows: Iterable[list[tuple[Any, ...]]]
) -> RecordBatches:
    """The rows of a SELECT as record batches.

    :raises ConfigurationError: pyarrow is not installed.
    """
    arrow = pyarrow()
    columns = _compat.result_columns(statement.compile(dialect=dialect))
    shown = [_shown(column.type, arrow) for column in columns]
    fields = [
        arrow.field(column.name, type_) for column, (type_, _) in zip(columns, shown, strict=True)
    ]
    schema = arrow.schema(fields)

    def batches() -> Iterator[Any]:
        for some in rows:
            values = [
                [None if value is None else show(value) for value in column] if show else column
                for column, (_, show) in zip(zip(*some, strict=True), shown, strict=True)
            ]
            arrays = [
                arrow.array(column, field.type)
                for column, field in zip(values, schema, strict=True)
            ]
            yield arrow.record_batch(arrays, schema=schema)

    return RecordBatches(schema, batches())


def reader_of(batches: RecordBatches) -> Any:
    """A ``pyarrow.RecordBatchReader`` of them."""
    return pyarrow().RecordBatchReader.from_batches(*batches)


def _shown(type_: TypeEngine[Any], arrow: Any) -> Shown:
    """The type of Arrow that a column gets, and what its values are made before."""
    if isinstance(type_, ARRAY):
        item, show = _shown(type_.item_type, arrow)
        if (type_.dimensions or 1) == 1 and show is None:
            return arrow.list_(item), None
        return arrow.string(), str
    if isinstance(type_, JSON):
        return arrow.string(), json.dumps
    if isinstance(type_, SqlEnum):
        return arrow.string(), _name
    if isinstance(type_, Numeric) and type_.asdecimal:
        precision, scale = type_.precision, type_.scale or 0
        if precision is None or precision > PRECISION_MAX:
            return arrow.string(), str
        return arrow.decimal128(precision, scale), Decimal
    if isinstance(type_, DateTime):
        return arrow.timestamp("us", tz="UTC" if type_.timezone else None), None
    return _by_python_type(type_, arrow)


def _by_python_type(type_: TypeEngine[Any], arrow: Any) -> Shown:
    try:
        python: Any = type_.python_type
    except NotImplementedError:  # what SQLAlchemy 2.0 does where a type says none
        return arrow.string(), str
    if python is int and not isinstance(type_, Integer):
        return arrow.string(), str
    plain = {
        bool: arrow.bool_(),
        int: arrow.int64(),
        float: arrow.float64(),
        str: arrow.string(),
        bytes: arrow.binary(),
        date: arrow.date32(),
        datetime: arrow.timestamp("us"),
        time: arrow.time64("us"),
        timedelta: arrow.duration("us"),
    }
    found = plain.get(python)
    return (arrow.string(), str) if found is None else (found, None)


def _name(value: Any) -> str:
    return value.name if isinstance(value, PythonEnum) else str(value)
