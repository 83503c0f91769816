"""Which column types can be shard keys, and which of their values can be hashed.

The truth is the PostgreSQL type that the column has, so it is read from what SQLAlchemy would write
into CREATE TABLE: variants, decorators and types of the application's own come out right there.

Invariants:

- Two values of one family are equal in PostgreSQL if and only if what `key_value` returns for them
  is equal in Python. A type for which that does not hold has no family: ``char`` ignores trailing
  blanks, ``citext`` ignores case, a collation may ignore anything, floats have NaN and two zeros,
  a native enum's labels can be renamed under the rows that were placed by them.
- A value that PostgreSQL would change while storing it (rounding, trailing blanks that do not fit)
  is not of the family: its row would lie where the value given hashes, not the value stored.
- Nothing is guessed. What is not known here has no family or is `NotOfFamily`; the caller widens to
  all shards or refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from psycopg import Binary
from sqlalchemy import bindparam
from sqlalchemy.exc import CompileError
from sqlalchemy.types import TypeEngine

from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Column
    from sqlalchemy.engine import Dialect


class KeyFamily(Enum):
    """PostgreSQL types whose values are compared, and hashed, alike."""

    INTEGER = "integer"
    TEXT = "text"
    UUID = "uuid"
    BYTES = "bytes"
    DATE = "date"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    NUMERIC = "numeric"
    BOOLEAN = "boolean"


class NotOfFamily(Exception):
    """A value is not of the column's family, so nothing can be told from it."""


@dataclass(frozen=True, slots=True)
class KeyType:
    """A column type that can be a shard key.

    :param family: its family.
    :param length: characters that a text column holds, None for any number.
    :param scale: digits behind the point that a numeric column keeps, None for all.
    """

    family: KeyFamily
    length: int | None = None
    scale: int | None = None

    @property
    def plain_type(self) -> type | None:
        """The Python type all of whose values are stored as they are; None: there is none."""
        is_limited = self.length is not None or self.scale is not None
        return None if is_limited else _PLAIN_TYPES.get(self.family)

    def stored_value(self, value: Any) -> Any:
        """What the column holds after ``value`` is written to it, as `key_value` returns it.

        :raises NotOfFamily: also where PostgreSQL would store another value than ``value``.
        """
        return key_value(self.family, value, length=self.length, scale=self.scale)


def key_type_of(type_: TypeEngine[Any], dialect: Dialect) -> KeyType | None:
    """The key type of ``type_``, or None where values of it cannot decide a shard."""
    try:
        rendered = type_.compile(dialect=dialect)
    except CompileError:
        return None
    parts = _TYPE_PATTERN.fullmatch(rendered)
    if parts is None:
        return None
    family = _FAMILIES.get(" ".join((parts["name"] + (parts["zone"] or "")).upper().split()))
    if family is None or _is_changed_on_the_way(type_, dialect):
        return None
    size = None if parts["size"] is None else int(parts["size"])
    scale = None if parts["scale"] is None else int(parts["scale"])
    return _limited(family, size=size, scale=scale, collation=parts["collation"])


def key_type_of_column(column: Column[Any], dialect: Dialect) -> KeyType:
    """The key type of a shard-key column.

    :raises ConfigurationError: its values cannot decide a shard.
    """
    key_type = key_type_of(column.type, dialect)
    if key_type is None:
        raise ConfigurationError(
            f"shard-key column {column} has a type that cannot be a key",
            "give it an integer, text, UUID, bytes, date, timestamp, numeric or boolean type",
        )
    return key_type


def family_of(type_: TypeEngine[Any], dialect: Dialect) -> KeyFamily | None:
    """The family of ``type_``, or None where values of it cannot decide a shard."""
    key_type = key_type_of(type_, dialect)
    return None if key_type is None else key_type.family


def key_value(
    family: KeyFamily, value: Any, *, length: int | None = None, scale: int | None = None
) -> Any:
    """The Python value to hash for ``value``.

    :param value: what the driver is given: the result of the type's bind processor. Not None.
    :param length: refuse text of more characters; needed for values that are to be stored.
    :param scale: refuse numbers with more digits behind the point; likewise.
    :raises NotOfFamily: ``value`` is not exactly of the family's Python type. Subclasses are not,
        since a driver may write them in a way of their own.
    """
    result = _CONVERSIONS[family](value)
    if length is not None and len(result) > length:
        raise NotOfFamily(f"text is longer than the {length} characters that the column holds")
    if scale is not None and not _fits_scale(result, scale):
        raise NotOfFamily(f"number has more than the {scale} digits that the column keeps")
    return result


_PLAIN_TYPES: Final[Mapping[KeyFamily, type]] = MappingProxyType(
    {
        KeyFamily.INTEGER: int,
        KeyFamily.TEXT: str,
        KeyFamily.UUID: UUID,
        KeyFamily.DATE: date,
        KeyFamily.BOOLEAN: bool,
    }
)

_TYPE_PATTERN: Final = re.compile(
    r"(?P<name>[a-z][a-z0-9]*(?: [a-z]+)*?)"
    r"(?: ?\((?P<size>\d+)(?:, ?(?P<scale>-?\d+))?\))?"
    r"(?P<zone> with(?:out)? time zone)?"
    r'(?: COLLATE "?(?P<collation>[^"]+)"?)?',
    re.IGNORECASE,
)

