"""The canonical byte form of a shard key, of which the hash is taken.

Invariants, which no release may break, since rows lie where the hash once put them
(`docs/hashing.md` has the format, golden vectors guard it):

- values that PostgreSQL holds equal under one column type have equal bytes;
- the form of a single value is what PostgreSQL's own binary send function writes, so that SQL can
  compute it; the parts of a composite key carry a tag and a length, so that no two keys share one;
- only the exact types listed here have a form: a subclass may mean something else by equality, or
  be bound by the driver as something else (an Enum is bound by name).
"""

from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal
from struct import Struct
from struct import error as StructError  # noqa: N812 - the module's own name says too little
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from sqlalchemy_shards.errors import MissingShardKey, RoutingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta

Kind = Literal["number", "text", "uuid", "bytes", "date", "timestamp", "timestamptz", "boolean"]
"""What a value is for comparison: values of one kind are equal or ordered, others are neither."""

NUMBER_DIGITS_MAX: Final = 1000
"""Digits that a number may have before the point, and after it: PostgreSQL's largest precision."""

_LONG_NUMBER: Final = b"numeric:"  # eight bytes, so that no long number has the length of a short
_EPOCH: Final = datetime(2000, 1, 1)
_EPOCH_UTC: Final = datetime(2000, 1, 1, tzinfo=timezone.utc)
_EPOCH_DAY: Final = date(2000, 1, 1).toordinal()
_SHORT_DECIMAL: Final = 100  # characters; Python refuses to read an int of 4,300 digits
_INT8_MAX: Final = 2**63 - 1
_pack_int8: Final = Struct(">q").pack
_pack_int4: Final = Struct(">i").pack
_pack_head: Final = Struct(">ci").pack
_pack_int8_part: Final = Struct(">ciq").pack


def canonical_bytes(value: Any) -> bytes:
    """Return the canonical form of a shard-key value, or of a tuple of them.

    A tuple of one part has the form of that part.

    :raises MissingShardKey: for None, also as a part.
    :raises RoutingError: for a type or a value that has no form; the value is not shown.
    """
    if type(value) is tuple:
        return key_bytes(value)
    return _WRITERS.get(type(value), _write_other)(value)


def key_bytes(key: tuple[Any, ...]) -> bytes:
    """Return the canonical form of a key given as the tuple of its parts; see `canonical_bytes`."""
    if len(key) == 1:
        value = key[0]
        if type(value) is int:  # written out: this is the path of nearly every statement
            try:
                return _pack_int8(value)
            except StructError:
                return _write_long_int(value)
        return _WRITERS.get(type(value), _write_other)(value)
    if not key:
        raise MissingShardKey("the shard key has no parts", "give a tuple of at least one value")
    return identity_bytes(key)


def forms_of_values(values: Sequence[Any]) -> Iterable[bytes]:
    """Return the canonical forms of many values of one type, in their order; raises as they do.

    Quicker than one by one: what is to be done is looked up once.
    """
    kind = type(values[0])
    if kind is int:
        return map(_write_int if _has_long(values) else _pack_int8, values)
    return map(_WRITERS.get(kind, _write_other), values)


def form_of_type(kind: type) -> Callable[[Any], bytes]:
    """Return what writes the canonical forms of values of exactly this type; it raises as they do.

    That of ``int`` raises `struct.error` where a number has more than eight bytes.
    """
    return _pack_int8 if kind is int else _WRITERS.get(kind, _write_other)


def _has_long(numbers: Sequence[int]) -> bool:
    return max(numbers) > _INT8_MAX or min(numbers) < -_INT8_MAX - 1


def identity_bytes(key: tuple[Any, ...]) -> bytes:
    """Return bytes that two keys share only if they are equal and of the same kinds.

    For a key of several parts they are its canonical form.

    :raises MissingShardKey: for None as a part.
    :raises RoutingError: for a type or a value that has no form; the value is not shown.
    """
    form = b""
    for number, part in enumerate(key, 1):
        if type(part) is int:
            try:
                form += _pack_int8_part(b"n", 8, part)
                continue
            except StructError:
                pass
        if part is None:
            raise MissingShardKey(f"part {number} of the shard key is None", _GIVE_VALUE)
        data = _WRITERS.get(type(part), _write_other)(part)
        form += _pack_head(_TAGS[kind_of(part)], len(data)) + data
    return form


def kind_of(value: Any) -> Kind:
    """Return what kind of value this is.

    :raises MissingShardKey: for None.
    :raises RoutingError: for a type that cannot be a shard key.
    """
    kind = _KINDS.get(type(value))
    if kind is None:
        if isinstance(value, UUID):
            return "uuid"
        raise _refusal(value)
    if kind == "timestamp" and value.tzinfo is not None:
        return "timestamptz"
    return kind


def comparable(value: Any) -> Any:
    """Return the value in a shape whose ``==``, ``<`` and hash are PostgreSQL's within one kind.

    :raises RoutingError: for a number that is NaN or infinite.
    """
    if type(value) is datetime and value.tzinfo is not None:
        # Python compares two times of one zone by the clock on the wall, ignoring ``fold``.
        return _instant(value)
    if type(value) is Decimal and not value.is_finite():
        raise _not_finite()
    return value


