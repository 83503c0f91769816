"""An INSERT or DELETE of one row, run for many -> one of the rows that arrays hold.

SQL before:  INSERT INTO users (id, name) VALUES (%(id)s::BIGINT, %(name)s::VARCHAR)
SQL after:   INSERT INTO users (id, name) SELECT c0, c1
             FROM unnest(%(id)s::BIGINT[], %(name)s::VARCHAR[]) AS shards_rows (c0, c1)

SQL before:  DELETE FROM users WHERE users.id = %(id)s::BIGINT
SQL after:   DELETE FROM users USING unnest(%(id)s::BIGINT[]) AS shards_rows (c0)
             WHERE users.id = shards_rows.c0

A row costs the driver and the server a third of what it does as a parameter set of its own. What is
not certainly the same is left as it is: values that are more than a parameter; a column whose
values have several types, or one that is written otherwise in an array; DO UPDATE, which may touch
a row again in the next parameter set, and not in the same statement.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROWS_PER_STATEMENT: Final = 5_000
"""Bounds what one statement holds; more rows than these make it no cheaper."""

ROWS_MIN: Final = 8
"""Fewer are sent as they are."""

_VALUES: Final = " VALUES ("
_PARAMETER: Final = r"%\((?P<name>[^()%]+)\)s(?:::(?P<type>[A-Z][A-Z0-9_ ]*(?:\([0-9, ]+\))?))?"
_VALUE: Final = re.compile(rf"{_PARAMETER}(?P<end>, |\))")
_NAME: Final = r'(?:"[\w ]+"|\w+)'
_DELETE: Final = re.compile(rf"DELETE FROM (?:{_NAME}\.)?{_NAME}")
_CONDITION: Final = re.compile(rf"(?P<column>(?:{_NAME}\.){{1,2}}{_NAME}) = {_PARAMETER}")
_OWN_TYPE: Final = frozenset({bool, bytes, Decimal, float, int, timedelta})
"""Types of Python that the driver gives the same type of PostgreSQL in arrays and out of them."""
_WITH_CAST: Final = _OWN_TYPE | {date, datetime, str, time, UUID}


class _Column(NamedTuple):
    name: str
    has_cast: bool


class RowArrays:
    """How a statement takes the rows of arrays.

    :param columns: names and types of the parameters.
    :param updates: it has DO UPDATE.
    """

    def __init__(
        self, sql: str, columns: Sequence[tuple[str, str | None]], *, updates: bool = False
    ) -> None:
        self.sql = sql
        self.updates = updates
        self._columns = [_Column(name, type_ is not None) for name, type_ in columns]

    def parameters(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]] | None:
        """The rows as arrays; None: the server might take them for something else."""
        found = {}
        for column in self._columns:
            values = found[column.name] = [row[column.name] for row in rows]
            if not _is_alike(values, has_cast=column.has_cast):
                return None
        return found

    def batches(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, list[Any]]] | None:
        """The same, by some thousands of rows."""
        found = []
        for start in range(0, len(rows), ROWS_PER_STATEMENT):
            parameters = self.parameters(rows[start : start + ROWS_PER_STATEMENT])
            if parameters is None:
                return None
            found.append(parameters)
        return found


def row_arrays(sql: str) -> RowArrays | None:
    """How an INSERT takes the rows of arrays; None: it is not one of a row of parameters.

    :param sql: as SQLAlchemy has compiled it for the driver.
    """
    head, found, rest = sql.partition(_VALUES)
    if not found or _VALUES in rest or not head.startswith("INSERT INTO "):
        return None
    columns, position, end = [], 0, ", "
    while end == ", ":
        value = _VALUE.match(rest, position)
        if value is None:
            return None
        columns.append((value["name"], value["type"]))
        position, end = value.end(), value["end"]
    tail = rest[position:]
    if "%(" in tail or tail.startswith(",") or len({name for name, _ in columns}) < len(columns):
        return None
    rows, places = _rows(columns)
    updates = " DO UPDATE " in tail
    return RowArrays(f"{head} SELECT {places} FROM {rows}{tail}", columns, updates=updates)


def deleted_arrays(sql: str) -> RowArrays | None:
    """How a DELETE takes the rows of arrays; None: it does not compare columns with parameters.

    A row that several of them name is deleted and counted once, as it is by one after the other.
    """
    head, found, rest = sql.partition(" WHERE ")
    conditions = [_CONDITION.fullmatch(each) for each in rest.split(" AND ")]
    if not found or not _DELETE.fullmatch(head) or None in conditions:
        return None
    compared = [(each["column"], each["name"], each["type"]) for each in conditions if each]
    columns = [(name, type_) for _, name, type_ in compared]
    if len({name for name, _ in columns}) < len(columns):
        return None
    rows, _ = _rows(columns)
    where = (f"{column} = shards_rows.c{place}" for place, (column, *_) in enumerate(compared))
    return RowArrays(f"{head} USING {rows} WHERE {' AND '.join(where)}", columns)


def _rows(columns: Sequence[tuple[str, str | None]]) -> tuple[str, str]:
    """The rows of arrays, as SQL names them, and their columns."""
    places = ", ".join(f"c{place}" for place in range(len(columns)))
    arrays = ", ".join(
        f"%({name})s" if type_ is None else f"%({name})s::{type_}[]" for name, type_ in columns
    )
    return f"unnest({arrays}) AS shards_rows ({places})", places


def _is_alike(values: Sequence[Any], *, has_cast: bool) -> bool:
    """Whether an array of values is written as they are."""
    types = set(map(type, values))
    types.discard(type(None))
    if not types:
        return has_cast
    if len(types) > 1:
        return False
    (type_,) = types
    if type_ is datetime or type_ is time:
        # A value with a time zone would lose it in an array of those without.
        zones = {value.tzinfo is None for value in values if value is not None}
        return has_cast and len(zones) == 1
    return type_ in (_WITH_CAST if has_cast else _OWN_TYPE)
