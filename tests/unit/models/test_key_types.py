from __future__ import annotations

import enum
import uuid
from datetime import date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal

import psycopg
import pytest
from sqlalchemy import (
    ARRAY,
    BIGINT,
    CHAR,
    DECIMAL,
    JSON,
    REAL,
    UUID,
    VARCHAR,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    Time,
    TypeDecorator,
    Unicode,
    Uuid,
    cast,
    func,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.mysql import TINYINT
from sqlalchemy.types import NullType, UserDefinedType

from sqlalchemy_shards.models.key_types import (
    KeyFamily,
    KeyType,
    NotOfFamily,
    family_of,
    key_type_of,
    key_value,
)


class Color(enum.Enum):
    RED = "red"


class StringColor(str, enum.Enum):
    RED = "red"


class Upper(TypeDecorator):
    impl = String
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value.upper()


class Padded(TypeDecorator):
    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect):
        return CHAR(8)


class LoweredByServer(TypeDecorator):
    impl = String
    cache_ok = True

    def bind_expression(self, bindparam):
        return func.lower(bindparam)


class CastByServer(UserDefinedType):
    cache_ok = True

    def get_col_spec(self, **kw):
        return "bigint"

    def bind_expression(self, bindparam):
        return cast(bindparam, BIGINT)


class Int8(UserDefinedType):
    cache_ok = True

    def get_col_spec(self, **kw):
        return "int8"


class TimestampTz(UserDefinedType):
    cache_ok = True

    def __init__(self, precision):
        self.precision = precision

    def get_col_spec(self, **kw):
        return f"timestamptz({self.precision})"


FAMILIES = [
    (SmallInteger(), KeyFamily.INTEGER),
    (Integer(), KeyFamily.INTEGER),
    (BigInteger(), KeyFamily.INTEGER),
    (BIGINT(), KeyFamily.INTEGER),
    (Int8(), KeyFamily.INTEGER),
    (String(), KeyFamily.TEXT),
    (String(20), KeyFamily.TEXT),
    (VARCHAR(20), KeyFamily.TEXT),
    (Text(), KeyFamily.TEXT),
    (Unicode(5), KeyFamily.TEXT),
    (String(collation="C"), KeyFamily.TEXT),
    (String(9, collation="POSIX"), KeyFamily.TEXT),
    (Enum("a", "b", name="e", native_enum=False), KeyFamily.TEXT),
    (Upper(), KeyFamily.TEXT),
    (Uuid(), KeyFamily.UUID),
    (Uuid(as_uuid=False), KeyFamily.UUID),
    (UUID(), KeyFamily.UUID),
    (postgresql.UUID(), KeyFamily.UUID),
    (LargeBinary(), KeyFamily.BYTES),
    (postgresql.BYTEA(), KeyFamily.BYTES),
    (Date(), KeyFamily.DATE),
    (DateTime(), KeyFamily.TIMESTAMP),
    (DateTime(timezone=True), KeyFamily.TIMESTAMPTZ),
    (postgresql.TIMESTAMP(), KeyFamily.TIMESTAMP),
    (postgresql.TIMESTAMP(timezone=True, precision=6), KeyFamily.TIMESTAMPTZ),
    (TimestampTz(6), KeyFamily.TIMESTAMPTZ),
    (Numeric(), KeyFamily.NUMERIC),
    (Numeric(10, 2), KeyFamily.NUMERIC),
    (DECIMAL(10), KeyFamily.NUMERIC),
    (Boolean(), KeyFamily.BOOLEAN),
    (CHAR(3).with_variant(String(3), "postgresql"), KeyFamily.TEXT),
]

