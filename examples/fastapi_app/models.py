"""Accounts, each with its book: spread over the shards by their owner."""

from __future__ import annotations

from datetime import datetime, timezone
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from sqlalchemy_shards import ShardKeyMixin


class Base(DeclarativeBase):
    pass


class Account(ShardKeyMixin, Base):
    __tablename__ = "accounts"
    __table_args__ = (CheckConstraint("cents >= 0", name="no_debt"),)
    __shard_key__ = "owner"

    owner: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int] = mapped_column(BigInteger)
    entries: Mapped[list[Entry]] = relationship(order_by="Entry.booked_at.desc()")


class Entry(ShardKeyMixin, Base):
    """One line of an account's book. A transfer writes two, often on two shards."""

    __tablename__ = "entries"
    __shard_key__ = "owner"

    owner: Mapped[str] = mapped_column(ForeignKey("accounts.owner"), primary_key=True)
    transfer: Mapped[UUID] = mapped_column(primary_key=True)
    cents: Mapped[int] = mapped_column(BigInteger)
    booked_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), default=lambda: datetime.now(timezone.utc)
    )
