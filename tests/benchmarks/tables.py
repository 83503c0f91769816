"""The mapped classes: the same for a cluster, for SQLAlchemy alone and for `horizontal_shard`."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 (SQLAlchemy reads the annotation)

from sqlalchemy import BigInteger, DateTime, ForeignKey, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from sqlalchemy_shards import ShardKeyMixin


class Base(DeclarativeBase):
    pass


class Account(ShardKeyMixin, Base):
    """Read by key. A few columns, so that their loading hides nothing."""

    __tablename__ = "accounts"
    __shard_key__ = "id"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str]
    balance: Mapped[int]


class Entry(ShardKeyMixin, Base):
    """Flushed. Every value is the client's, so that an INSERT gives nothing back."""

    __tablename__ = "entries"
    __shard_key__ = "id"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str]
    amount: Mapped[int]


class StampedEntry(ShardKeyMixin, Base):
    """Flushed. The server makes a value, which SQLAlchemy fetches with RETURNING."""

    __tablename__ = "stamped_entries"
    __shard_key__ = "id"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str]
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Author(ShardKeyMixin, Base):
    """Planned, with its books: no row of either is ever read."""

    __tablename__ = "authors"
    __shard_key__ = "id"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str]
    country: Mapped[str]
    born: Mapped[int]
    books: Mapped[list[Book]] = relationship(back_populates="author")


class Book(ShardKeyMixin, Base):
    __tablename__ = "books"
    __shard_key__ = "author_id"

    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    pages: Mapped[int]
    printed: Mapped[int]
    author: Mapped[Author] = relationship(back_populates="books")


class ViewBase(DeclarativeBase):
    """Of what no `create_all` makes."""


class SlowRow(ShardKeyMixin, ViewBase):
    """A view: reading it takes each shard `SLOW_MILLISECONDS`, without using its processor."""

    __tablename__ = "slow_rows"
    __shard_key__ = "id"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str]


SLOW_MILLISECONDS = 3

# A filter without columns is asked first, and once: each reading sleeps, whatever it looks for.
CREATE_SLOW_ROWS = f"""
CREATE VIEW slow_rows AS
WITH slept AS MATERIALIZED (SELECT pg_sleep({SLOW_MILLISECONDS / 1000}))
SELECT id, name FROM accounts WHERE (SELECT count(*) FROM slept) = 1
"""
