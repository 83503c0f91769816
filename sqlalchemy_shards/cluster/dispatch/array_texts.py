"""Lists of values as PostgreSQL writes arrays, where each item means what it means by itself.

``id IN ($1::BIGINT, $2::BIGINT)`` and ``id = ANY ($1::BIGINT[])`` ask the same question, if the
array's items are read by the type that each value is cast to. The text of an array is the same
parameter whatever is in it: untyped, and of any length.

Invariant: only values of exactly the Python types named here have a text; a list with any other
value has none, as the driver or the server may take it for something else.
"""

from __future__ import annotations

from datetime import date, datetime
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

INTEGERS: Final = frozenset({"SMALLINT", "INTEGER", "BIGINT"})

CASTS: Final = INTEGERS | {
    "VARCHAR",
    "UUID",
    "DATE",
    "TIMESTAMP WITHOUT TIME ZONE",
    "TIMESTAMP WITH TIME ZONE",
}
"""The types that SQLAlchemy casts values to of which arrays can be written."""

_INT8_MAX: Final = 2**63 - 1


def array_text(cast: str, values: Sequence[Any]) -> str | None:
    """The text of an array of a type of `CASTS`, None: not every value has one.

    :param values: as the driver would be given them, one by one; None is NULL.
    """
    kind, *others = set(map(type, values)) - {NoneType} or {NoneType}
    write = None if others else _WRITERS.get((cast, kind))
    return None if write is None else write(values)


def uncast_text(cast: str, values: Sequence[Any]) -> str | None:
    """The text of an array of values that stand in rows, where SQLAlchemy casts nothing.

    The driver sends an integer as the smallest type that holds it, which compares as a bigint does.
    Text is taken for whatever it is compared with, so that there is no array for it.
    """
    kinds = set(map(type, values))
    kinds.discard(NoneType)
    if kinds == {int} and cast in INTEGERS:
        numbers = [value for value in values if value is not None]
        fits = max(numbers) <= _INT8_MAX and min(numbers) >= -_INT8_MAX - 1
        return _integers(values) if fits else None
    return _uuids(values) if kinds == {UUID} and cast == "UUID" else None


def _integers(values: Sequence[Any]) -> str:
    return "{" + str(list(values))[1:-1].replace("None", "NULL") + "}"


def _texts(values: Sequence[Any]) -> str:
    if None not in values:
        inside = '","'.join(values)
        if "\\" not in inside and inside.count('"') == 2 * (len(values) - 1):
            return '{"' + inside + '"}'
    return "{" + ",".join(map(_quoted, values)) + "}"


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _uuids(values: Sequence[Any]) -> str:
    return "{" + ",".join("NULL" if value is None else value.hex for value in values) + "}"


def _dates(values: Sequence[Any]) -> str:
    return "{" + ",".join("NULL" if value is None else value.isoformat() for value in values) + "}"


def _times(values: Sequence[Any]) -> str | None:
    if any(value is not None and value.tzinfo is not None for value in values):
        return None
    return _moments(values)


def _instants(values: Sequence[Any]) -> str | None:
    if any(value is not None and value.utcoffset() is None for value in values):
        return None
    return _moments(values)


def _moments(values: Sequence[Any]) -> str:
    return _texts([None if value is None else value.isoformat(" ") for value in values])


_WRITERS: Final[Mapping[tuple[str, type], Callable[[Sequence[Any]], str | None]]] = (
    MappingProxyType(
        {
            **{(cast, int): _integers for cast in INTEGERS},
            ("VARCHAR", str): _texts,
            ("UUID", UUID): _uuids,
            ("UUID", str): _texts,  # the server reads it, as it does by itself
            ("DATE", date): _dates,
            ("TIMESTAMP WITHOUT TIME ZONE", datetime): _times,
            ("TIMESTAMP WITH TIME ZONE", datetime): _instants,
        }
    )
)
