"""Rows of a CSV file: what PostgreSQL's COPY would read of it, each for the shard of its key.

Values stay text, which the server reads as its columns' types. Only what decides where a row goes
is read here; a key that PostgreSQL would read and that is not written plainly is refused, since it
would be hashed as something else than is stored.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy_shards.errors import RowRefused
from sqlalchemy_shards.models.distribution import Sharded, distribution_of
from sqlalchemy_shards.models.generated_id import carries_bucket
from sqlalchemy_shards.models.key_types import KeyFamily, family_of

from .csv_format import records_of
from .names import given_keys
from .wrong_rows import row_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine import Dialect

    from .csv_format import CsvFormat
    from .names import ColumnNames


class CsvRows:
    """Rows of a file.

    :param file: has ``read``, which gives text or bytes.
    :param columns: names of the columns that are wanted; without a header, of all that there are.
    """

    is_text = True

    def __init__(
        self,
        file: Any,
        names: ColumnNames,
        columns: Sequence[str] | None,
        csv: CsvFormat,
        dialect: Dialect,
    ) -> None:
        self._csv = csv
        self._records = records_of(file, csv)
        self._taken = 0
        in_file = tuple(names.in_order if columns is None else columns)
        self.keys: Sequence[str] = ()
        self._places: Sequence[int] | None = None
        if csv.header:
            first = next(self._records, None)
            if first is None:
                return
            in_file = tuple(name or "" for name in csv.fields(first))
        self._width = len(in_file)
        if csv.header and columns is not None:
            missing = [name for name in columns if name not in in_file]
            if missing:
                raise RowRefused(
                    f"the header of the CSV does not name {', '.join(map(repr, missing))}",
                    "name the columns as the header does",
                )
            self._places = [in_file.index(name) for name in columns]
            in_file = tuple(columns)
        elif csv.header and names.keys.keys().isdisjoint(in_file):
            # It may be a row, whose values are not shown.
            raise RowRefused(
                f"the first line of the CSV names no column of table {names.table.fullname!r}",
                "if it is a row, say so with CsvFormat(header=False); if its values stand between "
                f"others than {csv.delimiter!r}, with CsvFormat(delimiter=...)",
            )
        self.keys = given_keys(in_file, names)
        self._readers = _readers(names, self.keys, dialect)

    def take(self, count: int) -> Sequence[Sequence[Any]]:
        """The next rows."""
        rows: list[Any] = []
        for record in islice(self._records, count):
            self._taken += 1
            rows.append(self._row(record))
        return rows

    def _row(self, record: str) -> list[Any]:
        row: list[Any] = self._csv.fields(record)
        if len(row) != self._width:
            raise self._wrong_width(record, len(row))
        if self._places is not None:
            row = [row[place] for place in self._places]
        for place, read, family in self._readers:
            value = row[place]
            if value is not None:
                try:
                    row[place] = read(value)
                except (ValueError, ArithmeticError):
                    raise self._refused(
                        f"has no plain {family.value} in column {self.keys[place]!r}, which tells "
                        "its shard",
                        f"write it as PostgreSQL does: {_EXAMPLES[family]}",
                    ) from None
        return row

    def _wrong_width(self, record: str, width: int) -> RowRefused:
        wanted = self._width
        if not record:
            return self._refused(f"is an empty line, and has no {wanted} values", "leave it away")
        return self._refused(
            f"has {width} value{'s' * (width != 1)} instead of {wanted}",
            f"correct it, or quote the values that hold {self._csv.delimiter!r}",
        )

    def _refused(self, problem: str, advice: str) -> RowRefused:
        return row_refused(self._taken, f"of the CSV {problem}", advice)


def _readers(
    names: ColumnNames, keys: Sequence[str], dialect: Dialect
) -> list[tuple[int, Callable[[str], Any], KeyFamily]]:
    """What reads the values that decide where a row goes, by their places."""
    table = names.table
    distribution = distribution_of(table)
    deciding = set(distribution.key) if isinstance(distribution, Sharded) else set()
    deciding.update(column.key for column in table.c if carries_bucket(column.type))
    found = []
    for place, key in enumerate(keys):
        if key in deciding:
            family = family_of(table.c[key].type, dialect)
            if family is not None:
                found.append((place, _READERS[family], family))
    return found


def _matched(pattern: str, value: str) -> re.Match[str]:
    found = re.fullmatch(pattern, value, re.ASCII)
    if found is None:
        raise ValueError
    return found


def _integer(value: str) -> int:
    return int(_matched(r"[+-]?\d{1,40}", value)[0])


def _numeric(value: str) -> Decimal:
    return Decimal(_matched(r"[+-]?\d+(\.\d+)?", value)[0])


def _bytes(value: str) -> bytes:
    return bytes.fromhex(_matched(r"\\x((?:[0-9a-fA-F]{2})*)", value)[1])


def _date(value: str) -> date:
    return date.fromisoformat(_matched(r"\d{4}-\d\d-\d\d", value)[0])


_TIME: Final = r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?"


def _timestamp(value: str) -> datetime:
    day, clock, fraction = _matched(_TIME, value).groups()
    return datetime.fromisoformat(f"{day} {clock}.{fraction or '':0<6}")


def _timestamptz(value: str) -> datetime:
    found = _matched(_TIME + r"(?:(Z)|([+-]\d\d)(?::?(\d\d))?)", value)
    day, clock, fraction, is_utc, hours, minutes = found.groups()
    offset = "+00:00" if is_utc else f"{hours}:{minutes or '00'}"
    return datetime.fromisoformat(f"{day} {clock}.{fraction or '':0<6}{offset}")


def _boolean(value: str) -> bool:
    return _matched("(t|true)|f|false", value)[1] is not None


def _uuid(value: str) -> UUID:
    return UUID(_matched(r"[0-9a-fA-F]{8}(-?)(?:[0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}", value)[0])


_READERS: Final[Mapping[KeyFamily, Callable[[str], Any]]] = MappingProxyType(
    {
        KeyFamily.INTEGER: _integer,
        KeyFamily.TEXT: str,
        KeyFamily.UUID: _uuid,
        KeyFamily.BYTES: _bytes,
        KeyFamily.DATE: _date,
        KeyFamily.TIMESTAMP: _timestamp,
        KeyFamily.TIMESTAMPTZ: _timestamptz,
        KeyFamily.NUMERIC: _numeric,
        KeyFamily.BOOLEAN: _boolean,
    }
)

_EXAMPLES: Final[Mapping[KeyFamily, str]] = MappingProxyType(
    {
        KeyFamily.INTEGER: "42",
        KeyFamily.TEXT: "abc",
        KeyFamily.UUID: "123e4567-e89b-12d3-a456-426614174000",
        KeyFamily.BYTES: r"\x00ff",
        KeyFamily.DATE: "2024-02-29",
        KeyFamily.TIMESTAMP: "2024-02-29 23:59:59",
        KeyFamily.TIMESTAMPTZ: "2024-02-29 23:59:59+00",
        KeyFamily.NUMERIC: "1.50",
        KeyFamily.BOOLEAN: "true",
    }
)
