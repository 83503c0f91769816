"""What is copied in reads back as what an insert would have stored, whatever its type."""

from __future__ import annotations

import enum
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    REAL,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Enum,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    Time,
    TypeDecorator,
    Uuid,
    cast,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import INET, INT4RANGE, JSONB, Range
from sqlalchemy.orm import DeclarativeBase, mapped_column

from sqlalchemy_shards import ShardedSession, ShardKeyMixin, create_cluster
from sqlalchemy_shards.errors import RowRefused, UnsupportedStatement
from tests.databases import ask, own_urls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"


class Shouted(TypeDecorator[str]):
    """Is stored in upper case."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.upper()


class Wrapped(TypeDecorator[str]):
    """Is stored by an expression of SQL."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.lower(bindvalue)


AWARE = datetime(2024, 2, 29, 23, 59, 59, 999999, timezone(timedelta(hours=5, minutes=30)))
VALUES: dict[str, tuple[Any, list[Any]]] = {
    "smallint": (SmallInteger, [-(2**15), 2**15 - 1, None]),
    "integer": (Integer, [-(2**31), 2**31 - 1, None]),
    "bigint": (BigInteger, [-(2**63), 2**63 - 1, None]),
    "boolean": (Boolean, [True, False, None]),
    "double": (Double, [1.5, float("inf"), 0.1]),
    "real": (REAL, [1.5, -2.25, None]),
    "numeric": (Numeric(30, 10), [Decimal("-1.0000000001"), Decimal("1e19"), 7]),
    "numeric_nan": (Numeric, [Decimal("NaN"), Decimal("0.00"), None]),
    "text": (Text, ["", "\\N", 'a,"b"\n\t\u00e9\U0001f600', None]),
    "varchar": (String(10), ["abc", "", None]),
    "bytes": (LargeBinary, [b"", b"\x00\xff", None]),
    "date": (Date, [date(1, 1, 1), date(9999, 12, 31), None]),
    "time": (Time, [time(23, 59, 59, 999999), time(0), None]),
    "timestamp": (DateTime, [datetime(1999, 12, 31, 23, 59), datetime.max, None]),
    "timestamptz": (DateTime(timezone=True), [AWARE, AWARE.astimezone(timezone.utc), None]),
    "interval": (Interval, [timedelta(days=-3, microseconds=1), timedelta(0), None]),
    "uuid": (Uuid, [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), None]),
    "uuid_text": (Uuid(as_uuid=False), [str(uuid.UUID(int=5)), None]),
    "native_enum": (Enum(Colour), [Colour.RED, Colour.GREEN, None]),
    "text_enum": (Enum(Colour, native_enum=False), [Colour.RED, None]),
    "json": (JSON, [{"a": [1, None]}, [], None, "text"]),
    "jsonb": (JSONB(none_as_null=True), [{"a": [1, None]}, 5, None]),
    "integers": (ARRAY(Integer), [[1, None, -5], [], None]),
    "texts": (ARRAY(Text), [["a", None, 'b,"'], [], None]),
    "nested": (ARRAY(BigInteger, dimensions=2), [[[1, 2], [3, 4]], None]),
    "colours": (ARRAY(Enum(Colour)), [[Colour.RED], None]),
    "range": (INT4RANGE, [Range(1, 5), Range(empty=True), None]),
    "inet": (INET, ["10.0.0.1", None]),
    "decorated": (Shouted, ["loud", None]),
}


class Base(DeclarativeBase):
    pass


class Everything(ShardKeyMixin, Base):
    """A column of each type; made by itself, as an array of enums would make its type twice."""

    __tablename__ = "everything"
    __shard_key__ = "id"
    id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    locals().update({name: mapped_column(type_) for name, (type_, _) in VALUES.items()})


class Defaulted(ShardKeyMixin, Base):
    __tablename__ = "defaulted"
    __shard_key__ = "id"
    id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    constant = mapped_column(Integer, default=7)
    called = mapped_column(Uuid, default=uuid.uuid4)
    seeing = mapped_column(
        String, default=lambda context: f"of {context.get_current_parameters()['id']}"
    )
    served = mapped_column(Integer, server_default="9")
    renamed = mapped_column("other_name", Shouted, default="quiet")


class Computing(ShardKeyMixin, Base):
    __tablename__ = "computing"
    __shard_key__ = "id"
    id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at = mapped_column(DateTime(timezone=True), default=func.now())


class Wrapping(ShardKeyMixin, Base):
    __tablename__ = "wrapping"
    __shard_key__ = "id"
    id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    text = mapped_column(Wrapped)


@pytest.fixture(scope="module")
def cluster(servers: PostgresServers) -> Iterator[Cluster]:
    with own_urls(servers, "copied_types", ["s0", "s1"]) as urls:
        cluster = create_cluster(urls, name="copied types")
        cluster.create_all(Base.metadata)
        yield cluster
        cluster.dispose()


