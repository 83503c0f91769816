"""Tables whose columns are of every type that can be grouped by, or cannot, with awkward values."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    CHAR,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from sqlalchemy_shards import HashPartitioner, Keyspace, reference_table, shard_table

if TYPE_CHECKING:
    from collections.abc import Mapping

METADATA = MetaData()
KEY = {"primary_key": True, "autoincrement": False}

PEOPLE = shard_table(
    Table(
        "people",
        METADATA,
        Column("id", BigInteger, **KEY),
        Column("name", Text),
        Column("code", String(9, collation="C")),
        Column("folded", Text),
        Column("short", CHAR(3)),
        Column("mood", Enum("good", "bad", name="mood")),
        Column("kind", Enum("x", "y", name="kind", native_enum=False)),
        Column("small", SmallInteger),
        Column("n", Integer),
        Column("big", BigInteger),
        Column("price", Numeric),
        Column("cents", Numeric(10, 2)),
        Column("ratio", Float),
        Column("active", Boolean),
        Column("day", Date),
        Column("at", DateTime),
        Column("seen", DateTime(timezone=True)),
        Column("token", Uuid),
        Column("raw", LargeBinary),
        Column("extra", JSONB),
        Column("place", String(2)),
    )
)
ORDERS = shard_table(
    Table(
        "orders",
        METADATA,
        Column("person_id", BigInteger, **KEY),
        Column("id", Integer, **KEY),
        Column("amount", Integer),
        Column("price", Numeric(12, 3)),
        Column("status", Text),
        Column("place", String(2)),
    ),
    "person_id",
)
PLACES = reference_table(
    Table("places", METADATA, Column("code", String(2), primary_key=True), Column("name", Text))
)
PAIRS = shard_table(
    Table(
        "pairs",
        METADATA,
        Column("weight", Numeric, **KEY),
        Column("word", Text, primary_key=True),
        Column("id", Integer, **KEY),
        Column("n", Integer),
    ),
    ("weight", "word"),
    keyspace="pairs",
)

MOMENT = datetime(2026, 10, 25, 0, 0, tzinfo=timezone.utc)
"""The night in which clocks of Berlin go back from three to two o'clock."""

KEYS: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "small": (SmallInteger, (-1, 0, 1, 2)),
    "text": (Text, ("a", "A", "a ", "ä", "")),
    "token": (Uuid, tuple(UUID(int=each << 120) for each in range(4))),
    "raw": (LargeBinary, (b"", b"a", b"A", b"\x00")),
    "day": (Date, tuple(date(2000, 1, day) for day in range(1, 6))),
    "at": (DateTime, tuple(datetime(2000, 1, 1, 0, 0, 0, each) for each in range(4))),
    "seen": (DateTime(timezone=True), tuple(MOMENT + timedelta(minutes=30 * i) for i in range(5))),
    "number": (Numeric, tuple(map(Decimal, ("1", "1.0", "1.50", "1.5", "-0.0", "0", "100")))),
    "flag": (Boolean, (True, False)),
}
"""A kind of shard key, with values some of which are equal and do not look alike."""

KEYED = {
    name: shard_table(
        Table(
            f"by_{name}",
            METADATA,
            Column("key", type_, primary_key=True, nullable=False, autoincrement=False),
            Column("id", Integer, **KEY),
            Column("n", Integer),
        ),
        "key",
    )
    for name, (type_, _) in KEYS.items()
}


def keyspaces() -> dict[str, Keyspace]:
    return {"default": Keyspace(HashPartitioner()), "pairs": Keyspace(HashPartitioner(64))}


def rows() -> dict[Table, list[dict[str, Any]]]:
    """The rows of all tables, with NULLs, ties and values that are nearly alike."""
    texts = ("a", "A", "a ", "ä", "", None, "B", "b")
    numbers = ("1", "1.0", "1.00", "2.5", "-0.125", "NaN", None)
    people = [
        {
            "id": index,
            "name": texts[index % 8],
            "code": texts[(index * 3) % 8],
            "folded": texts[(index * 5) % 8],
            "short": ("a", "a ", "b", None)[index % 4],
            "mood": ("good", "bad", None)[index % 3],
            "kind": ("x", "y", None)[index % 3],
            "small": index % 3 - 1,
            "n": None if index % 7 == 0 else index % 4 - 2,
            "big": (2**62) * (index % 3 - 1) if index % 4 else None,
            "price": (each := numbers[index % 7]) and Decimal(each),
            "cents": None if index % 5 == 0 else Decimal(index) / 4,
            "ratio": (0.0, -0.0, 1.5, None, float("nan"))[index % 5],
            "active": (None, True, False)[index % 3],
            "day": None if index % 4 == 0 else date(2000, 1, 1 + index % 3),
            "at": None if index % 3 == 0 else datetime(2020, 2, 29, 12, 0, 0, index % 2),
            "seen": None if index % 9 == 0 else MOMENT + timedelta(minutes=30 * (index % 5)),
            "token": None if index % 4 == 1 else UUID(int=(index % 5) << 120),
            "raw": (b"", b"\x00", b"a", None)[index % 4],
            "extra": {"n": index % 2},
            "place": ("in", "de", "xx", None)[index % 4],
        }
        for index in range(40)
    ]
    orders = [
        {
            "person_id": index,
            "id": number,
            "amount": (None, 1, -7, 5)[(index + number) % 4],
            "price": Decimal(number * 7 + index) / 8,
            "status": ("new", "done", "New", None)[(index + number) % 4],
            "place": ("in", "de", "xx", None)[(index + number) % 4],
        }
        for index in range(40)
        for number in range(index % 4)
    ]
    pairs = [
        {"weight": Decimal(weight), "word": word, "id": number, "n": number % 2}
        for weight in ("1", "1.5", "-2.50")
        for word in ("a", "A", "a ")
        for number in range(3)
    ]
    places = [
        {"code": code, "name": name} for code, name in (("in", "I"), ("de", "D"), ("fr", "F"))
    ]
    keyed = {
        table: [
            {"key": value, "id": 10 * place + number, "n": number}
            for place, value in enumerate(KEYS[name][1])
            for number in range(3)
        ]
        for name, table in KEYED.items()
    }
    return {PEOPLE: people, ORDERS: orders, PAIRS: pairs, PLACES: places, **keyed}