NO_FAMILY = [
    CHAR(3),
    Padded(),
    String().with_variant(CHAR(3), "postgresql"),
    String(collation="und-u-ks-level2"),
    String(5, collation="case_insensitive"),
    postgresql.CITEXT(),
    Float(),
    Double(),
    REAL(),
    Numeric(10, 2, asdecimal=False),
    Enum("a", "b", name="letters"),
    Enum(Color),
    postgresql.ENUM("a", name="letter"),
    postgresql.DOMAIN("positive", Integer()),
    Interval(),
    Time(),
    JSON(),
    postgresql.JSONB(),
    ARRAY(Integer),
    postgresql.INET(),
    postgresql.TIMESTAMP(precision=3),
    postgresql.TIMESTAMP(timezone=True, precision=0),
    TimestampTz(5),
    Uuid(native_uuid=False),
    LoweredByServer(),
    CastByServer(),
    NullType(),
    TINYINT(),
]


@pytest.mark.parametrize(("type_", "family"), FAMILIES, ids=repr)
def test_a_type_that_postgresql_compares_exactly_has_its_family(type_, family, dialect):
    assert family_of(type_, dialect) is family


@pytest.mark.parametrize("type_", NO_FAMILY, ids=repr)
def test_a_type_whose_equality_is_not_exact_or_unknown_has_no_family(type_, dialect):
    assert family_of(type_, dialect) is None


@pytest.mark.parametrize(
    ("type_", "key_type"),
    [
        (String(20), KeyType(KeyFamily.TEXT, length=20)),
        (Text(), KeyType(KeyFamily.TEXT)),
        (Numeric(), KeyType(KeyFamily.NUMERIC)),
        (Numeric(10), KeyType(KeyFamily.NUMERIC, scale=0)),
        (Numeric(10, 2), KeyType(KeyFamily.NUMERIC, scale=2)),
        (Numeric(3, -2), KeyType(KeyFamily.NUMERIC, scale=-2)),
        (BigInteger(), KeyType(KeyFamily.INTEGER)),
    ],
    ids=repr,
)
def test_a_key_type_knows_what_the_column_keeps(type_, key_type, dialect):
    assert key_type_of(type_, dialect) == key_type


NOON = datetime(2024, 2, 29, 12, 0, 0, 123456)
NOON_UTC = NOON.replace(tzinfo=timezone.utc)
AN_ID = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


class DriverUuid(uuid.UUID):
    """As asyncpg's, a subclass with nothing changed."""


@pytest.mark.parametrize(
    ("family", "value", "expected"),
    [
        (KeyFamily.INTEGER, -7, -7),
        (KeyFamily.TEXT, "Ünï ", "Ünï "),
        (KeyFamily.UUID, AN_ID, AN_ID),
        (KeyFamily.UUID, DriverUuid(AN_ID.hex), AN_ID),
        (KeyFamily.UUID, str(AN_ID).upper(), AN_ID),
        (KeyFamily.UUID, AN_ID.hex, AN_ID),
        (KeyFamily.BYTES, b"\x00a", b"\x00a"),
        (KeyFamily.BYTES, bytearray(b"ab"), b"ab"),
        (KeyFamily.BYTES, memoryview(b"ab"), b"ab"),
        (KeyFamily.BYTES, psycopg.Binary(b"ab"), b"ab"),
        (KeyFamily.DATE, date(2024, 2, 29), date(2024, 2, 29)),
        (KeyFamily.TIMESTAMP, NOON, NOON),
        (KeyFamily.TIMESTAMPTZ, NOON_UTC, NOON_UTC),
        (KeyFamily.TIMESTAMPTZ, NOON_UTC.astimezone(timezone(timedelta(hours=5))), NOON_UTC),
        (KeyFamily.NUMERIC, Decimal("1.50"), Decimal("1.5")),
        (KeyFamily.NUMERIC, 10**40, Decimal(10**40)),
        (KeyFamily.BOOLEAN, True, True),
    ],
)
def test_a_value_of_the_family_comes_back_in_the_type_that_is_hashed(family, value, expected):
    result = key_value(family, value)

    assert (type(result), result) == (type(expected), expected)


class Text2(str):
    __slots__ = ()


class Moment(datetime):
    pass


class NoZone(tzinfo):
    def __repr__(self) -> str:  # a test's name must be the same in every process
        return "NoZone()"

    def utcoffset(self, moment):
        return None