@pytest.fixture
def session(cluster: Cluster) -> Iterator[ShardedSession]:
    with ShardedSession(cluster) as session:
        yield session


@pytest.mark.parametrize("name", VALUES)
def test_a_copied_value_is_that_which_an_insert_stores(
    cluster: Cluster, session: ShardedSession, name: str
) -> None:
    values = VALUES[name][1]
    inserted = [{"id": number, name: value} for number, value in enumerate(values)]
    session.execute(insert(Everything), inserted)
    session.copy_from(Everything, [{**row, "id": row["id"] + 100} for row in inserted])
    column: Any = getattr(Everything, name)
    query = select(column, cast(column, Text).label("as_text")).order_by(Everything.id)
    found = session.execute(query).all()

    assert list(map(repr, found[: len(values)])) == list(map(repr, found[len(values) :]))
    assert [type(row[0]) for row in found] == [type(row[0]) for row in found[: len(values)]] * 2


def test_numbers_of_all_columns_at_once(session: ShardedSession) -> None:
    binary = [name for name in VALUES if name not in ("real", "range", "inet")]
    rows = [{"id": 1, **{name: VALUES[name][1][0] for name in binary}}]
    session.copy_from(Everything, rows)
    found = session.scalars(select(Everything)).one()

    assert found.bigint == -(2**63)
    assert found.timestamptz == AWARE
    assert found.decorated == "LOUD"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("smallint", 2**15),
        ("integer", 2**31),
        ("integer", -(2**40)),
        ("bigint", 2**63),
        ("integer", 1.0),
        ("integer", "1"),
        ("text", 1),
        ("date", datetime(2024, 1, 1, 12)),
        ("time", time(12, tzinfo=timezone.utc)),
        ("timestamp", AWARE),
        ("timestamptz", datetime(2024, 1, 1)),
        ("numeric", 0.1),
        ("uuid", "not one"),
        ("double", "1"),
        ("bytes", "text"),
        ("native_enum", object()),
        ("boolean", "f"),
    ],
)
@pytest.mark.parametrize("beside", [True, False], ids=["beside a good one", "alone"])
def test_a_value_that_would_be_stored_as_another_is_refused(
    session: ShardedSession, name: str, value: Any, beside: bool
) -> None:
    good = [{"id": 1, name: None}] * beside
    with pytest.raises(RowRefused, match=f"^row {len(good) + 1}\\b") as raised:
        session.copy_from(Everything, [*good, {"id": 1, name: value}])

    assert repr(value) not in str(raised.value).removeprefix(f"row {len(good) + 1}")


def test_client_side_defaults_are_made_and_those_of_the_server_left_to_it(
    session: ShardedSession,
) -> None:
    session.copy_from(Defaulted, [{"id": 1}, {"id": 2}])
    session.copy_from(Defaulted.__table__, [{"id": 3, "constant": None}])
    one, two, three = session.scalars(select(Defaulted).order_by(Defaulted.id))

    assert [(each.constant, each.served, each.renamed) for each in (one, two, three)] == [
        (7, 9, "QUIET"),
        (7, 9, "QUIET"),
        (None, 9, "QUIET"),
    ]
    assert len({one.called, two.called, three.called}) == 3
    assert [each.seeing for each in (one, two, three)] == ["of 1", "of 2", "of 3"]


def test_columns_go_by_their_attributes_and_by_their_own_names(session: ShardedSession) -> None:
    session.copy_from(Defaulted, [{"id": 1, "renamed": "a"}])
    session.copy_from(Defaulted, [{"id": 2, "other_name": "b"}])

    found = session.scalars(select(Defaulted.renamed).order_by(Defaulted.id)).all()
    assert found == ["A", "B"]


def test_what_only_sql_computes_is_refused(session: ShardedSession) -> None:
    with pytest.raises(UnsupportedStatement, match="a default that SQL computes"):
        session.copy_from(Computing, [{"id": 1}])
    with pytest.raises(UnsupportedStatement, match="within an expression of SQL"):
        session.copy_from(Wrapping, [{"id": 1, "text": "a"}])


def test_a_column_whose_type_was_changed_is_written_as_what_it_is_now(
    cluster: Cluster, session: ShardedSession
) -> None:
    session.copy_from(Defaulted, [{"id": 1, "served": 5}])
    session.commit()
    for shard in cluster.shards.values():
        url = shard.engine.url.render_as_string(hide_password=False)
        ask(url, "ALTER TABLE defaulted ALTER COLUMN served TYPE float8")
    try:
        session.copy_from(Defaulted, [{"id": 2, "served": 5}])
        found = session.scalars(select(Defaulted.served)).all()
    finally:
        session.rollback()
        for shard in cluster.shards.values():
            url = shard.engine.url.render_as_string(hide_password=False)
            ask(url, "ALTER TABLE defaulted ALTER COLUMN served TYPE int; DELETE FROM defaulted")

    assert found == [5, 5]
