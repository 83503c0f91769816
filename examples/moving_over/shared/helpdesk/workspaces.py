"""Workspaces and their members."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helpdesk.models import Announcement, Member, Plan, Workspace
from sqlalchemy import func, select
from sqlalchemy.orm import joinedload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from sqlalchemy.orm import Session


class NoSeatLeftError(Exception):
    """The workspace's plan has no room for another member."""


def open_workspace(
    session: Session, id: str, title: str, *, plan: str, opened_on: date, owner: str
) -> Workspace:
    workspace = Workspace(id=id, title=title, opened_on=opened_on, plan=session.get_one(Plan, plan))
    workspace.members.append(Member(email=owner, name=owner.partition("@")[0]))
    session.add(workspace)
    session.flush()
    return workspace


def invite(session: Session, workspace_id: str, email: str, name: str) -> Member:
    # Two who invite at once wait for each other here.
    workspace = session.get_one(
        Workspace,
        workspace_id,
        options=[joinedload(Workspace.plan)],
        with_for_update={"of": Workspace},
    )
    taken = session.scalar(
        select(func.count()).select_from(Member).where(Member.workspace_id == workspace_id)
    )
    if taken >= workspace.plan.seats:
        raise NoSeatLeftError(workspace.title)
    member = Member(email=email, name=name)
    workspace.members.append(member)
    session.flush()
    return member


def change_plan(session: Session, workspace_id: str, code: str) -> None:
    session.get_one(Workspace, workspace_id).plan_code = code


def change_setting(session: Session, workspace_id: str, name: str, value: Any) -> None:
    workspace = session.get_one(Workspace, workspace_id)
    workspace.settings[name] = value


def close_workspace(session: Session, workspace_id: str) -> None:
    session.delete(session.get_one(Workspace, workspace_id))


def workspaces_of(session: Session, email: str) -> Sequence[Workspace]:
    """Where someone may sign in."""
    return session.scalars(
        select(Workspace)
        .join(Workspace.members)
        .where(Member.email == email)
        .options(joinedload(Workspace.plan))
        .order_by(Workspace.opened_on)
    ).all()


def change_email(session: Session, old: str, new: str) -> int:
    """Change someone's address in all of their workspaces."""
    members = session.scalars(select(Member).where(Member.email == old)).all()
    for member in members:
        member.email = new
    return len(members)


def announce(session: Session, text: str) -> Announcement:
    announcement = Announcement(text=text)
    session.add(announcement)
    session.flush()
    return announcement


def announcements(session: Session) -> Sequence[str]:
    return session.scalars(select(Announcement.text).order_by(Announcement.id.desc())).all()
