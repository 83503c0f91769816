"""Values written into a statement mean what they mean as parameters."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from psycopg.types.range import Int4Range

from sqlalchemy_shards.connections.written_values import with_values

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def driver(urls: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(urls["s0"].replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


VALUES = [
    0,
    -1,
    40_000,
    -(2**15),
    -(2**31),
    2**31,
    -(2**63),
    2**70,
    True,
    1.5,
    -0.0,
    0.1,
    float("nan"),
    float("-inf"),
    Decimal("-1.50"),
    Decimal("NaN"),
    b"\x00\\'\xff",
    dt.date(2026, 1, 31),
    dt.datetime(2026, 1, 31, 12, 0, 0, 5),
    dt.datetime(2026, 1, 31, 12, tzinfo=dt.timezone(dt.timedelta(hours=-3))),
    dt.time(23, 59, 59, 999_999),
    dt.timedelta(days=-1, microseconds=3),
    uuid.UUID(int=7),
    [1, -2, None],
    Int4Range(1, 5),
    Jsonb({"a": ["%", "'", "\\"]}),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_has_the_type_and_the_value_of_the_parameter(
    driver: psycopg.Connection[Any], value: Any
) -> None:
    sql = "SELECT pg_typeof(%(a)s)::text, %(a)s::text"

    written = driver.execute(with_values(driver, sql, {"a": value})).fetchone()

    assert written == driver.execute(sql, {"a": value}).fetchone()


@pytest.mark.parametrize("value", [None, [], ["a,b", 'c"d', "NULL", None, "\\"]], ids=repr)
def test_a_value_without_a_type_of_its_own_takes_that_of_its_place(
    driver: psycopg.Connection[Any], value: Any
) -> None:
    sql = "SELECT %(a)s::varchar[], 'x' = ANY(%(a)s::varchar[])"

    written = driver.execute(with_values(driver, sql, {"a": value})).fetchone()

    assert written == driver.execute(sql, {"a": value}).fetchone()


@pytest.mark.parametrize("text", ["", "'", "\\", "%", "%(a)s", "%%", "E'\\''", "ä\n\t;--", '"'])
def test_text_is_quoted(driver: psycopg.Connection[Any], text: str) -> None:
    sql = "SELECT %(a)s::varchar || '%%', %(b)s::varchar"

    written = driver.execute(with_values(driver, sql, {"a": text, "b": text[::-1]})).fetchone()

    assert written == (text + "%", text[::-1])


def test_the_least_number_of_a_type_can_be_cast(driver: psycopg.Connection[Any]) -> None:
    sql = "SELECT %(a)s::BIGINT, -%(b)s::INTEGER"

    written = driver.execute(with_values(driver, sql, {"a": -(2**63), "b": -5})).fetchone()

    assert written == (-(2**63), 5)


def test_a_value_that_has_no_form_as_text_is_an_error_of_the_driver(
    driver: psycopg.Connection[Any],
) -> None:
    with pytest.raises(psycopg.ProgrammingError, match="cannot adapt"):
        with_values(driver, "SELECT %(a)s", {"a": object()})
