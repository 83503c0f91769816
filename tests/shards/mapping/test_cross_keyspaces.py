"""Relationships between tables that are not co-located, for reading."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, String, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    foreign,
    immediateload,
    joinedload,
    lazyload,
    mapped_column,
    relationship,
    remote,
    selectinload,
)

from sqlalchemy_shards import HashPartitioner, Keyspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

USERS = range(1, 9)


def CLUSTER_OPTIONS() -> dict[str, Any]:  # noqa: N802 - read by the fixture
    keyspaces = {
        "default": Keyspace(HashPartitioner(buckets=64)),
        "places": Keyspace(HashPartitioner(buckets=16)),
    }
    return {"keyspaces": keyspaces}


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Place(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "places"
        __shard_key__ = "code"
        __keyspace__ = "places"
        code: Mapped[str] = mapped_column(String(8), primary_key=True)
        name: Mapped[str]

    class Flag(say.global_, Base):  # type: ignore[name-defined]
        __tablename__ = "flags"
        code: Mapped[str] = mapped_column(String(8), primary_key=True)
        text: Mapped[str]

    class User(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "users"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        place_code: Mapped[str] = mapped_column(String(8))
        friend_id: Mapped[int] = mapped_column(BigInteger)

    User.place = relationship(
        Place, primaryjoin=foreign(User.place_code) == Place.code, viewonly=True, uselist=False
    )
    User.flag = relationship(
        Flag, primaryjoin=foreign(User.place_code) == Flag.code, viewonly=True, uselist=False
    )
    User.friend = relationship(
        User,
        primaryjoin=foreign(User.friend_id) == remote(User.id),
        viewonly=True,
        uselist=False,
    )
    Place.users = relationship(
        User,
        primaryjoin=Place.code == foreign(User.place_code),
        viewonly=True,
        order_by=User.id,
    )
    return SimpleNamespace(metadata=Base.metadata, Place=Place, Flag=Flag, User=User)


@pytest.fixture
def towns(world: World) -> World:
    m = world.models
    with world.session() as session, session.begin():
        for code in "abcd":
            session.add_all([m.Place(code=code, name=f"place {code}"), m.Flag(code=code, text="f")])
        for number in USERS:
            friend = number % len(USERS) + 1
            session.add(m.User(id=number, place_code="abcd"[number % 4], friend_id=friend))
    return world


def _name(loader: Callable[..., Any]) -> str:
    return loader.__name__


reading = pytest.mark.parametrize("loader", [lazyload, selectinload, immediateload], ids=_name)


@reading
def test_a_parent_in_another_keyspace(towns: World, loader: Callable[..., Any]) -> None:
    m = towns.models
    with towns.session() as session:
        query = select(m.User).options(loader(m.User.place)).order_by(m.User.id)
        found = [user.place.name for user in session.scalars(query)]

    assert found == [f"place {'abcd'[number % 4]}" for number in USERS]


@reading
def test_children_in_another_keyspace(towns: World, loader: Callable[..., Any]) -> None:
    m = towns.models
    with towns.session() as session:
        query = select(m.Place).options(loader(m.Place.users))
        found = {place.code: [user.id for user in place.users] for place in session.scalars(query)}

    assert found == {"a": [4, 8], "b": [1, 5], "c": [2, 6], "d": [3, 7]}


@reading
def test_a_row_of_a_global_table(towns: World, loader: Callable[..., Any]) -> None:
    m = towns.models
    with towns.session() as session:
        query = select(m.User).options(loader(m.User.flag)).order_by(m.User.id)
        found = [user.flag.code for user in session.scalars(query)]

    assert found == ["abcd"[number % 4] for number in USERS]


@reading
def test_another_key_of_the_same_table(towns: World, loader: Callable[..., Any]) -> None:
    m = towns.models
    with towns.session() as session:
        query = select(m.User).options(loader(m.User.friend)).order_by(m.User.id)
        found = [user.friend.id for user in session.scalars(query)]

    assert found == [2, 3, 4, 5, 6, 7, 8, 1]


@pytest.mark.parametrize("name", ["place", "flag", "friend"])
def test_a_join_to_rows_elsewhere(towns: World, name: str) -> None:
    m = towns.models
    relation = getattr(m.User, name)
    other = aliased(relation.property.mapper.class_)
    with towns.session() as session:
        eager = session.scalars(
            select(m.User).options(joinedload(relation)).order_by(m.User.id)
        ).all()
        loaded = [getattr(user, name) is not None for user in eager]
        joined = session.scalars(
            select(m.User.id).join(relation.of_type(other)).order_by(m.User.id)
        ).all()

    assert loaded == [True] * len(USERS)
    assert joined == list(USERS)
