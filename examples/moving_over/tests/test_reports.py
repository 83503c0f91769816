from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import pytest
from helpdesk import reports, tickets, workspaces
from helpdesk.models import Status, Workspace
from sqlalchemy import inspect

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

COMPANIES = ("acme", "bolt", "cargo", "delta", "ember", "fjord", "grove", "haven")
NEW_YEAR = date(2026, 1, 1)


@pytest.fixture(autouse=True)
def year(session: Session) -> None:
    """Eight workspaces, a month apart, of which each third has one ticket, two, or three."""
    for month, company in enumerate(COMPANIES, start=1):
        workspace = workspaces.open_workspace(
            session,
            company,
            company.title(),
            plan="large" if month % 2 else "small",
            opened_on=date(2026, month, 1),
            owner=f"owner@{company}.example",
        )
        for number in range(1, 2 + (month - 1) % 3):
            ticket = tickets.open_ticket(
                session,
                company,
                f"{company} {number}",
                opened_on=date(2026, month, 1) + timedelta(days=number),
            )
            ticket.priority = 10 * month + number
            tickets.answer(session, ticket, workspace.members[0], "Hello")
        tickets.answer(session, ticket, workspace.members[0], "Bye")
    session.commit()
    session.expunge_all()


def test_tickets_are_counted_by_status(session: Session) -> None:
    session.get_one(Workspace, "haven").tickets[0].status = Status.CLOSED
    session.flush()

    assert reports.tickets_by_status(session, "haven") == {Status.NEW: 1, Status.CLOSED: 1}


def test_the_busiest_come_first_and_the_idle_last(session: Session) -> None:
    workspaces.invite(session, "cargo", "idle@cargo.example", "Idle")

    assert reports.busiest_members(session, "cargo", 5) == [("owner", 4), ("Idle", 0)]


def test_the_last_comment_of_each_ticket(session: Session) -> None:
    assert reports.last_comments(session, "cargo") == [(1, "Hello"), (2, "Hello"), (3, "Bye")]


def test_the_whole_help_desk_in_numbers(session: Session) -> None:
    session.get_one(Workspace, "haven").tickets[0].status = Status.CLOSED

    assert reports.totals(session) == {
        "workspaces": 8,
        "open tickets": 14,
        "cents a month": 4 * 900 + 4 * 9900,
    }


def test_the_newest_workspaces(session: Session) -> None:
    newest = reports.newest_workspaces(session, 3)

    assert [workspace.id for workspace in newest] == ["haven", "grove", "fjord"]
    assert [workspace.plan.code for workspace in newest] == ["small", "large", "small"]
    assert not {"plan", "members"} & inspect(newest[0]).unloaded


def test_workspaces_that_became_quiet(session: Session) -> None:
    quiet = reports.quiet_workspaces(session, date(2026, 6, 1))

    assert [workspace.id for workspace in quiet] == ["acme", "bolt", "cargo", "delta", "ember"]


def test_the_most_urgent_tickets_of_all(session: Session) -> None:
    urgent = reports.urgent_tickets(session, 62)

    assert [tuple(row) for row in urgent] == [
        ("Haven", 2, "haven 2"),
        ("Haven", 1, "haven 1"),
        ("Grove", 1, "grove 1"),
        ("Fjord", 3, "fjord 3"),
        ("Fjord", 2, "fjord 2"),
    ]


def test_an_export_has_every_ticket_in_order(session: Session) -> None:
    days = [ticket.opened_on for ticket in reports.every_ticket(session)]

    assert len(days) == 15
    assert days == sorted(days)
