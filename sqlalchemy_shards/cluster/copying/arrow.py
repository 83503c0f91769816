"""Rows of Arrow data: tables, record batches and streams, of whichever library has them.

What tells them is Arrow's own protocol (``__arrow_c_stream__``), so that data of polars, pandas or
DuckDB are taken as well as those of pyarrow, which reads them all and is an optional dependency.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.errors import ConfigurationError, RowRefused

from .names import given_keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .names import ColumnNames


def is_arrow(rows: Any) -> bool:
    """Whether rows are Arrow data."""
    return hasattr(rows, "__arrow_c_stream__") or hasattr(rows, "__arrow_c_array__")


def pyarrow() -> Any:
    """The module.

    :raises ConfigurationError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise ConfigurationError(
            "Arrow data need pyarrow, which is not installed",
            "install sqlalchemy-shards[arrow]",
        ) from None
    return pyarrow


class ArrowRows:
    """Rows of Arrow data.

    :param columns: names of those that are wanted, None: all of them.
    """

    is_text = False

    def __init__(self, data: Any, names: ColumnNames, columns: Sequence[str] | None) -> None:
        self._arrow = pyarrow()
        if hasattr(data, "__arrow_c_stream__"):
            reader = self._arrow.RecordBatchReader.from_stream(data)
            self._schema, self._batches = reader.schema, iter(reader)
        else:
            batch = self._arrow.record_batch(data)
            self._schema, self._batches = batch.schema, iter([batch])
        told = tuple(self._schema.names if columns is None else columns)
        missing = [name for name in told if name not in self._schema.names]
        if missing:
            raise RowRefused(
                f"the Arrow data have no column {', '.join(map(repr, missing))}",
                "name columns that they have",
            )
        self.keys: Sequence[str] = given_keys(told, names)
        self._places = [self._schema.get_field_index(name) for name in told]
        self._rest: Any = None

    def take(self, count: int) -> Sequence[Sequence[Any]]:
        """The next rows."""
        while self._rest is None or self._rest.num_rows == 0:
            self._rest = next(self._batches, None)
            if self._rest is None:
                return []
        batch = self._rest.slice(0, count)
        self._rest = self._rest.slice(count)
        return list(zip(*self._values(batch), strict=True))

    def _values(self, batch: Any) -> Iterator[list[Any]]:
        types = self._arrow.types
        for place in self._places:
            column = batch.column(place)
            if types.is_timestamp(column.type) or types.is_time64(column.type):
                column = self._in_microseconds(column, place)
            yield column.to_pylist()

    def _in_microseconds(self, column: Any, place: int) -> Any:
        """Python's times have no more, nor do PostgreSQL's."""
        arrow, type_ = self._arrow, column.type
        if type_.unit != "ns":
            return column
        is_time = arrow.types.is_time64(type_)
        wanted = arrow.time64("us") if is_time else arrow.timestamp("us", tz=type_.tz)
        try:
            return column.cast(wanted)
        except arrow.ArrowInvalid:
            raise RowRefused(
                f"column {self._schema.names[place]!r} of the Arrow data has fractions of a "
                "microsecond, which PostgreSQL does not keep",
                "round them before",
            ) from None
