"""Tables of every kind of distribution, with awkward rows, on a cluster and in one database.

`World` holds the same rows twice: spread over shards, and in one PostgreSQL. What a statement gives
on both is what the properties compare.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Date,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    Interval,
    Numeric,
    SmallInteger,
    String,
    Text,
    Uuid,
    create_engine,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    mapped_column,
    relationship,
)

from sqlalchemy_shards import (
    GlobalMixin,
    HashPartitioner,
    Keyspace,
    ListPartitioner,
    RangePartitioner,
    ReferenceMixin,
    ShardKeyMixin,
    create_cluster,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster


class Base(DeclarativeBase):
    pass


class Country(ReferenceMixin, Base):
    __tablename__ = "countries"
    code: Mapped[str] = mapped_column(String(2), primary_key=True)
    name: Mapped[str]
    rank: Mapped[int | None]


class Flag(GlobalMixin, Base):
    __tablename__ = "flags"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]


class User(ShardKeyMixin, Base):
    """Hashed by an integer; every kind of type that is ordered or summed."""

    __tablename__ = "users"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str | None] = mapped_column(Text)
    code: Mapped[str | None] = mapped_column(Text(collation="C"))
    small: Mapped[int | None] = mapped_column(SmallInteger)
    score: Mapped[int | None] = mapped_column(Integer)
    large: Mapped[int | None] = mapped_column(BigInteger)
    price: Mapped[Decimal | None] = mapped_column(Numeric)
    born: Mapped[date | None] = mapped_column(Date)
    seen: Mapped[datetime | None] = mapped_column(DateTime)
    token: Mapped[UUID | None] = mapped_column(Uuid)
    active: Mapped[bool | None]
    country_code: Mapped[str | None] = mapped_column(ForeignKey("countries.code"))
    country: Mapped[Country | None] = relationship()
    orders: Mapped[list[Order]] = relationship(back_populates="user", order_by="Order.id")


class Order(ShardKeyMixin, Base):
    """Beside its user."""

    __tablename__ = "orders"
    __shard_key__ = "user_id"
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str | None] = mapped_column(Text(collation="C"))
    amount: Mapped[int | None]
    user: Mapped[User] = relationship(back_populates="orders")


class Note(ShardKeyMixin, Base):
    """Its primary key does not hold its shard key."""

    __tablename__ = "notes"
    __shard_key__ = "user_id"
    __globally_unique__ = True
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    user_id: Mapped[int] = mapped_column(BigInteger)
    body: Mapped[str | None]


class Event(ShardKeyMixin, Base):
    """By ranges of an integer."""

    __tablename__ = "events"
    __shard_key__ = "year"
    __keyspace__ = "years"
    year: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str | None] = mapped_column(Text(collation="C"))


class Store(ShardKeyMixin, Base):
    """By a list of names."""

    __tablename__ = "stores"
    __shard_key__ = "region"
    __keyspace__ = "regions"
    region: Mapped[str] = mapped_column(String(10), primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int | None]


class Document(ShardKeyMixin, Base):
    """By two columns together: a text and a number."""

    __tablename__ = "documents"
    __shard_key__ = ("tenant", "weight")
    __keyspace__ = "pairs"
    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    weight: Mapped[Decimal] = mapped_column(Numeric, primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int | None]
    pages: Mapped[list[Page]] = relationship(back_populates="document", order_by="Page.number")


class Page(ShardKeyMixin, Base):
    """Beside its document."""

    __tablename__ = "pages"
    __shard_key__ = ("tenant", "weight")
    __keyspace__ = "pairs"
    tenant: Mapped[str] = mapped_column(Text, primary_key=True)
    weight: Mapped[Decimal] = mapped_column(Numeric, primary_key=True)
    document_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    document: Mapped[Document] = relationship(back_populates="pages")
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "weight", "document_id"],
            ["documents.tenant", "documents.weight", "documents.id"],
        ),
    )


class Sample(ShardKeyMixin, Base):
    """Values whose equality, order or digits Python has otherwise."""

    __tablename__ = "samples"
    __shard_key__ = "user_id"
    user_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ratio: Mapped[float | None] = mapped_column(Float(53))
    info: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    took: Mapped[timedelta | None] = mapped_column(Interval)
    at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    cost: Mapped[Decimal | None] = mapped_column(Numeric(12, 2))


class Vehicle(ShardKeyMixin, Base):
    """A hierarchy: one child in a table of its own, one in this."""

    __tablename__ = "vehicles"
    __shard_key__ = "owner_id"
    owner_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(Text(collation="C"))
    wheels: Mapped[int | None]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}


class Bike(Vehicle):
    gears: Mapped[int | None] = mapped_column()
    __mapper_args__ = {"polymorphic_identity": "bike"}


class Car(Vehicle):
    __tablename__ = "cars"
    owner_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seats: Mapped[int | None]
    __table_args__ = (
        ForeignKeyConstraint(["owner_id", "id"], ["vehicles.owner_id", "vehicles.id"]),
    )
    __mapper_args__ = {"polymorphic_identity": "car"}


User.order_count = column_property(
    select(func.count(Order.id))
    .where(Order.user_id == User.id)
    .correlate_except(Order)
    .scalar_subquery(),
    deferred=True,
)

SHARDED = (User, Order, Note, Event, Store, Document, Page, Sample, Vehicle)
USER_IDS = (*range(-3, 12), 2**40, -(2**40))
TENANTS = ("a", "A", "a ", "ä", "", "日本")
WEIGHTS = (Decimal("1"), Decimal("1.0"), Decimal("1.5"), Decimal("-2.50"), Decimal("0"))
REGIONS = ("north", "south", "West", "east ", "é")
RATIOS = (None, 0.5, 0.0, -0.0, float("nan"), 0.25, float("inf"), 0.5, -1.75)
INFOS = (None, {"a": 1}, {"b": [1, None]}, [], "text", {"a": 1}, {})
TAGS = (None, [], ["a"], ["a", "B"], ["b", None], ["a"])
MOMENT = datetime(2021, 3, 28, 0, 30, tzinfo=timezone.utc)
YEARS = (1899, 1900, 1950, 1999, 2000, 2001, -1, 3, 5, 7)


def keyspaces() -> dict[str, Keyspace]:
    """One of each kind of partitioner."""
    return {
        "default": Keyspace(HashPartitioner()),
        "years": Keyspace(RangePartitioner([1900, 1950, 2000])),
        "regions": Keyspace(
            ListPartitioner({"n": ["north"], "s": ["south"], "w": ["West", "é"], "e": ["east "]})
        ),
        # By both parts at once, so that rows of one tenant lie on several shards.
        "pairs": Keyspace(HashPartitioner(64)),
    }


def shards_cluster(urls: Mapping[str, str], **arguments: Any) -> Cluster:
    """A cluster with the keyspaces of these tables."""
    return create_cluster(dict(urls), name="world", keyspaces=keyspaces(), **arguments)


def rows() -> list[Any]:
    """Objects with NULLs, ties and values that are nearly alike; new ones at each call."""
    names = ("b", "B", "a", "ä", "Z", "_", "a ", None, "", "é")
    users = [
        User(
            id=id_,
            name=names[index % 10],
            code=names[(index * 3) % 10],
            small=None if index % 5 == 0 else index % 3 - 1,
            score=None if index % 7 == 0 else index % 4 - 2,
            large=(2**62) * (index % 3 - 1) if index % 4 else None,
            price=None if index % 6 == 0 else WEIGHTS[index % 5],
            born=None if index % 4 == 0 else date(2000, 1, 1) + timedelta(days=index % 3),
            seen=None if index % 3 == 0 else datetime(2020, 2, 29, 12, 0, 0, index % 2),
            token=None if index % 4 == 1 else UUID(int=(index % 5) << 120),
            active=(None, True, False)[index % 3],
            country_code=(None, "in", "de", "fr")[index % 4],
        )
        for index, id_ in enumerate(USER_IDS)
    ]
    orders = [
        Order(
            user_id=id_, id=number, name=names[(index + number) % 10], amount=(None, 1, -7)[number]
        )
        for index, id_ in enumerate(USER_IDS)
        for number in range(index % 4)
        if number < 3
    ]
    notes = [Note(id=100 + index, user_id=id_, body="n") for index, id_ in enumerate(USER_IDS[:9])]
    events = [
        Event(year=year, id=number, title=names[(year + number) % 10])
        for year in YEARS
        for number in range(3)
    ]
    stores = [
        Store(region=region, id=number, size=None if number == 1 else number % 2)
        for region in REGIONS
        for number in range(3)
    ]
    documents = [
        Document(tenant=tenant, weight=weight, id=number, size=number or None)
        for tenant in TENANTS
        for weight in (WEIGHTS[0], WEIGHTS[2], WEIGHTS[3])
        for number in range(2)
    ]
    pages = [
        Page(tenant=each.tenant, weight=each.weight, document_id=each.id, number=number)
        for index, each in enumerate(documents)
        for number in range(index % 3)
    ]
    samples = [
        Sample(
            user_id=id_,
            id=number,
            ratio=RATIOS[(index + number) % len(RATIOS)],
            info=INFOS[(index + number) % len(INFOS)],
            tags=TAGS[(index * 2 + number) % len(TAGS)],
            took=(None, timedelta(days=1), timedelta(hours=24), timedelta(seconds=-1))[index % 4],
            at=None if index % 5 == 3 else MOMENT + timedelta(hours=index % 3),
            cost=(None, Decimal("1.50"), Decimal("-2.00"), Decimal("10.00"))[(index + number) % 4],
        )
        for index, id_ in enumerate(USER_IDS)
        for number in range(index % 3)
    ]
    vehicles = [
        (Vehicle, Bike, Car)[index % 3](
            owner_id=id_,
            id=index,
            wheels=None if index % 4 == 0 else index % 3 + 2,
            **({}, {"gears": index % 2 or None}, {"seats": index % 4})[index % 3],
        )
        for index, id_ in enumerate(USER_IDS[:12])
    ]
    countries = [
        Country(code="in", name="India", rank=1),
        Country(code="de", name="Deutschland", rank=2),
        Country(code="fr", name="France", rank=None),
        Country(code="xx", name="Nowhere", rank=2),
    ]
    flags = [Flag(id=1, name="x"), Flag(id=2, name="y")]
    owned = [*orders, *notes, *samples, *vehicles]
    return [*countries, *flags, *users, *owned, *events, *stores, *documents, *pages]


@dataclass
class World:
    """The same rows on a cluster and in one database."""

    cluster: Cluster
    one: Engine

    def fill(self, *, only_cluster: bool = False) -> None:
        """Create tables and rows in both; or on the cluster, where the other one is filled."""
        self.cluster.create_all(Base.metadata)
        if not only_cluster:
            Base.metadata.create_all(self.one)
        for bind in (self.cluster.engine,) if only_cluster else (self.cluster.engine, self.one):
            with Session(bind) as session, session.begin():
                session.add_all(rows())
        for engine in (self.one, *(shard.engine for shard in self.cluster.shards.values())):
            _prepare_for_planning(engine)

    def shards_with(self, statement: Any) -> set[str]:
        """The shards whose own rows match a SELECT."""
        found = set()
        for name, shard in self.cluster.shards.items():
            with shard.engine.connect() as connection:
                if connection.execute(statement).first() is not None:
                    found.add(name)
        return found

    def contents(self, bind: Engine | None, model: type[Any]) -> Counter[tuple[Any, ...]]:
        """All rows of a table; of all shards together where ``bind`` is None."""
        engines = (
            [shard.engine for shard in self.cluster.shards.values()] if bind is None else [bind]
        )
        found: Counter[tuple[Any, ...]] = Counter()
        for engine in engines:
            with engine.connect() as connection:
                found.update(map(typed, connection.execute(select(model.__table__))))
        return found


@contextmanager
def filled_world(
    urls: Mapping[str, str], one_database_url: str, **arguments: Any
) -> Iterator[World]:
    """A world with its rows; connections are closed at the end, rows stay."""
    cluster = shards_cluster(urls, **arguments)
    one = create_engine(one_database_url)
    try:
        world = World(cluster, one)
        world.fill()
        yield world
    finally:
        cluster.dispose()
        one.dispose()


def _prepare_for_planning(engine: Engine) -> None:
    """Let PostgreSQL know how few rows there are, or it compiles its plans to machine code."""
    with engine.connect() as connection:
        name = connection.execute(select(func.current_database())).scalar_one()
        connection.execute(text(f'ALTER DATABASE "{name}" SET jit = off'))
        connection.execute(text("ANALYZE"))
        connection.commit()
    engine.dispose()


def typed(row: Any) -> tuple[Any, ...]:
    """A row whose equality tells 1 from True and 1.0 from 1.00."""
    return tuple(typed_value(value) for value in row)


def typed_value(value: Any) -> Any:
    """A value with its type; a mapped object as its loaded columns."""
    if isinstance(value, Base):
        loaded = {k: v for k, v in vars(value).items() if not k.startswith("_")}
        return type(value).__name__, tuple((k, typed_value(v)) for k, v in sorted(loaded.items()))
    if isinstance(value, (list, tuple)):
        return type(value).__name__, tuple(typed_value(each) for each in value)
    return type(value).__name__, str(value) if isinstance(value, (Decimal, float)) else value


def answer(bind: Any, run: Callable[[Any], Any]) -> list[tuple[Any, ...]]:
    """The rows that a function of a session gives, made comparable."""
    with Session(bind) as session:
        return [typed(row) for row in run(session)]
