"""An application that declares its tables one by one, with `undeclared="global"`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import BigInteger, ForeignKey, String, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from sqlalchemy_shards import ShardedSession, ShardKeyMixin, create_cluster
from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy_shards import Cluster


class Base(DeclarativeBase):
    pass


class Owner(ShardKeyMixin, Base):
    __tablename__ = "owners"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    email: Mapped[str] = mapped_column(String, unique=True, info={"per_shard": True})
    pets: Mapped[list[Pet]] = relationship(back_populates="owner")


class Pet(Base):
    """Says nothing yet, and counts by itself."""

    __tablename__ = "pets"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("owners.id"))
    owner: Mapped[Owner] = relationship(back_populates="pets")


@pytest.fixture
def clusters(clean_shards: Mapping[str, str]) -> Iterator[dict[str, Cluster]]:
    """A cluster of one shard, and one of all shards, of which the first is the same database."""
    one = create_cluster({"s0": clean_shards["s0"]}, undeclared="global")
    all_ = create_cluster(clean_shards, undeclared="global")
    yield {"one": one, "all": all_}
    one.dispose()
    all_.dispose()


def test_one_shard_keeps_what_refers_to_a_declared_table(clusters: dict[str, Cluster]) -> None:
    clusters["one"].create_all(Base.metadata)
    with ShardedSession(clusters["one"]) as session, session.begin():
        session.add(Owner(id=1, email="a@example.com", pets=[Pet(), Pet()]))

    with ShardedSession(clusters["one"]) as session:
        pets = session.scalars(select(Pet).join(Pet.owner).order_by(Pet.id)).all()
        assert [pet.id for pet in pets] == [1, 2]


def test_several_shards_refuse_it_before_a_table_is_created(clusters: dict[str, Cluster]) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        clusters["all"].create_all(Base.metadata)

    (fault,) = refusal.value.faults
    assert fault.startswith(
        "foreign key (owner_id) of 'pets' to 'owners' cannot be checked within a shard: 'owners' "
        "is sharded, so that no shard has all of its rows, and 'pets' is a global table"
    )
