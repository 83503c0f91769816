"""Users, their posts, and the log of sign-ups, which is kept in a database beside the cluster."""

from __future__ import annotations

from datetime import date, datetime, timezone
from typing import Any
from uuid import UUID, uuid4

from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session as FlaskSession
from sqlalchemy import DateTime, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from sqlalchemy_shards import ShardedSession, ShardKeyMixin


class Base(DeclarativeBase):
    pass


class ClusterSession(ShardedSession, FlaskSession):
    """`db.session` of a cluster: it knows where its objects live, and it can explain."""

    def __init__(self, db: SQLAlchemy, **arguments: Any) -> None:
        super().__init__(db.engine.dialect.cluster, db=db, **arguments)


db = SQLAlchemy(model_class=Base, session_options={"class_": ClusterSession})


class User(ShardKeyMixin, db.Model):
    __shard_key__ = "username"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    username: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str]
    joined: Mapped[date]
    posts: Mapped[list[Post]] = relationship(
        back_populates="author", cascade="all, delete-orphan", order_by="Post.number"
    )


class Post(ShardKeyMixin, db.Model):
    __shard_key__ = "username"  # lives beside its author

    username: Mapped[str] = mapped_column(ForeignKey("user.username"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str]
    written: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), default=lambda: datetime.now(timezone.utc)
    )
    author: Mapped[User] = relationship(back_populates="posts")


class SignUp(db.Model):
    __bind_key__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
