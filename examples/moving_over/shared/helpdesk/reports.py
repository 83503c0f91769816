"""Numbers: for a workspace's own pages, and for those who run the help desk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpdesk.models import Comment, Member, Plan, Status, Ticket, Workspace
from sqlalchemy import exists, func, select
from sqlalchemy.orm import aliased, joinedload, selectinload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from sqlalchemy.orm import Session


def tickets_by_status(session: Session, workspace_id: str) -> dict[Status, int]:
    rows = session.execute(
        select(Ticket.status, func.count().label("tickets"))
        .where(Ticket.workspace_id == workspace_id)
        .group_by(Ticket.status)
    )
    return {row.status: row.tickets for row in rows}


def busiest_members(session: Session, workspace_id: str, limit: int) -> list[tuple[str, int]]:
    """Who wrote most; those who wrote nothing are there, too."""
    written = func.count(Comment.id)
    rows = session.execute(
        select(Member.name, written)
        .outerjoin(
            Comment,
            (Comment.workspace_id == Member.workspace_id) & (Comment.author_id == Member.id),
        )
        .where(Member.workspace_id == workspace_id)
        .group_by(Member.id)
        .order_by(written.desc(), Member.name)
        .limit(limit)
    )
    return [(name, count) for name, count in rows]


def last_comments(session: Session, workspace_id: str) -> list[tuple[int, str]]:
    """The last comment of each ticket, by a window function."""
    rank = func.row_number().over(
        partition_by=Comment.ticket_number, order_by=Comment.written_at.desc()
    )
    ranked = (
        select(Comment, rank.label("rank")).where(Comment.workspace_id == workspace_id).subquery()
    )
    last = aliased(Comment, ranked)
    rows = session.scalars(select(last).where(ranked.c.rank == 1).order_by(last.ticket_number))
    return [(comment.ticket_number, comment.text) for comment in rows]


def totals(session: Session) -> dict[str, int]:
    """The whole help desk in numbers."""
    open_tickets = select(func.count()).select_from(Ticket).where(Ticket.is_open)
    return {
        "workspaces": session.scalar(select(func.count(Workspace.id))),
        "open tickets": session.scalar(open_tickets),
        "cents a month": session.scalar(
            select(func.sum(Plan.cents_a_month)).select_from(Workspace).join(Workspace.plan)
        ),
    }


def newest_workspaces(session: Session, limit: int) -> Sequence[Workspace]:
    return session.scalars(
        select(Workspace)
        .options(joinedload(Workspace.plan), selectinload(Workspace.members))
        .order_by(Workspace.opened_on.desc())
        .limit(limit)
    ).all()


def quiet_workspaces(session: Session, since: date) -> Sequence[Workspace]:
    """Workspaces without a ticket since a day."""
    ticket = exists().where(Ticket.workspace_id == Workspace.id, Ticket.opened_on >= since)
    return session.scalars(select(Workspace).where(~ticket).order_by(Workspace.opened_on)).all()


def urgent_tickets(session: Session, priority: int) -> Sequence[tuple[str, int, str]]:
    """The most urgent tickets of all workspaces, with the companies they belong to."""
    return session.execute(
        select(Workspace.title, Ticket.number, Ticket.subject)
        .join(Ticket.workspace)
        .where(Ticket.priority >= priority, Ticket.is_open)
        .order_by(Ticket.priority.desc(), Ticket.opened_on)
        .limit(10)
    ).all()


def every_ticket(session: Session) -> Iterator[Ticket]:
    """All tickets, for an export, a few at a time in memory."""
    query = select(Ticket).order_by(Ticket.opened_on).execution_options(yield_per=5)
    yield from session.scalars(query)
