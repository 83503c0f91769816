from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from helpdesk import tickets, workspaces
from helpdesk.models import Comment, Label, Member, Ticket, Workspace
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

COMPANIES = ("acme", "bolt", "cargo", "delta", "ember", "fjord", "grove", "haven")


def open_all(session: Session) -> None:
    for day, company in enumerate(COMPANIES, start=1):
        workspaces.open_workspace(
            session,
            company,
            company.title(),
            plan="small",
            opened_on=date(2026, 1, day),
            owner=f"owner@{company}.example",
        )
    session.commit()


@pytest.fixture
def opened(session: Session) -> Session:
    open_all(session)
    return session


@pytest.fixture
def stored(database: Any) -> Iterator[Any]:
    """Workspaces that are really committed, and closed again."""
    with database.Session.begin() as session:
        open_all(session)
    yield database
    with database.Session.begin() as session:
        for company in COMPANIES:
            workspaces.close_workspace(session, company)


def test_an_owner_is_the_first_member(opened: Session) -> None:
    acme = opened.get_one(Workspace, "acme")

    assert [member.email for member in acme.members] == ["owner@acme.example"]


def test_an_id_is_taken_once(opened: Session) -> None:
    with pytest.raises(IntegrityError):
        workspaces.open_workspace(
            opened,
            "acme",
            "Another",
            plan="small",
            opened_on=date(2026, 2, 1),
            owner="x@acme.example",
        )


def test_an_email_is_taken_once_in_each_workspace(opened: Session) -> None:
    workspaces.invite(opened, "bolt", "owner@acme.example", "Owner")

    with pytest.raises(IntegrityError):
        workspaces.invite(opened, "acme", "owner@acme.example", "Again")


def test_a_plan_has_so_many_seats(opened: Session) -> None:
    workspaces.invite(opened, "acme", "two@acme.example", "Two")

    with pytest.raises(workspaces.NoSeatLeftError):
        workspaces.invite(opened, "acme", "three@acme.example", "Three")


def test_a_larger_plan_has_more_seats(opened: Session) -> None:
    workspaces.change_plan(opened, "acme", "large")
    for number in range(5):
        workspaces.invite(opened, "acme", f"{number}@acme.example", "Somebody")

    assert len(opened.get_one(Workspace, "acme").members) == 6


def test_settings_are_changed_in_place(opened: Session) -> None:
    workspaces.change_setting(opened, "acme", "language", "hi")
    opened.commit()

    query = select(Workspace.id).where(Workspace.settings["language"].as_string() == "hi")
    assert opened.scalars(query).all() == ["acme"]


def test_someone_is_found_in_all_of_their_workspaces(opened: Session) -> None:
    for company in ("haven", "acme", "delta"):
        workspaces.invite(opened, company, "ann@mail.example", "Ann")

    found = workspaces.workspaces_of(opened, "ann@mail.example")

    assert [workspace.id for workspace in found] == ["acme", "delta", "haven"]
    assert {workspace.plan.code for workspace in found} == {"small"}


def test_an_address_changes_in_all_workspaces_at_once(stored: Any) -> None:
    with stored.Session.begin() as session:
        for company in COMPANIES:
            workspaces.invite(session, company, "ann@mail.example", "Ann")

    with stored.Session.begin() as session:
        changed = workspaces.change_email(session, "ann@mail.example", "ann@new.example")

    with stored.Session() as session:
        assert changed == 8
        assert len(workspaces.workspaces_of(session, "ann@new.example")) == 8
        assert workspaces.workspaces_of(session, "ann@mail.example") == []


def test_what_fails_in_one_workspace_changes_none(stored: Any) -> None:
    with stored.Session.begin() as session:
        for company in COMPANIES:
            workspaces.invite(session, company, "ann@mail.example", "Ann")

    with pytest.raises(IntegrityError), stored.Session.begin() as session:
        workspaces.change_email(session, "ann@mail.example", "owner@acme.example")

    with stored.Session() as session:
        assert len(workspaces.workspaces_of(session, "ann@mail.example")) == 8


def test_a_closed_workspace_leaves_nothing(opened: Session) -> None:
    ticket = tickets.open_ticket(
        opened, "acme", "It smokes", opened_on=date(2026, 1, 2), labels=["fire"]
    )
    owner = opened.get_one(Workspace, "acme").members[0]
    tickets.answer(opened, ticket, owner, "Leave the house")
    opened.commit()

    workspaces.close_workspace(opened, "acme")
    opened.commit()

    assert opened.get(Workspace, "acme") is None
    for model in (Comment, Label, Ticket):
        assert opened.scalar(select(func.count()).select_from(model)) == 0
    assert opened.scalar(select(func.count(Member.id))) == 7


def test_announcements_come_newest_first(session: Session) -> None:
    workspaces.announce(session, "We are open")
    workspaces.announce(session, "We have labels")

    assert workspaces.announcements(session) == ["We have labels", "We are open"]


def test_a_member_is_found_by_id_alone(opened: Session) -> None:
    member = workspaces.invite(opened, "grove", "gil@grove.example", "Gil")
    id = member.id
    opened.expunge_all()

    assert opened.get_one(Member, id).workspace.title == "Grove"