@pytest.mark.parametrize(
    ("family", "value"),
    [
        (KeyFamily.INTEGER, True),
        (KeyFamily.INTEGER, 1.0),
        (KeyFamily.INTEGER, Decimal(1)),
        (KeyFamily.INTEGER, "1"),
        (KeyFamily.INTEGER, enum.IntEnum("Number", "ONE").ONE),
        (KeyFamily.INTEGER, None),
        (KeyFamily.TEXT, b"a"),
        (KeyFamily.TEXT, 1),
        (KeyFamily.TEXT, Text2("a")),
        (KeyFamily.TEXT, StringColor.RED),
        (KeyFamily.UUID, 5),
        (KeyFamily.UUID, "{" + str(AN_ID) + "}"),
        (KeyFamily.UUID, "not a uuid"),
        (KeyFamily.UUID, AN_ID.bytes),
        (KeyFamily.BYTES, "a"),
        (KeyFamily.BYTES, psycopg.Binary("a")),
        (KeyFamily.DATE, NOON),
        (KeyFamily.DATE, "2024-02-29"),
        (KeyFamily.TIMESTAMP, NOON_UTC),
        (KeyFamily.TIMESTAMP, date(2024, 2, 29)),
        (KeyFamily.TIMESTAMP, Moment(2024, 2, 29)),
        (KeyFamily.TIMESTAMP, NOON.replace(tzinfo=NoZone())),
        (KeyFamily.TIMESTAMPTZ, NOON.replace(tzinfo=NoZone())),
        (KeyFamily.TIMESTAMPTZ, NOON),
        (
            KeyFamily.TIMESTAMPTZ,
            datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        ),
        (KeyFamily.NUMERIC, 1.5),
        (KeyFamily.NUMERIC, True),
        (KeyFamily.NUMERIC, Decimal("NaN")),
        (KeyFamily.NUMERIC, Decimal("Infinity")),
        (KeyFamily.BOOLEAN, 1),
        (KeyFamily.BOOLEAN, "t"),
    ],
    ids=repr,
)
def test_a_value_of_another_type_is_not_of_the_family(family, value):
    with pytest.raises(NotOfFamily):
        key_value(family, value)


def test_a_moment_is_told_in_utc_so_that_one_moment_has_one_value():
    value = key_value(KeyFamily.TIMESTAMPTZ, NOON_UTC.astimezone(timezone(timedelta(hours=5))))

    assert value.tzinfo is timezone.utc


def test_the_refusal_does_not_show_the_value():
    with pytest.raises(NotOfFamily) as refusal:
        key_value(KeyFamily.INTEGER, "secret")

    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("scale", "value"),
    [
        (2, Decimal("1.23")),
        (2, Decimal("1.2300")),
        (2, Decimal("1E+30")),
        (2, Decimal("9" * 60 + ".25")),
        (0, 7),
        (0, Decimal("0.000")),
        (-2, Decimal(1200)),
    ],
)
def test_a_number_that_the_column_keeps_can_be_stored(scale, value):
    assert KeyType(KeyFamily.NUMERIC, scale=scale).stored_value(value) == value


@pytest.mark.parametrize(
    ("scale", "value"),
    [
        (2, Decimal("1.234")),
        (0, Decimal("0.5")),
        (2, Decimal("1E-999999")),
        (2, Decimal("9" * 60 + ".255")),
        (-2, Decimal(1250)),
    ],
)
def test_a_number_that_the_server_would_round_is_refused(scale, value):
    with pytest.raises(NotOfFamily):
        KeyType(KeyFamily.NUMERIC, scale=scale).stored_value(value)


def test_text_whose_trailing_blanks_the_server_would_drop_is_refused():
    with pytest.raises(NotOfFamily):
        KeyType(KeyFamily.TEXT, length=3).stored_value("abc ")


def test_text_that_fits_is_stored_as_it_is():
    assert KeyType(KeyFamily.TEXT, length=3).stored_value("ab ") == "ab "
