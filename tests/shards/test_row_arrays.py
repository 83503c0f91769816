"""Many rows go to a shard as arrays, and are stored as they would be one by one."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Time,
    Uuid,
    insert,
)
from sqlalchemy.dialects.postgresql import INT4RANGE, JSONB, Range
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DataError, IntegrityError

from tests.shards.made import made

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.shards.shop import World

MANY = range(48)
UTC = timezone.utc
WEST = timezone(timedelta(hours=-7))

AS_ARRAYS: dict[str, tuple[Any, Sequence[Any]]] = {
    "text": (String, ["", "NULL", '"', "\\", "{a,b}", " x ", "'", "\n", "é🐘", None]),
    "short": (String(4), ["", "four", None]),
    "integer": (Integer, [0, -1, 2**31 - 1, -(2**31), None]),
    "large": (BigInteger, [0, 2**63 - 1, -(2**63), None]),
    "decimal": (Numeric(12, 2), [Decimal("1.005"), Decimal(-3), Decimal("NaN"), None]),
    "float": (Float, [0.1, -0.0, float("inf"), 1e-300, float("nan"), None]),
    "truth": (Boolean, [True, False, None]),
    "bytes": (LargeBinary, [b"", b"\x00\xff", b"\\", None]),
    "date": (Date, [date(1, 1, 1), date(9999, 12, 31), None]),
    "time": (Time, [time(0), time(23, 59, 59, 999999), None]),
    "moment": (DateTime, [datetime(2026, 1, 1, 12, 0, 0, 5), datetime(1, 1, 1), None]),
    "moment_of_zone": (
        DateTime(timezone=True),
        [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=WEST), None],
    ),
    "interval": (Interval, [timedelta(days=-1, microseconds=1), timedelta(0), None]),
    "identifier": (Uuid, [UUID(int=0), UUID(int=2**128 - 1), None]),
}

ONE_BY_ONE: dict[str, tuple[Any, Sequence[Any]]] = {
    "number": (Numeric(12, 2), [Decimal("1.5"), 2, None]),
    "moment": (
        DateTime(timezone=True),
        [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=WEST), None],
    ),
    "document": (JSON, [{"a": [1, None]}, [], "x", 1.5]),
    "binary": (JSONB, [{"b": 1, "a": "\u00e9"}, None]),
    "array": (ARRAY(Integer), [[1, 2], [], [None], None]),
    "range": (INT4RANGE, [Range(1, 5), Range(empty=True), None]),
    "label": (Enum("red", "green", name="colour"), ["red", "green", None]),
    "nothing": (Boolean, [None]),
}


def columns_of(kinds: dict[str, tuple[Any, Sequence[Any]]]) -> Iterator[Column[Any]]:
    yield Column("id", BigInteger, primary_key=True, autoincrement=False)
    for name, (type_, _) in kinds.items():
        yield Column(name, type_)


@pytest.mark.parametrize("kinds", [AS_ARRAYS, ONE_BY_ONE], ids=["as arrays", "one by one"])
@pytest.mark.parametrize("returning", [False, True])
def test_values_are_stored_as_by_one_postgresql(
    plain: World, four_shards: World, kinds: Any, returning: bool
) -> None:
    rows = [
        {"id": number, **{name: each[number % len(each)] for name, (_, each) in kinds.items()}}
        for number in MANY
    ]
    found = []
    for world in (plain, four_shards):
        with made(world, *columns_of(kinds)) as table:
            statement: Any = insert(table)
            if returning:
                statement = statement.returning(table, sort_by_parameter_order=True)
            with world.engine.begin() as connection:
                result = connection.execute(statement, rows)
                returned = [repr(row) for row in result] if returning else []
            found.append((returned, world.rows("SELECT made::text FROM made")))

    assert found[0] == found[1]
    assert len(found[0][1]) == len(MANY)


def test_a_row_may_be_updated_again_by_a_later_parameter_set(shop: World) -> None:
    table = shop.models.Customer.__table__
    statement = upsert(table)
    statement = statement.on_conflict_do_update(
        index_elements=["id"], set_={"version": table.c.version + statement.excluded.version}
    )
    rows = [{"id": number % 6, "name": "x", "version": 1} for number in range(240)]
    with shop.engine.begin() as connection:
        counted = connection.execution_options(preserve_rowcount=True).execute(statement, rows)

    assert counted.rowcount == 240
    assert shop.rows("SELECT id, version FROM customers WHERE id BETWEEN 1 AND 5") == [
        (number, 41) for number in range(1, 6)
    ]


def test_a_row_that_conflicts_within_the_rows_is_left(shop: World) -> None:
    table = shop.models.Customer.__table__
    statement = upsert(table).on_conflict_do_nothing()
    rows = [{"id": number % 50, "name": f"n{number}", "version": 1} for number in range(100)]
    with shop.engine.begin() as connection:
        counted = connection.execution_options(preserve_rowcount=True).execute(statement, rows)

    assert counted.rowcount == 50 - 12
    assert len(shop.rows("SELECT id FROM customers")) == 50


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"id": 40, "name": "again", "version": 1}, IntegrityError),
        ({"id": 400, "name": None, "version": 1}, IntegrityError),
        ({"id": 400, "name": "\x00", "version": 1}, DataError),
        ({"id": 400, "name": "x", "version": 2**40}, DataError),
    ],
)
def test_a_wrong_row_leaves_nothing(world: World, wrong: dict[str, Any], expected: Any) -> None:
    table = world.models.Customer.__table__
    rows = [{"id": number, "name": "x", "version": 1} for number in range(100)]
    with world.engine.connect() as connection:
        with pytest.raises(expected):
            connection.execute(insert(table), [*rows, wrong])
        connection.rollback()

    assert world.rows("SELECT id FROM customers") == []
