"""Lists as PostgreSQL writes arrays."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from uuid import UUID

import pytest

from sqlalchemy_shards.cluster.dispatch.array_texts import array_text, uncast_text

ONE = UUID(int=1)
EAST = timezone(timedelta(hours=2, minutes=30))


class Size(IntEnum):
    SMALL = 1


@pytest.mark.parametrize(
    ("cast", "values", "text"),
    [
        ("BIGINT", [1, -2, 3], "{1, -2, 3}"),
        ("INTEGER", [None, 1, None], "{NULL, 1, NULL}"),
        ("VARCHAR", ["a", "", "b,c", "NULL", "{x}"], '{"a","","b,c","NULL","{x}"}'),
        ("VARCHAR", ['say "a"', "back\\slash", None], r'{"say \"a\"","back\\slash",NULL}'),
        ("VARCHAR", ['","'], r'{"\",\""}'),
        ("UUID", [ONE, None], "{00000000000000000000000000000001,NULL}"),
        (
            "UUID",
            ["00000000-0000-0000-0000-000000000001"],
            '{"00000000-0000-0000-0000-000000000001"}',
        ),
        ("DATE", [date(1, 2, 3), None], "{0001-02-03,NULL}"),
        ("TIMESTAMP WITHOUT TIME ZONE", [datetime(2020, 1, 2, 3)], '{"2020-01-02 03:00:00"}'),
        (
            "TIMESTAMP WITH TIME ZONE",
            [datetime(2020, 1, 2, 3, tzinfo=EAST), None],
            '{"2020-01-02 03:00:00+02:30",NULL}',
        ),
    ],
)
def test_values_are_written_as_an_array(cast: str, values: list[object], text: str) -> None:
    assert array_text(cast, values) == text


@pytest.mark.parametrize(
    ("cast", "values"),
    [
        ("BIGINT", [1, True]),
        ("BIGINT", [1.0]),
        ("BIGINT", [Decimal(1)]),
        ("BIGINT", [Size.SMALL]),
        ("BIGINT", ["1"]),
        ("BIGINT", [None]),
        ("VARCHAR", [1]),
        ("VARCHAR", ["a", b"a"]),
        ("DATE", [datetime(2020, 1, 2)]),
        ("TIMESTAMP WITHOUT TIME ZONE", [datetime(2020, 1, 2, tzinfo=EAST)]),
        ("TIMESTAMP WITH TIME ZONE", [datetime(2020, 1, 2)]),
        ("UUID", [ONE, str(ONE)]),
        ("NUMERIC", [Decimal(1)]),
    ],
)
def test_values_that_may_be_taken_for_others_have_no_array(cast: str, values: list[object]) -> None:
    assert array_text(cast, values) is None


def test_values_in_rows_have_one_where_no_cast_is_needed() -> None:
    assert uncast_text("INTEGER", [1, None]) == "{1, NULL}"
    assert uncast_text("UUID", [ONE]) == "{00000000000000000000000000000001}"
    assert uncast_text("INTEGER", [2**63]) is None
    assert uncast_text("VARCHAR", ["a"]) is None
    assert uncast_text("UUID", [str(ONE)]) is None
    assert uncast_text("INTEGER", [None]) is None
