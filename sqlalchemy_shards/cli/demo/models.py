"""The demo's models: what an application writes, and all that it has to write about sharding."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from sqlalchemy_shards import ReferenceMixin, ShardKeyMixin


class Base(DeclarativeBase):
    """The base of the demo's models."""


class State(ReferenceMixin, Base):
    """A state or union territory: few rows, needed everywhere, so a full copy on every shard."""

    __tablename__ = "states"

    name: Mapped[str] = mapped_column(primary_key=True)


class PostOffice(ShardKeyMixin, Base):
    """A post office; all those of one PIN code live on one shard."""

    __tablename__ = "post_offices"
    __shard_key__ = "pincode"

    pincode: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    district: Mapped[str | None]
    state_name: Mapped[str | None] = mapped_column(ForeignKey("states.name"), index=True)
    latitude: Mapped[float | None]
    longitude: Mapped[float | None]

    state: Mapped[State | None] = relationship()


class Account(ShardKeyMixin, Base):
    """The account of all the post offices of one PIN code, on the same shard as they."""

    __tablename__ = "accounts"
    __shard_key__ = "pincode"

    pincode: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    rupees: Mapped[int]
