"""Column types: decorators (also of the shard key), enums, JSON, arrays, ranges, bytes."""

from __future__ import annotations

import enum
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Enum,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    PickleType,
    String,
    TypeDecorator,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, DATERANGE, INET, INT4RANGE, JSONB, TSVECTOR, Range
from sqlalchemy.dialects.postgresql import ENUM as NATIVE_ENUM
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.schema import ForeignKey

from sqlalchemy_shards import ShardedSession, ShardKeyMixin
from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

NUMBERS = range(1, 9)


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Code(TypeDecorator[str]):
    """Text of the application, stored in capitals with a prefix."""

    impl = String(20)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else f"C-{value.upper()}"

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.removeprefix("C-").lower()


class Tenant:
    """A value object of the application."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tenant) and other.number == self.number

    def __hash__(self) -> int:
        return hash(self.number)


class TenantType(TypeDecorator[Tenant]):
    """Any object, stored as a number."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.number * 1000

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else Tenant(value // 1000)


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Coded(say.sharded, Base):  # type: ignore[name-defined]
        """The decorator makes the stored key, which decides the shard."""

        __tablename__ = "coded"
        __shard_key__ = "code"
        code: Mapped[str] = mapped_column(Code, primary_key=True)
        text: Mapped[str | None]
        parts: Mapped[list[Any]] = relationship("Part", order_by="Part.id")

    class Part(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "parts"
        __shard_key__ = "code"
        code: Mapped[str] = mapped_column(ForeignKey("coded.code"), type_=Code, primary_key=True)
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)

    class OfTenant(say.sharded, Base):  # type: ignore[name-defined]
        """The key is an object in Python, and not a part of the primary key."""

        __tablename__ = "of_tenant"
        __shard_key__ = "tenant"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        tenant: Mapped[Tenant] = mapped_column(TenantType)
        text: Mapped[str | None]

    class OfColor(say.sharded, Base):  # type: ignore[name-defined]
        """An enum that is stored as text may be a shard key."""

        __tablename__ = "of_color"
        __shard_key__ = "color"
        color: Mapped[Color] = mapped_column(
            Enum(Color, native_enum=False, length=10), primary_key=True
        )
        day: Mapped[date] = mapped_column(primary_key=True)

    class Everything(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "everything"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        native: Mapped[Color] = mapped_column(Enum(Color, name="color"))
        level: Mapped[str | None] = mapped_column(NATIVE_ENUM("low", "high", name="level"))
        data: Mapped[dict[str, Any]] = mapped_column(MutableDict.as_mutable(JSONB))
        plain_json: Mapped[Any] = mapped_column(JSON, default=list)
        numbers: Mapped[list[int]] = mapped_column(MutableList.as_mutable(ARRAY(Integer)))
        span: Mapped[Range[int]] = mapped_column(INT4RANGE)
        days: Mapped[Range[date] | None] = mapped_column(DATERANGE)
        length: Mapped[timedelta] = mapped_column(Interval)
        content: Mapped[bytes] = mapped_column(LargeBinary)
        pickled: Mapped[Any] = mapped_column(PickleType)
        price: Mapped[Decimal] = mapped_column(Numeric(12, 4))
        moment: Mapped[datetime] = mapped_column(DateTime(timezone=True))
        address: Mapped[Any] = mapped_column(INET, nullable=True)
        words: Mapped[Any] = mapped_column(TSVECTOR, nullable=True)

    names = (Coded, Part, OfTenant, OfColor, Everything)
    return SimpleNamespace(metadata=Base.metadata, **{each.__name__: each for each in names})


def everything(m: Any, number: int) -> Any:
    return m.Everything(
        id=number,
        native=Color.BLUE if number % 2 else Color.RED,
        level="low",
        data={"n": number, "list": [1, {"a": None}]},
        plain_json=[number, "x"],
        numbers=[number, 2],
        span=Range(number, number + 10),
        days=Range(date(2026, 1, 1), date(2026, 1, number + 1)),
        length=timedelta(days=number, seconds=1),
        content=bytes([0, number, 255]),
        pickled={"deep": (number,)},
        price=Decimal(number) / 3,
        moment=datetime(2026, 1, number, 12, tzinfo=timezone.utc),
        address="10.0.0.1",
        words="a cat",
    )


@pytest.fixture
def filled(world: World) -> World:
    with world.session() as session, session.begin():
        session.add_all(everything(world.models, number) for number in NUMBERS)
    return world


def test_values_of_every_type_come_back(filled: World) -> None:
    m = filled.models
    columns = [column.key for column in m.Everything.__table__.c]
    with filled.session() as session:
        found = session.scalars(select(m.Everything).order_by(m.Everything.id)).all()
        values = [{key: getattr(each, key) for key in columns} for each in found]

    third = values[2]
    assert [each["id"] for each in values] == list(NUMBERS)
    assert third["native"] is Color.BLUE
    assert third["data"] == {"n": 3, "list": [1, {"a": None}]}
    assert third["numbers"] == [3, 2]
    assert (third["span"], third["days"].upper) == (Range(3, 13), date(2026, 1, 4))
    assert third["length"] == timedelta(days=3, seconds=1)
    assert (third["content"], third["pickled"]) == (b"\0\x03\xff", {"deep": (3,)})
    assert third["price"] == Decimal("1.0000")
    assert third["moment"] == datetime(2026, 1, 3, 12, tzinfo=timezone.utc)
    assert third["words"] == "'a' 'cat'"


def test_values_that_change_in_place_are_written(filled: World) -> None:
    m = filled.models
    with filled.session() as session:
        for each in session.scalars(select(m.Everything)).all():
            each.data["more"] = each.id
            each.numbers.append(7)
        session.commit()
        found = [
            (each.data["more"], each.numbers[-1])
            for each in session.scalars(select(m.Everything).order_by(m.Everything.id))
        ]

    assert found == [(number, 7) for number in NUMBERS]


def test_operators_of_the_types(filled: World) -> None:
    e = filled.models.Everything
    conditions = [
        e.data["n"].as_integer() == 4,
        e.data.contains({"n": 4}),
        e.numbers.contains([4]),
        e.numbers[1] == 4,
        e.span.contains(4) & e.span.contains(13) & ~e.span.contains(3),
        e.length > timedelta(days=7, seconds=5),
        e.native == Color.RED,
        func.jsonb_array_length(e.data["list"]) == 2,
        e.moment == datetime(2026, 1, 4, 13, tzinfo=timezone(timedelta(hours=1))),
        e.price.between(1, 2),
    ]
    with filled.session() as session:
        found = [
            session.scalars(select(e.id).where(condition).order_by(e.id)).all()
            for condition in conditions
        ]

    every = list(NUMBERS)
    assert found == [[4], [4], [4], [4], [4], [8], [2, 4, 6, 8], every, [4], [3, 4, 5, 6]]


def test_updates_with_expressions_of_the_types(filled: World) -> None:
    e = filled.models.Everything
    with filled.session() as session:
        session.execute(
            update(e)
            .where(e.id.in_([1, 2, 3]))
            .values(numbers=func.array_append(e.numbers, 9), native=Color.RED)
        )
        session.commit()
        found = session.scalars(select(e.numbers).where(e.id == 2)).one()

    assert found == [2, 2, 9]
    assert len(filled.rows("SELECT * FROM everything WHERE native = 'RED'")) == 6


class TestKeysOfDecoratedTypes:
    def test_the_stored_value_decides(self, world: World) -> None:
        m = world.models
        codes = ["a", "b", "c", "d", "e", "f"]
        with world.session() as session:
            session.add_all(m.Coded(code=code, parts=[m.Part(id=1)]) for code in codes)
            session.commit()
            found = session.scalars(select(m.Coded.code).where(m.Coded.code.in_(["A", "f"]))).all()
            one = session.get(m.Coded, "c")
            one.text = "changed"
            session.flush()
            session.refresh(one)
            parts = [part.code for part in one.parts]
            session.delete(session.get(m.Part, ("d", 1)))
            session.commit()

        assert sorted(found) == ["a", "f"]
        assert parts == ["c"]
        assert world.rows("SELECT code FROM parts") == [
            (f"C-{code.upper()}",) for code in codes if code != "d"
        ]

    def test_a_key_that_is_an_object_in_python(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            rows = [m.OfTenant(tenant=Tenant(number)) for number in NUMBERS]
            session.add_all(rows)
            session.commit()
            for row in rows:
                row.text = "changed"
            session.commit()
            found = session.scalars(
                select(m.OfTenant).where(m.OfTenant.tenant == Tenant(5), m.OfTenant.text != "")
            ).one()
            session.delete(rows[7])
            session.commit()
            tenant = found.tenant

        assert tenant == Tenant(5)
        assert world.rows("SELECT tenant FROM of_tenant") == [(n * 1000,) for n in range(1, 8)]

    def test_an_enum_stored_as_text(self, world: World) -> None:
        m = world.models
        days = [date(2026, 1, day) for day in (1, 2)]
        with world.session() as session:
            session.add_all(m.OfColor(color=color, day=day) for color in Color for day in days)
            session.commit()
            red = session.scalars(
                select(m.OfColor.day).where(m.OfColor.color == Color.RED).order_by(m.OfColor.day)
            ).all()
            both = session.get(m.OfColor, (Color.BLUE, days[1]))

        assert red == days
        assert both.color is Color.BLUE

    def test_the_session_and_the_cluster_agree(self, mapping_worlds: dict[str, World]) -> None:
        world = mapping_worlds["four_shards"]
        m, cluster = world.models, world.cluster
        assert cluster is not None
        with world.session() as session:
            assert isinstance(session, ShardedSession)
            pairs = [
                (session.shard_of(m.Coded(code=code)), cluster.shard_for(m.Coded, code))
                for code in "abcdefgh"
            ] + [
                (
                    session.shard_of(m.OfTenant(tenant=Tenant(number))),
                    cluster.shard_for(m.OfTenant, Tenant(number)),
                )
                for number in NUMBERS
            ]

        assert all(one == other for one, other in pairs)
        assert len({one for one, _ in pairs}) > 1


def test_a_native_enum_is_no_shard_key() -> None:
    class Base(DeclarativeBase):
        pass

    class Row(ShardKeyMixin, Base):
        __tablename__ = "rows"
        __shard_key__ = "color"
        color: Mapped[Color] = mapped_column(Enum(Color), primary_key=True)

    with pytest.raises(ConfigurationError, match=r"shard key rows\.color has type Enum"):
        Base.registry.configure()
