"""The tables of these tests. A key is the name of its shard."""

from __future__ import annotations

from uuid import UUID  # noqa: TC003  SQLAlchemy reads the annotations

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqlalchemy_shards import ShardKeyMixin


class Base(DeclarativeBase):
    pass


class Account(ShardKeyMixin, Base):
    """One on each shard."""

    __tablename__ = "account"
    __shard_key__ = "place"
    place: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]


class Pot(ShardKeyMixin, Base):
    """Money, and how often it was changed. Pot 0 of each shard is the counter of it."""

    __tablename__ = "pot"
    __shard_key__ = "place"
    place: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    money: Mapped[int]
    version: Mapped[int]


class Entry(ShardKeyMixin, Base):
    """What a transaction did to a pot, and as which version."""

    __tablename__ = "entry"
    __shard_key__ = "place"
    place: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    transaction: Mapped[UUID]
