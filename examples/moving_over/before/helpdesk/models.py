"""The tables of a help desk: each company that uses it has a workspace of its own."""

from __future__ import annotations

import enum
from datetime import date, datetime, timezone
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    String,
    Table,
    UniqueConstraint,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Status(enum.Enum):
    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


class Announcement(Base):
    """What every member of every workspace reads."""

    __tablename__ = "announcements"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Plan(Base):
    """What a workspace pays for."""

    __tablename__ = "plans"

    code: Mapped[str] = mapped_column(primary_key=True)
    seats: Mapped[int]
    cents_a_month: Mapped[int]


class Workspace(Base):
    """A company; its id is the first part of its address, as in acme.helpdesk.example."""

    __tablename__ = "workspaces"

    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    opened_on: Mapped[date]
    plan_code: Mapped[str] = mapped_column(ForeignKey("plans.code"))
    settings: Mapped[dict[str, Any]] = mapped_column(MutableDict.as_mutable(JSONB), default=dict)

    plan: Mapped[Plan] = relationship()
    members: Mapped[list[Member]] = relationship(
        back_populates="workspace", cascade="all, delete-orphan", order_by="Member.email"
    )
    tickets: Mapped[list[Ticket]] = relationship(
        back_populates="workspace", cascade="all, delete-orphan", order_by="Ticket.number"
    )
    labels: Mapped[list[Label]] = relationship(cascade="all, delete-orphan", order_by="Label.name")


class Member(Base):
    """Someone who answers tickets in one workspace."""

    __tablename__ = "members"
    __table_args__ = (
        UniqueConstraint("workspace_id", "email"),
        UniqueConstraint("workspace_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    email: Mapped[str]
    name: Mapped[str]

    workspace: Mapped[Workspace] = relationship(back_populates="members")


ticket_labels = Table(
    "ticket_labels",
    Base.metadata,
    Column("workspace_id", String, primary_key=True),
    Column("ticket_number", Integer, primary_key=True),
    Column("label_name", String, primary_key=True),
    ForeignKeyConstraint(
        ["workspace_id", "ticket_number"], ["tickets.workspace_id", "tickets.number"]
    ),
    ForeignKeyConstraint(["workspace_id", "label_name"], ["labels.workspace_id", "labels.name"]),
)


class Label(Base):
    """What a workspace sorts its tickets by."""

    __tablename__ = "labels"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)


class Comment(Base):
    """One message in the conversation of a ticket."""

    __tablename__ = "comments"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "ticket_number"], ["tickets.workspace_id", "tickets.number"]
        ),
        ForeignKeyConstraint(["workspace_id", "author_id"], ["members.workspace_id", "members.id"]),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    workspace_id: Mapped[str]
    ticket_number: Mapped[int]
    author_id: Mapped[UUID]
    text: Mapped[str]
    written_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), default=lambda: datetime.now(timezone.utc)
    )

    ticket: Mapped[Ticket] = relationship(back_populates="comments")
    author: Mapped[Member] = relationship(
        primaryjoin="and_(Comment.workspace_id == Member.workspace_id, "
        "foreign(Comment.author_id) == Member.id)"
    )


class Ticket(Base):
    """A question of a customer; workspaces number theirs from 1."""

    __tablename__ = "tickets"
    __table_args__ = (
        ForeignKeyConstraint(
            ["workspace_id", "assignee_id"], ["members.workspace_id", "members.id"]
        ),
    )

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    subject: Mapped[str]
    status: Mapped[Status] = mapped_column(default=Status.NEW)
    priority: Mapped[int] = mapped_column(default=0)
    opened_on: Mapped[date]
    assignee_id: Mapped[UUID | None]
    version: Mapped[int] = mapped_column()
    comment_count = column_property(
        select(func.count(Comment.id))
        .where(Comment.workspace_id == workspace_id, Comment.ticket_number == number)
        .correlate_except(Comment)
        .scalar_subquery()
    )

    workspace: Mapped[Workspace] = relationship(back_populates="tickets")
    assignee: Mapped[Member | None] = relationship(
        primaryjoin="and_(Ticket.workspace_id == Member.workspace_id, "
        "foreign(Ticket.assignee_id) == Member.id)"
    )
    comments: Mapped[list[Comment]] = relationship(
        back_populates="ticket", cascade="all, delete-orphan", order_by="Comment.written_at"
    )
    labels: Mapped[list[Label]] = relationship(secondary=ticket_labels, order_by="Label.name")

    __mapper_args__ = {"version_id_col": version}

    @hybrid_property
    def is_open(self) -> Any:
        return self.status != Status.CLOSED
