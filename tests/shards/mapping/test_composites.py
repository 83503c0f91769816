"""Keys of several columns, and several columns as one attribute."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, ForeignKeyConstraint, String, and_, delete, func, select, tuple_
from sqlalchemy import update as update_
from sqlalchemy.ext.mutable import MutableComposite
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    composite,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
)

from sqlalchemy_shards import ShardKeyMixin
from sqlalchemy_shards.errors import ConfigurationError, ShardKeyChanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

PLACES = [(region, number) for region in ("east", "west") for number in range(1, 7)]


@dataclass(frozen=True)
class Address:
    region: str
    number: int


@dataclass
class Point(MutableComposite):
    x: int
    y: int

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        self.changed()


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Shop(say.sharded, Base):  # type: ignore[name-defined]
        """The shard key has two columns, and is the whole primary key."""

        __tablename__ = "shops"
        __shard_key__ = ("region", "number")
        region: Mapped[str] = mapped_column(String(8), primary_key=True)
        number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        name: Mapped[str]
        x: Mapped[int]
        y: Mapped[int]
        address: Mapped[Address] = composite("region", "number")
        place: Mapped[Point] = composite("x", "y")
        sales: Mapped[list[Any]] = relationship(
            "Sale", back_populates="shop", cascade="all, delete-orphan", order_by="Sale.id"
        )

    class Sale(say.sharded, Base):  # type: ignore[name-defined]
        """A primary key of three columns; other names of the same key."""

        __tablename__ = "sales"
        __shard_key__ = ("shop_region", "shop_number")
        __table_args__ = (
            ForeignKeyConstraint(["shop_region", "shop_number"], ["shops.region", "shops.number"]),
        )
        shop_region: Mapped[str] = mapped_column(String(8), primary_key=True)
        shop_number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        amount: Mapped[int]
        shop: Mapped[Shop] = relationship(back_populates="sales")

    class Parcel(say.sharded, Base):  # type: ignore[name-defined]
        """The shard key stands in a composite attribute alone, and is a part of the key."""

        __tablename__ = "parcels"
        __shard_key__ = "_region"
        address: Mapped[Address] = composite(
            mapped_column("_region", String(8), primary_key=True),
            mapped_column("_number", BigInteger, primary_key=True, autoincrement=False),
        )
        weight: Mapped[int]

    return SimpleNamespace(metadata=Base.metadata, Shop=Shop, Sale=Sale, Parcel=Parcel)


@pytest.fixture
def shops(world: World) -> World:
    m = world.models
    with world.session() as session, session.begin():
        for region, number in PLACES:
            sales = [m.Sale(id=each, amount=each) for each in (1, 2)]
            session.add(
                m.Shop(
                    address=Address(region, number),
                    name=f"{region} {number}",
                    place=Point(number, 0),
                    sales=sales,
                )
            )
    return world


@pytest.mark.parametrize("loader", [joinedload, selectinload, subqueryload])
def test_collections_over_a_key_of_two_columns(shops: World, loader: Callable[..., Any]) -> None:
    m = shops.models
    with shops.session() as session:
        found = session.scalars(
            select(m.Shop).options(loader(m.Shop.sales)).order_by(m.Shop.number, m.Shop.x)
        ).unique()
        seen = sorted((each.address.region, each.number, len(each.sales)) for each in found)

    assert seen == [(region, number, 2) for region, number in PLACES]


def test_rows_are_found_by_the_whole_key_and_by_a_part(shops: World) -> None:
    m = shops.models
    with shops.session() as session:
        one = session.get(m.Shop, ("west", 5)).name
        sale = session.get(m.Sale, {"shop_region": "east", "shop_number": 3, "id": 2}).shop.name
        part = session.scalars(
            select(m.Shop.number).where(m.Shop.region == "east").order_by(m.Shop.number)
        ).all()
        several = session.scalars(
            select(m.Shop.name).where(
                tuple_(m.Shop.region, m.Shop.number).in_([("east", 1), ("west", 2), ("x", 1)])
            )
        ).all()

    assert (one, sale) == ("west 5", "east 3")
    assert part == [1, 2, 3, 4, 5, 6]
    assert sorted(several) == ["east 1", "west 2"]


def test_comparisons_with_a_composite_attribute(shops: World) -> None:
    m = shops.models
    with shops.session() as session:
        one = session.scalars(select(m.Shop).where(m.Shop.address == Address("east", 4))).one()
        other = session.scalars(select(m.Shop.name).where(m.Shop.place == Point(6, 0))).all()
        bundle = session.execute(
            select(m.Shop.address, m.Shop.name).where(m.Shop.address == Address("west", 1))
        ).one()

    assert one.name == "east 4"
    assert sorted(other) == ["east 6", "west 6"]
    assert bundle == (Address("west", 1), "west 1")


def test_a_composite_key_names_one_shard(mapping_worlds: dict[str, World]) -> None:
    world = mapping_worlds["four_shards"]
    assert world.cluster is not None
    statement = select(world.models.Shop).where(world.models.Shop.address == Address("east", 4))

    explained = world.cluster.explain(statement)

    assert len(explained.shards) == 1


def test_a_mutable_composite_is_written_when_it_changes(shops: World) -> None:
    m = shops.models
    with shops.session() as session:
        for shop in session.scalars(select(m.Shop)).all():
            shop.place.y = shop.number
        session.commit()
        again = session.scalars(select(m.Shop).where(m.Shop.x == 2)).all()
        session.expire_all()
        places = [(shop.place.x, shop.place.y) for shop in again]
        session.execute(
            update_(m.Shop)
            .where(m.Shop.address == Address("east", 1))
            .values({m.Shop.place: Point(8, 9)})
        )
        changed = session.execute(
            select(m.Shop.x, m.Shop.y).where(m.Shop.address == Address("east", 1))
        ).one()

    assert places == [(2, 2)] * 2
    assert changed == (8, 9)


def test_children_are_deleted_by_the_whole_key(shops: World) -> None:
    m = shops.models
    with shops.session() as session:
        session.delete(session.get(m.Shop, ("east", 2)))
        shop = session.get(m.Shop, ("west", 2))
        shop.sales.pop()
        session.flush()
        deleted = session.execute(
            delete(m.Sale).where(and_(m.Sale.shop_region == "west", m.Sale.shop_number == 6))
        ).rowcount
        session.commit()

    assert deleted == 2
    assert len(shops.rows("SELECT * FROM sales")) == 24 - 2 - 1 - 2


def test_the_shard_key_inside_a_composite_attribute(world: World) -> None:
    m = world.models
    with world.session() as session:
        session.add_all(m.Parcel(address=Address(f"r{n}", n), weight=n) for n in range(8))
        session.commit()
        parcel = session.scalars(select(m.Parcel).where(m.Parcel.address == Address("r3", 3))).one()
        parcel.weight = 100
        session.flush()
        session.expire(parcel)
        weight = parcel.weight
        session.delete(session.get(m.Parcel, ("r4", 4)))
        session.commit()
        count = session.scalar(select(func.count()).select_from(m.Parcel))

    assert (weight, count) == (100, 7)


def test_a_composite_that_holds_the_shard_key_is_not_replaced(
    mapping_worlds: dict[str, World],
) -> None:
    world = mapping_worlds["four_shards"]
    with world.session() as session:
        parcel = world.models.Parcel(address=Address("r1", 1), weight=1)
        session.add(parcel)
        session.flush()
        parcel.address = Address("r2", 1)

        with pytest.raises(ShardKeyChanged):
            session.flush()


def test_the_composite_itself_is_no_shard_key() -> None:
    class Base(DeclarativeBase):
        pass

    with pytest.raises(ConfigurationError, match="'address' is not a plain column"):

        class Parcel(ShardKeyMixin, Base):
            __tablename__ = "parcels"
            __shard_key__ = "address"
            address: Mapped[Address] = composite(
                mapped_column("region", String(8), primary_key=True),
                mapped_column("number", BigInteger, primary_key=True),
            )