_FAMILIES: Final[Mapping[str, KeyFamily]] = MappingProxyType(
    {
        "SMALLINT": KeyFamily.INTEGER,
        "INTEGER": KeyFamily.INTEGER,
        "BIGINT": KeyFamily.INTEGER,
        "INT": KeyFamily.INTEGER,
        "INT2": KeyFamily.INTEGER,
        "INT4": KeyFamily.INTEGER,
        "INT8": KeyFamily.INTEGER,
        "TEXT": KeyFamily.TEXT,
        "VARCHAR": KeyFamily.TEXT,
        "CHARACTER VARYING": KeyFamily.TEXT,
        "UUID": KeyFamily.UUID,
        "BYTEA": KeyFamily.BYTES,
        "DATE": KeyFamily.DATE,
        "TIMESTAMP": KeyFamily.TIMESTAMP,
        "TIMESTAMP WITHOUT TIME ZONE": KeyFamily.TIMESTAMP,
        "TIMESTAMPTZ": KeyFamily.TIMESTAMPTZ,
        "TIMESTAMP WITH TIME ZONE": KeyFamily.TIMESTAMPTZ,
        "NUMERIC": KeyFamily.NUMERIC,
        "DECIMAL": KeyFamily.NUMERIC,
        "BOOLEAN": KeyFamily.BOOLEAN,
        "BOOL": KeyFamily.BOOLEAN,
    }
)

# Every other name may be a collation that somebody created as non-deterministic.
_EXACT_COLLATIONS: Final = frozenset(
    {"default", "C", "POSIX", "ucs_basic", "unicode", "pg_c_utf8", "pg_unicode_fast"}
)

_TIMESTAMPS: Final = frozenset({KeyFamily.TIMESTAMP, KeyFamily.TIMESTAMPTZ})

_TIMESTAMP_DIGITS: Final = 6


def _is_changed_on_the_way(type_: TypeEngine[Any], dialect: Dialect) -> bool:
    """Whether the statement holds an expression, or a float, in place of the value itself."""
    implementation = type_.dialect_impl(dialect)
    is_changed = (
        # Else it is nobody's own, and says that nothing is changed.
        type(implementation).bind_expression is not TypeEngine.bind_expression
        and implementation.bind_expression(bindparam("key", type_=type_)) is not None
    )
    return is_changed or getattr(implementation, "asdecimal", True) is False


def _limited(
    family: KeyFamily, *, size: int | None, scale: int | None, collation: str | None
) -> KeyType | None:
    if family is KeyFamily.TEXT:
        exact = collation is None or collation in _EXACT_COLLATIONS
        return KeyType(family, length=size) if exact else None
    if family in _TIMESTAMPS:
        exact = size is None or size >= _TIMESTAMP_DIGITS
        return KeyType(family) if exact else None
    if family is KeyFamily.NUMERIC and size is not None:
        return KeyType(family, scale=scale or 0)
    return KeyType(family)


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    raise _not_of(KeyFamily.INTEGER, value)


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise _not_of(KeyFamily.TEXT, value)


_UUID_PATTERN: Final = re.compile(r"[0-9a-fA-F]{8}(-?)(?:[0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}")


def _uuid(value: Any) -> UUID:
    if type(value) is UUID:
        return value
    if isinstance(value, UUID):  # asyncpg has a class of its own, which it writes by its number
        return UUID(int=value.int)
    if type(value) is str and _UUID_PATTERN.fullmatch(value):  # Uuid(as_uuid=False)
        return UUID(value)
    raise _not_of(KeyFamily.UUID, value)


def _bytes(value: Any) -> bytes:
    content = value.obj if type(value) is Binary else value
    if type(content) is bytes:
        return content
    if isinstance(content, bytearray | memoryview):
        return bytes(content)
    raise _not_of(KeyFamily.BYTES, value)


def _date(value: Any) -> date:
    if type(value) is date:
        return value
    raise _not_of(KeyFamily.DATE, value)


def _timestamp(value: Any) -> datetime:
    if type(value) is datetime and value.tzinfo is None:
        return value
    raise _not_of(KeyFamily.TIMESTAMP, value)


def _timestamptz(value: Any) -> datetime:
    if type(value) is datetime and value.utcoffset() is not None:
        try:
            # Python calls one instant in two zones unequal where a clock is put back.
            return value.astimezone(timezone.utc)
        except OverflowError:
            raise NotOfFamily("the time has no UTC date within Python's years") from None
    raise _not_of(KeyFamily.TIMESTAMPTZ, value)


def _numeric(value: Any) -> Decimal:
    if type(value) is int:
        return Decimal(value)
    if type(value) is Decimal and value.is_finite():
        return value
    raise _not_of(KeyFamily.NUMERIC, value)


def _boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise _not_of(KeyFamily.BOOLEAN, value)


_CONVERSIONS: Final[Mapping[KeyFamily, Callable[[Any], Any]]] = MappingProxyType(
    {
        KeyFamily.INTEGER: _integer,
        KeyFamily.TEXT: _text,
        KeyFamily.UUID: _uuid,
        KeyFamily.BYTES: _bytes,
        KeyFamily.DATE: _date,
        KeyFamily.TIMESTAMP: _timestamp,
        KeyFamily.TIMESTAMPTZ: _timestamptz,
        KeyFamily.NUMERIC: _numeric,
        KeyFamily.BOOLEAN: _boolean,
    }
)


def _fits_scale(value: Decimal, scale: int) -> bool:
    """Whether no digit is lost; without `quantize`, which fails beyond the context's precision."""
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):  # a NaN or infinity, which has no digits to keep
        return False
    excess = -scale - exponent
    return excess <= 0 or not any(digits[-excess:])


def _not_of(family: KeyFamily, value: Any) -> NotOfFamily:
    what = type(value).__name__
    if isinstance(value, datetime):
        what += " without a time zone" if value.tzinfo is None else " with a time zone"
    return NotOfFamily(f"{what} is not exactly a value of {family.value}")
