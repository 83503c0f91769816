"""The hash of a shard key must never change: rows lie where it once put them.

A failure here means that the code is wrong, never the vectors. New ones may be added at the end.
"""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sqlalchemy_shards.topology.canonical import canonical_bytes
from sqlalchemy_shards.topology.partitioners import HashPartitioner

GOLDEN = json.loads(Path(__file__).with_name("golden_vectors.json").read_text())["vectors"]
INDIA = timezone(timedelta(hours=5, minutes=30))
UTC = timezone.utc

VALUES: list[Any] = [
    0,
    1,
    -1,
    42,
    255,
    256,
    110001,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    2**63,
    -(2**63) - 1,
    10**38,
    -(10**999),
    "",
    "a",
    "ab",
    "abc",
    "abcd",
    "abcde",
    "42",
    "Goa",
    " Goa ",
    "zażółć",
    "e\u0301",
    "\u00e9",
    "भारत",
    "🐘",
    "\x01\t\n\x7f",
    "x" * 1000,
    UUID(int=0),
    UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    UUID(int=2**128 - 1),
    b"",
    b"\x00",
    b"\x00\x00",
    b"abc",
    bytes(range(256)),
    date(2000, 1, 1),
    date(1999, 12, 31),
    date(1970, 1, 1),
    date(2024, 2, 29),
    date.min,
    date.max,
    datetime(2000, 1, 1),
    datetime(1999, 12, 31, 23, 59, 59, 999999),
    datetime(2024, 2, 29, 12, 30, 15, 123456),
    datetime.min,
    datetime.max,
    datetime(2000, 1, 1, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC),
    datetime(2024, 2, 29, 18, 0, 15, 123456, tzinfo=INDIA),
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    Decimal(0),
    Decimal("-0.00"),
    Decimal(1),
    Decimal("1.0"),
    Decimal("1E+2"),
    Decimal("0.5"),
    Decimal("-0.5"),
    Decimal("12.50"),
    Decimal("1E-10"),
    Decimal("9223372036854775807.0"),
    Decimal(9223372036854775808),
    Decimal("12345678901234567890123456789.0123456789"),
    Decimal("1E+999"),
    Decimal("-1E-999"),
    True,
    False,
    (42, 7),
    (7, 42),
    (42, "7"),
    ("42", "7"),
    ("4", "27"),
    ("", ""),
    ("", "", ""),
    ("Goa", 403001),
    (Decimal("1.50"), True),
    (1, True, "1", b"1"),
    (UUID(int=1), date(2024, 2, 29)),
    (datetime(2024, 2, 29), datetime(2024, 2, 29, tzinfo=UTC)),
    (2**64, b""),
]


def test_there_is_a_vector_for_each_value() -> None:
    names = [vector["value"] for vector in GOLDEN]

    assert names == [repr(value) for value in VALUES]


@pytest.mark.parametrize(
    ("value", "vector"),
    list(zip(VALUES, GOLDEN, strict=False)),
    ids=[f"{number}-{type(value).__name__}" for number, value in enumerate(VALUES)],
)
class TestGoldenVector:
    def test_canonical_form_is_as_ever(self, value: Any, vector: dict[str, Any]) -> None:
        form = canonical_bytes(value).hex()

        assert form == vector["canonical"]

    def test_hash_is_as_ever(self, value: Any, vector: dict[str, Any]) -> None:
        partitioner = HashPartitioner(buckets=1009)
        key = value if isinstance(value, tuple) else (value,)

        bucket = partitioner.bucket_of(key)

        assert bucket == vector["murmur3"] % 1009

    def test_hash_is_murmur3_as_published(self, value: Any, vector: dict[str, Any]) -> None:
        data = bytes.fromhex(vector["canonical"])

        assert murmur3_32(data) == vector["murmur3"]


def test_murmur3_of_this_file_agrees_with_published_vectors() -> None:
    published = {
        b"": 0,
        b"\xff\xff\xff\xff": 0x76293B50,
        b"!Ce\x87": 0xF55B516B,
        b"!Ce": 0x7E4A8634,
    }
    published |= {b"!C": 0xA0F7B07A, b"!": 0x72661CF4, b"\0\0\0\0": 0x2362F9DE, b"\0": 0x514E28B7}

    assert {data: murmur3_32(data) for data in published} == published


def murmur3_32(data: bytes) -> int:
    """MurmurHash3_x86_32 with seed 0, after Austin Appleby's MurmurHash3.cpp."""
    mask, h = 0xFFFFFFFF, 0

    def mixed(k: int) -> int:
        k = k * 0xCC9E2D51 & mask
        return (k << 15 | k >> 17) * 0x1B873593 & mask

    whole = len(data) & ~3
    for start in range(0, whole, 4):
        h ^= mixed(int.from_bytes(data[start : start + 4], "little"))
        h = ((h << 13 | h >> 19) * 5 + 0xE6546B64) & mask
    h ^= mixed(int.from_bytes(data[whole:], "little"))
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & mask
    h = (h ^ h >> 13) * 0xC2B2AE35 & mask
    return h ^ h >> 16
