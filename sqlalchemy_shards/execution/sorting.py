"""Sort keys that order Python values exactly as PostgreSQL orders theirs.

Decided by the PostgreSQL types of the columns that the shards return, never by the model: a type
is listed here only where the driver's values compare as the server's do.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import total_ordering
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import psycopg

from sqlalchemy_shards.errors import UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy_shards.plan import SortKey

INTEGERS: Final = {20: "bigint", 21: "smallint", 23: "integer", 26: "oid"}
EXACTLY_ORDERED: Final = {
    **INTEGERS,
    16: "boolean",
    1082: "date",
    1114: "timestamp",
    2950: "uuid",
}
TIMESTAMPTZ: Final = 1184
NUMERIC: Final = 1700
TEXTS: Final = {19: "name", 25: "text", 1043: "character varying"}


class NotMergeable(UnsupportedStatement):
    """Python does not compare or add up values of a PostgreSQL type as PostgreSQL does."""


_ZERO: Final = Decimal(0)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=timezone.utc)


def row_key(
    keys: Sequence[SortKey], type_oids: Sequence[int]
) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A function from a shard's row to a value that sorts as ORDER BY does.

    :param type_oids: PostgreSQL types of the columns of the shards' rows.
    :raises NotMergeable: a key's values do not order in Python as in PostgreSQL.
    """
    for key in keys:
        _check_type(key, type_oids[key.column])
    parts = [_part(key, type_oids[key.column]) for key in keys]
    if len(parts) == 1:
        (only,) = parts
        return lambda row: (only(row),)
    return lambda row: tuple(part(row) for part in parts)


def moment(value: datetime) -> timedelta:
    """A timestamp with time zone as PostgreSQL compares it: by the instant.

    Python compares two values of one time zone by the clock on its wall, which in autumn shows an
    hour twice.
    """
    return value - _EPOCH


def type_name(type_oid: int) -> str:
    """What PostgreSQL calls a type, for messages; types of the application's own by their OID."""
    known = psycopg.adapters.types.get(type_oid)
    return f"with OID {type_oid}" if known is None else known.name


def _check_type(key: SortKey, type_oid: int) -> None:
    if type_oid in EXACTLY_ORDERED or type_oid in (TIMESTAMPTZ, NUMERIC):
        return
    if type_oid in TEXTS and key.is_byte_order:
        return
    if type_oid in TEXTS:
        raise NotMergeable(
            "ORDER BY of text over several shards needs a collation that orders by code point, "
            "and this one's order is known to PostgreSQL alone",
            'order by collate(column, "C"), or give the shard key so that one shard answers',
        )
    raise NotMergeable(
        f"ORDER BY of the PostgreSQL type {type_name(type_oid)} over several shards is not "
        "supported yet",
        "order by an integer, date, timestamp, UUID or C-collated text, or sort in the application",
    )


def _part(key: SortKey, type_oid: int) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    column = key.column
    null = (0,) if key.nulls_first else (2,)
    value_of: Callable[[Sequence[Any]], Any] = itemgetter(column)
    if type_oid == TIMESTAMPTZ:
        value_of = _moment_in(column)
    elif type_oid == NUMERIC:
        value_of = _number_in(column)
    if key.descending:

        def descending(row: Sequence[Any]) -> tuple[Any, ...]:
            value = value_of(row)
            return null if value is None else (1, Descending(value))

        return descending

    def ascending(row: Sequence[Any]) -> tuple[Any, ...]:
        value = value_of(row)
        return null if value is None else (1, value)

    return ascending


def _moment_in(column: int) -> Callable[[Sequence[Any]], timedelta | None]:
    def value_of(row: Sequence[Any]) -> timedelta | None:
        value = row[column]
        return None if value is None else moment(value)

    return value_of


def _number_in(column: int) -> Callable[[Sequence[Any]], tuple[bool, Decimal] | None]:
    """Numbers; for PostgreSQL, NaN is one, and greater than all others."""

    def value_of(row: Sequence[Any]) -> tuple[bool, Decimal] | None:
        value = row[column]
        if value is None:
            return None
        if type(value) is not Decimal:
            raise NotMergeable(
                "the shards' connections give numbers in another form than Decimal",
                "leave the driver's own loader of numeric in place",
            )
        return (True, _ZERO) if value.is_nan() else (False, value)

    return value_of


@total_ordering
class Descending:
    """A value that sorts the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Descending) and bool(self.value == other.value)

    def __lt__(self, other: Descending) -> bool:
        return bool(other.value < self.value)

    __hash__ = None  # type: ignore[assignment]
