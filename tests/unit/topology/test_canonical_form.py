from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from enum import Enum, IntEnum
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from sqlalchemy_shards.errors import MissingShardKey, RoutingError
from sqlalchemy_shards.topology.canonical import canonical_bytes, comparable, identity_bytes

UTC = timezone.utc


class Autumn(tzinfo):
    """Clocks go back from 03:00+02:00 to 02:00+01:00, so that 02:30 happens twice."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=1 if moment is not None and moment.fold else 2)

    def dst(self, moment: datetime | None) -> None:
        return None

    def tzname(self, moment: datetime | None) -> None:
        return None


class Nowhere(Autumn):
    def utcoffset(self, moment: datetime | None) -> Any:
        return None


class Colour(IntEnum):
    RED = 1


class Region(str, Enum):
    WEST = "west"


class Point(NamedTuple):
    x: int
    y: int


class DriverUUID(UUID):
    """As asyncpg has one."""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, Decimal("1.000")),
        (0, Decimal("-0.0")),
        (Decimal("0E-5000"), 0),
        (Decimal("1E+2"), 100),
        (Decimal("1.50"), Decimal("1.5")),
        (Decimal("15E-9"), Decimal("0.0000000150")),
        (2**64, Decimal(2**64)),
        (Decimal("1E+300"), 10**300),
        (
            datetime(2024, 1, 1, 12, tzinfo=UTC),
            datetime(2024, 1, 1, 17, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        ),
        (UUID(int=7), DriverUUID(int=7)),
        ((42,), 42),
        (("a", Decimal("1.0")), ("a", 1)),
    ],
)
def test_values_that_postgresql_holds_equal_have_one_form(one: Any, other: Any) -> None:
    assert canonical_bytes(one) == canonical_bytes(other)


def test_decimal_keeps_more_digits_than_the_context_has() -> None:
    with localcontext() as context:
        context.prec = 3

        form = canonical_bytes(Decimal("1.23456789"))

    assert form == b"numeric:1.23456789"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        ((1, 2), (2, 1)),
        ((True, 1), (1, 1)),
        (("1", 1), (1, "1")),
        ((b"a", 1), ("a", 1)),
        (("", ""), ("", "", "")),
        ((datetime(2000, 1, 1), 0), (datetime(2000, 1, 1, tzinfo=UTC), 0)),
        ((datetime(2000, 1, 1), 0), (datetime(2000, 1, 1).date(), 0)),
    ],
)
def test_different_keys_of_several_parts_have_different_forms(one: Any, other: Any) -> None:
    assert canonical_bytes(one) != canonical_bytes(other)


def test_kinds_are_told_apart_by_the_identity_of_one_part_too() -> None:
    values = [1, True, "1", b"1", Decimal("1.5"), datetime(2000, 1, 1).date()]

    assert len({identity_bytes((value,)) for value in values}) == len(values)


def test_both_passages_of_a_repeated_hour_are_different_instants() -> None:
    first = datetime(2024, 10, 27, 2, 30, tzinfo=Autumn())
    second = first.replace(fold=1)

    assert canonical_bytes(first) != canonical_bytes(second)
    assert comparable(first) < comparable(second)


@pytest.mark.parametrize("value", [None, (None,), (1, None), ()])
def test_missing_value_is_refused(value: Any) -> None:
    with pytest.raises(MissingShardKey):
        canonical_bytes(value)


def test_refusal_names_the_part_that_is_missing() -> None:
    with pytest.raises(MissingShardKey, match="part 2 of the shard key is None"):
        canonical_bytes((1, None, 3))


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        bytearray(b"a"),
        memoryview(b"a"),
        [1],
        {"a": 1},
        object(),
        timedelta(1),
        1j,
        ((1, 2), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(RoutingError):
        canonical_bytes(value)
    with pytest.raises(RoutingError):
        canonical_bytes((1, value))


@pytest.mark.parametrize(
    ("value", "base"), [(Colour.RED, "int"), (Region.WEST, "str"), (Point(1, 2), "tuple")]
)
def test_subclass_is_refused_with_the_type_to_convert_to(value: Any, base: str) -> None:
    with pytest.raises(RoutingError, match=f"a subclass of {base}; convert it to a plain {base}"):
        canonical_bytes(value)


@pytest.mark.parametrize("number", ["NaN", "sNaN", "-Infinity", "Infinity"])
def test_number_that_is_not_finite_is_refused(number: str) -> None:
    with pytest.raises(RoutingError, match="NaN or infinite"):
        canonical_bytes(Decimal(number))
    with pytest.raises(RoutingError, match="NaN or infinite"):
        comparable(Decimal(number))


@pytest.mark.parametrize(
    "number", [10**1000, -(10**1000), Decimal("1E+1000"), Decimal("1E+999999"), Decimal("1E-1001")]
)
def test_number_of_too_many_digits_is_refused(number: Any) -> None:
    with pytest.raises(RoutingError, match="more than 1000 digits"):
        canonical_bytes(number)


def test_datetime_whose_zone_has_no_offset_is_refused() -> None:
    with pytest.raises(RoutingError, match="gives no offset"):
        canonical_bytes(datetime(2024, 1, 1, tzinfo=Nowhere()))


@pytest.mark.parametrize("text", ["secret\0", "secret\ud800"])
def test_text_that_cannot_be_stored_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(RoutingError) as caught:
        canonical_bytes(text)

    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
