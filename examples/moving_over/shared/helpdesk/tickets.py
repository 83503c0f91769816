"""Tickets: opening, reading, answering and closing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpdesk.models import Comment, Label, Status, Ticket
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import contains_eager, joinedload, selectinload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from helpdesk.models import Member
    from sqlalchemy.orm import Session


@dataclass(frozen=True)
class Page:
    tickets: Sequence[Ticket]
    total: int


def open_ticket(
    session: Session,
    workspace_id: str,
    subject: str,
    *,
    opened_on: date,
    labels: Sequence[str] = (),
) -> Ticket:
    last = session.scalar(
        select(func.coalesce(func.max(Ticket.number), 0)).where(Ticket.workspace_id == workspace_id)
    )
    ticket = Ticket(
        workspace_id=workspace_id, number=last + 1, subject=subject, opened_on=opened_on
    )
    session.add(ticket)
    for name in labels:
        put_label(session, ticket, name)
    session.flush()
    return ticket


def put_label(session: Session, ticket: Ticket, name: str) -> None:
    """Put a label on a ticket; a label that is not there yet is made."""
    session.execute(
        insert(Label).values(workspace_id=ticket.workspace_id, name=name).on_conflict_do_nothing()
    )
    ticket.labels.append(session.get_one(Label, (ticket.workspace_id, name)))


def read_ticket(session: Session, workspace_id: str, number: int) -> Ticket:
    """A ticket with all that its page shows, in as few statements as can be."""
    return session.scalars(
        select(Ticket)
        .where(Ticket.workspace_id == workspace_id, Ticket.number == number)
        .options(
            joinedload(Ticket.assignee),
            selectinload(Ticket.labels),
            selectinload(Ticket.comments).joinedload(Comment.author),
        )
    ).one()


def tickets_page(
    session: Session,
    workspace_id: str,
    *,
    page: int = 1,
    size: int = 10,
    label: str | None = None,
    text: str | None = None,
) -> Page:
    """Open tickets, the most urgent first."""
    query = select(Ticket).where(Ticket.workspace_id == workspace_id, Ticket.is_open)
    if label is not None:
        query = query.where(Ticket.labels.any(Label.name == label))
    if text is not None:
        query = query.where(Ticket.subject.icontains(text, autoescape=True))
    total = session.scalar(select(func.count()).select_from(query.subquery()))
    query = query.order_by(Ticket.priority.desc(), Ticket.number)
    query = query.limit(size).offset((page - 1) * size).options(selectinload(Ticket.labels))
    return Page(session.scalars(query).all(), total)


def waiting_for(session: Session, member: Member) -> Sequence[Ticket]:
    """The open tickets of a member."""
    return session.scalars(
        select(Ticket)
        .join(Ticket.assignee)
        .options(contains_eager(Ticket.assignee))
        .where(Ticket.assignee_id == member.id, Ticket.is_open)
        .order_by(Ticket.opened_on)
    ).all()


def assign(session: Session, ticket: Ticket, member: Member | None) -> None:
    ticket.assignee = member
    ticket.status = Status.OPEN
    session.flush()


def answer(session: Session, ticket: Ticket, author: Member, text: str) -> Comment:
    comment = Comment(author=author, text=text)
    ticket.comments.append(comment)
    session.flush()
    return comment


def close_older_than(session: Session, workspace_id: str, day: date) -> int:
    """Close what nobody has touched; tells how many tickets were closed."""
    closed = session.execute(
        update(Ticket)
        .where(
            Ticket.workspace_id == workspace_id,
            Ticket.opened_on < day,
            Ticket.is_open,
            ~Ticket.comments.any(),
        )
        .values(status=Status.CLOSED, version=Ticket.version + 1)
        .returning(Ticket.workspace_id, Ticket.number)
    )
    return len(closed.all())


def forget_comments_of(session: Session, member: Member) -> int:
    """Delete what a member wrote, as the law may ask for."""
    return session.execute(
        delete(Comment).where(
            Comment.workspace_id == member.workspace_id, Comment.author_id == member.id
        )
    ).rowcount
