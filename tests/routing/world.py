"""Tables under partitioners of every kind, over six shards, so laid out that a reader can tell
where each row is.

| keyspace | rows |
|---|---|
| default | by a hash of an integer, on all shards; 77 is pinned to s5 |
| years | below 1900 s0, to 1949 s1, to 1999 s2, from 2000 s3; 1970 is pinned to s4, 2020 to s0 |
| regions | north and arctic s1, south s2, any other s4 |
| plots | north: below 10 s0, to 19 s1, from 20 s2; south: s3, s4, s5; ("north", 15) pinned to s5 |
| pairs | by a hash of two integers together, on all shards |
| codes | by a hash of what stands before the "-" of a text, on all shards |
| parities | even numbers s0, odd ones s3: a list of the remainders |
| words | by text in the order of bytes: before "h" s1, before "p" s2, from "p" s3 |
| none | global tables are on s5 |
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Table,
    Text,
    func,
    select,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    column_property,
    mapped_column,
    query_expression,
    relationship,
)

from sqlalchemy_shards import (
    CompositePartitioner,
    GeneratedId,
    GlobalMixin,
    HashPartitioner,
    Keyspace,
    ListPartitioner,
    RangePartitioner,
    ReferenceMixin,
    ShardKeyMixin,
    shard_table,
)
from sqlalchemy_shards.routing.router import Territory
from sqlalchemy_shards.topology.generated_id import FIRST_MILLISECOND, IdParts, id_of
from sqlalchemy_shards.topology.shard_map import ShardMap

SHARDS = ("s0", "s1", "s2", "s3", "s4", "s5")
GLOBAL_SHARD = "s5"


class Base(DeclarativeBase):
    pass


class Country(ReferenceMixin, Base):
    __tablename__ = "countries"
    code: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    rank: Mapped[int | None]
    name: Mapped[str]


class Setting(GlobalMixin, Base):
    __tablename__ = "settings"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Label(ReferenceMixin, Base):
    __tablename__ = "labels"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


user_labels = shard_table(
    Table(
        "user_labels",
        Base.metadata,
        Column("user_id", ForeignKey("users.id"), primary_key=True),
        Column("label_id", ForeignKey("labels.id"), primary_key=True),
    ),
    key="user_id",
)


class User(ShardKeyMixin, Base):
    __tablename__ = "users"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str | None]
    score: Mapped[int | None]
    country_code: Mapped[int | None] = mapped_column(ForeignKey("countries.code"))
    country: Mapped[Country | None] = relationship()
    orders: Mapped[list[Order]] = relationship(back_populates="user")
    labels: Mapped[list[Label]] = relationship(secondary=user_labels)
    extra: Mapped[int | None] = query_expression()

    @hybrid_property
    def number(self) -> int:
        return self.id


class Order(ShardKeyMixin, Base):
    __tablename__ = "orders"
    __shard_key__ = "user_id"
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    amount: Mapped[int | None]
    user: Mapped[User] = relationship(back_populates="orders")
    items: Mapped[list[Item]] = relationship(back_populates="order")


class Item(ShardKeyMixin, Base):
    __tablename__ = "items"
    __shard_key__ = "user_id"
    __table_args__ = (
        ForeignKeyConstraint(["user_id", "order_id"], ["orders.user_id", "orders.id"]),
    )
    user_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    order_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    order: Mapped[Order] = relationship(back_populates="items")


class Event(ShardKeyMixin, Base):
    __tablename__ = "events"
    __shard_key__ = "year"
    __keyspace__ = "years"
    year: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str | None]


class Ticket(ShardKeyMixin, Base):
    """Its id carries the bucket of its year: 0, 1, 2 or 3."""

    __tablename__ = "tickets"
    __shard_key__ = "year"
    __keyspace__ = "years"
    id: Mapped[int] = mapped_column(GeneratedId, primary_key=True, autoincrement=False)
    year: Mapped[int]
    seat: Mapped[int | None]


class Store(ShardKeyMixin, Base):
    __tablename__ = "stores"
    __shard_key__ = "region"
    __keyspace__ = "regions"
    region: Mapped[str] = mapped_column(Text, primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int | None]


class Plot(ShardKeyMixin, Base):
    __tablename__ = "plots"
    __shard_key__ = ("region", "number")
    __keyspace__ = "plots"
    region: Mapped[str] = mapped_column(Text, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int | None]
    visits: Mapped[list[Visit]] = relationship(back_populates="plot")


class Visit(ShardKeyMixin, Base):
    __tablename__ = "visits"
    __shard_key__ = ("region", "number")
    __keyspace__ = "plots"
    __table_args__ = (ForeignKeyConstraint(["region", "number"], ["plots.region", "plots.number"]),)
    region: Mapped[str] = mapped_column(Text, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    plot: Mapped[Plot] = relationship(back_populates="visits")


class Pair(ShardKeyMixin, Base):
    __tablename__ = "pairs"
    __shard_key__ = ("left", "right")
    __keyspace__ = "pairs"
    left: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    right: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Invoice(ShardKeyMixin, Base):
    __tablename__ = "invoices"
    __shard_key__ = "code"
    __keyspace__ = "codes"
    code: Mapped[str] = mapped_column(Text, primary_key=True)
    total: Mapped[int | None]


class Parcel(ShardKeyMixin, Base):
    __tablename__ = "parcels"
    __shard_key__ = "number"
    __keyspace__ = "parities"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    weight: Mapped[int | None]


class Word(ShardKeyMixin, Base):
    __tablename__ = "words"
    __shard_key__ = "text"
    __keyspace__ = "words"
    text: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    count: Mapped[int | None]


User.order_count = column_property(
    select(func.count(Order.id))
    .where(Order.user_id == User.id)
    .correlate_except(Order)
    .scalar_subquery(),
    deferred=True,
)


def before_the_dash(code: str) -> str:
    """What stands before the "-"."""
    return code.partition("-")[0]


def parity(number: int) -> int:
    """0 for even numbers, 1 for odd ones."""
    return number % 2


def keyspaces() -> dict[str, Keyspace]:
    """As the table above says."""
    return {
        "default": Keyspace(HashPartitioner(64), pins={77: "s5"}),
        "years": Keyspace(
            RangePartitioner([1900, 1950, 2000]),
            placement={0: "s0", 1: "s1", 2: "s2", 3: "s3"},
            pins={1970: "s4", 2020: "s0"},
        ),
        "regions": Keyspace(
            ListPartitioner({"n": ["north", "arctic"], "s": ["south"]}, default="other"),
            placement={"n": "s1", "s": "s2", "other": "s4"},
        ),
        "plots": Keyspace(
            CompositePartitioner(
                ListPartitioner({"n": ["north"], "s": ["south"]}), RangePartitioner([10, 20])
            ),
            placement=dict(enumerate(SHARDS)),
            pins={("north", 15): "s5"},
        ),
        "pairs": Keyspace(HashPartitioner(64)),
        "codes": Keyspace(HashPartitioner(64, transform=before_the_dash)),
        "parities": Keyspace(
            ListPartitioner({"even": [0], "odd": [1]}, transform=parity),
            placement={"even": "s0", "odd": "s3"},
        ),
        "words": Keyspace(RangePartitioner(["h", "p"]), placement={0: "s1", 1: "s2", 2: "s3"}),
    }


def territory() -> Territory:
    """The six shards."""
    return Territory(SHARDS, ShardMap.build(keyspaces(), SHARDS), GLOBAL_SHARD)


def id_in(bucket: int) -> int:
    """A generated id that carries a bucket."""
    return id_of(IdParts(FIRST_MILLISECOND, bucket, 0, 0))