def _write_int(value: int) -> bytes:
    try:
        return _pack_int8(value)
    except StructError:
        return _write_long_int(value)


def _write_long_int(value: int) -> bytes:
    if abs(value) >= _NUMBER_BOUND:
        raise _too_long()
    return _LONG_NUMBER + b"%d" % value


def _write_decimal(value: Decimal) -> bytes:
    text = str(value)
    if len(text) <= _SHORT_DECIMAL:
        whole, _, fraction = text.partition(".")
        fraction = fraction.rstrip("0")
        if fraction.isdigit():
            return _LONG_NUMBER + f"{whole}.{fraction}".encode()
        if not fraction and whole.removeprefix("-").isdigit():
            return _write_int(int(whole))
    return _write_rare_decimal(value)


def _write_rare_decimal(value: Decimal) -> bytes:
    """The form of a number that is long, or that Python writes with an exponent."""
    if not value.is_finite():
        raise _not_finite()
    if not value:
        return _pack_int8(0)
    exponent = value.as_tuple().exponent
    if value.adjusted() >= NUMBER_DIGITS_MAX or int(exponent) < -NUMBER_DIGITS_MAX:
        raise _too_long()
    whole = int(value)
    if whole == value:
        return _write_int(whole)
    # Not normalize(): that rounds to the precision of the current context.
    return _LONG_NUMBER + format(value, "f").rstrip("0").encode()


def _write_text(value: str) -> bytes:
    if "\0" in value:
        raise RoutingError(
            "a str that contains a NUL character cannot be a shard key",
            "remove the NUL: PostgreSQL's text types cannot hold it",
        )
    try:
        return value.encode()
    except UnicodeEncodeError:
        # Without its cause, which would show the value.
        raise RoutingError(
            "a str with a lone surrogate cannot be a shard key",
            "decode the text correctly first: it has no UTF-8 form",
        ) from None


def _write_boolean(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _write_date(value: date) -> bytes:
    return _pack_int4(value.toordinal() - _EPOCH_DAY)


def _write_datetime(value: datetime) -> bytes:
    since = value - _EPOCH if value.tzinfo is None else _instant(value)
    return _pack_int8((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def _write_uuid(value: UUID) -> bytes:
    return value.bytes


def _write_other(value: Any) -> bytes:
    # asyncpg hands out its own subclass of UUID, with the same bytes.
    if isinstance(value, UUID):
        return _write_uuid(value)
    raise _refusal(value)


def _instant(value: datetime) -> timedelta:
    try:
        return value - _EPOCH_UTC
    except TypeError:  # to Python, a time whose tzinfo gives no offset is one without a time zone
        raise RoutingError(
            "a datetime whose tzinfo gives no offset cannot be a shard key",
            "use a tzinfo that answers utcoffset(), or none at all",
        ) from None


def _refusal(value: Any) -> RoutingError:
    if value is None:
        return MissingShardKey("the shard key is None", _GIVE_VALUE)
    if type(value) is tuple:
        return RoutingError(
            "a part of a shard key is itself a tuple",
            "give the parts of the key side by side, in one tuple",
        )
    name = type(value).__qualname__
    base = next((known.__name__ for known in (*_WRITERS, tuple) if isinstance(value, known)), None)
    if base is not None:
        return RoutingError(
            f"a shard key cannot be of the type {name!r}, a subclass of {base}",
            f"convert it to a plain {base}: a subclass may be stored or compared as something else",
        )
    return RoutingError(
        f"a shard key cannot be of the type {name!r}",
        "use int, str, UUID, bytes, date, datetime, Decimal or bool",
    )


def _not_finite() -> RoutingError:
    return RoutingError(
        "a number that is NaN or infinite cannot be a shard key", "use a finite number"
    )


def _too_long() -> RoutingError:
    return RoutingError(
        f"a number of more than {NUMBER_DIGITS_MAX} digits cannot be a shard key",
        "use a shorter one, or a hash of it",
    )


_GIVE_VALUE: Final = "give the shard key a value before the row or statement is routed"
_NUMBER_BOUND: Final = 10**NUMBER_DIGITS_MAX

_KINDS: Final[Mapping[type, Kind]] = {
    int: "number",
    Decimal: "number",
    str: "text",
    UUID: "uuid",
    bytes: "bytes",
    date: "date",
    datetime: "timestamp",
    bool: "boolean",
}

_TAGS: Final[Mapping[Kind, bytes]] = {
    "number": b"n",
    "text": b"s",
    "uuid": b"u",
    "bytes": b"b",
    "date": b"d",
    "timestamp": b"t",
    "timestamptz": b"z",
    "boolean": b"o",
}

_WRITERS: Final[Mapping[type, Callable[[Any], bytes]]] = {
    int: _write_int,
    str: _write_text,
    UUID: _write_uuid,
    bytes: bytes,
    datetime: _write_datetime,  # before date, so that its subclasses are called by its name
    date: _write_date,
    Decimal: _write_decimal,
    bool: _write_boolean,
}
