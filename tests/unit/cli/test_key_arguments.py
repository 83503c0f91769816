from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import typer

from sqlalchemy_shards.cli.keys import KeyType, parse_key


@pytest.mark.parametrize(
    ("text", "type_", "value"),
    [
        ("-7", KeyType.INT, -7),
        ("7", KeyType.STR, "7"),
        (
            "00000000-0000-0000-0000-00000000000a",
            KeyType.UUID,
            UUID("00000000-0000-0000-0000-00000000000a"),
        ),
        ("2024-02-29", KeyType.DATE, date(2024, 2, 29)),
        ("2024-02-29T12:00:00", KeyType.DATETIME, datetime(2024, 2, 29, 12)),
        ("2024-02-29T12:00:00Z", KeyType.DATETIME, datetime(2024, 2, 29, 12, tzinfo=timezone.utc)),
        ("1.50", KeyType.DECIMAL, Decimal("1.50")),
        ("True", KeyType.BOOL, True),
        ("false", KeyType.BOOL, False),
        ("\\x00ff", KeyType.BYTES, b"\x00\xff"),
    ],
)
def test_a_part_is_read_as_its_type(text: str, type_: KeyType, value: Any) -> None:
    key, types = parse_key([text], [type_])

    assert key == (value,)
    assert type(key[0]) is type(value)
    assert types == (type_,)


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("x", KeyType.INT),
        ("1,5", KeyType.DECIMAL),
        ("yes", KeyType.BOOL),
        ("today", KeyType.DATE),
        ("0g", KeyType.BYTES),
        ("a", KeyType.UUID),
    ],
)
def test_a_part_that_is_not_of_its_type_is_refused(text: str, type_: KeyType) -> None:
    with pytest.raises(typer.BadParameter, match="is not of the type"):
        parse_key([text], [type_])


def test_without_types_digits_are_an_int_and_the_rest_is_text() -> None:
    key, types = parse_key(["12", "west", "1.5"], [])

    assert key == (12, "west", "1.5")
    assert types == (KeyType.INT, KeyType.STR, KeyType.STR)


def test_one_type_holds_for_all_parts() -> None:
    assert parse_key(["1", "2"], [KeyType.STR])[0] == ("1", "2")


def test_each_part_may_have_a_type_of_its_own() -> None:
    assert parse_key(["1", "2"], [KeyType.STR, KeyType.INT])[0] == ("1", 2)


def test_types_that_do_not_fit_the_parts_are_refused() -> None:
    with pytest.raises(typer.BadParameter, match="2 types for 3 parts"):
        parse_key(["1", "2", "3"], [KeyType.STR, KeyType.INT])
