from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest
from helpdesk import tickets, workspaces
from helpdesk.models import Comment, Status, Ticket
from sqlalchemy import inspect, select
from sqlalchemy.orm.exc import StaleDataError

if TYPE_CHECKING:
    from helpdesk.models import Member
    from sqlalchemy.orm import Session

NEW_YEAR = date(2026, 1, 1)


@pytest.fixture(autouse=True)
def owners(session: Session) -> dict[str, Member]:
    """Three workspaces, by the ids of which their owners are known."""
    opened = [
        workspaces.open_workspace(
            session,
            id,
            id.title(),
            plan="large",
            opened_on=NEW_YEAR,
            owner=f"owner@{id}.example",
        )
        for id in ("acme", "bolt", "cargo")
    ]
    return {workspace.id: workspace.members[0] for workspace in opened}


def test_each_workspace_numbers_its_tickets_from_one(session: Session) -> None:
    numbers = [
        tickets.open_ticket(session, id, "Help", opened_on=NEW_YEAR).number
        for id in ("acme", "bolt", "acme", "acme", "bolt", "cargo")
    ]

    assert numbers == [1, 1, 2, 3, 2, 1]


def test_a_label_is_made_once(session: Session) -> None:
    for subject in ("It smokes", "It burns"):
        tickets.open_ticket(session, "acme", subject, opened_on=NEW_YEAR, labels=["fire"])

    page = tickets.tickets_page(session, "acme", label="fire")

    assert [ticket.subject for ticket in page.tickets] == ["It smokes", "It burns"]


def test_a_page_shows_the_most_urgent_first(session: Session) -> None:
    for number in range(1, 13):
        ticket = tickets.open_ticket(session, "acme", f"Question {number}", opened_on=NEW_YEAR)
        ticket.priority = number % 3
    tickets.open_ticket(session, "bolt", "Elsewhere", opened_on=NEW_YEAR)

    page = tickets.tickets_page(session, "acme", page=2, size=5)

    assert page.total == 12
    assert [ticket.number for ticket in page.tickets] == [4, 7, 10, 3, 6]


def test_a_search_takes_its_text_as_it_is(session: Session) -> None:
    for subject in ("100% broken", "100 euros", "Hundred"):
        tickets.open_ticket(session, "acme", subject, opened_on=NEW_YEAR)

    page = tickets.tickets_page(session, "acme", text="100%")

    assert [ticket.subject for ticket in page.tickets] == ["100% broken"]


def test_a_ticket_is_read_with_all_that_its_page_shows(
    session: Session, owners: dict[str, Member]
) -> None:
    opened = tickets.open_ticket(
        session, "acme", "It smokes", opened_on=NEW_YEAR, labels=["fire", "urgent"]
    )
    tickets.assign(session, opened, owners["acme"])
    tickets.answer(session, opened, owners["acme"], "Leave the house")
    tickets.answer(session, opened, owners["acme"], "Are you there?")
    session.commit()
    session.expire_all()

    ticket = tickets.read_ticket(session, "acme", 1)

    assert not {"assignee", "labels", "comments"} & inspect(ticket).unloaded
    assert ticket.assignee.name == "owner"
    assert [label.name for label in ticket.labels] == ["fire", "urgent"]
    assert [comment.text for comment in ticket.comments] == ["Leave the house", "Are you there?"]
    assert ticket.comments[0].author is ticket.assignee
    assert ticket.comment_count == 2


def test_a_member_sees_what_waits_for_them(session: Session, owners: dict[str, Member]) -> None:
    mine = tickets.open_ticket(session, "acme", "Mine", opened_on=NEW_YEAR)
    done = tickets.open_ticket(session, "acme", "Done", opened_on=NEW_YEAR)
    tickets.open_ticket(session, "acme", "Nobody's", opened_on=NEW_YEAR)
    for ticket in (mine, done):
        tickets.assign(session, ticket, owners["acme"])
    done.status = Status.CLOSED
    session.flush()

    assert tickets.waiting_for(session, owners["acme"]) == [mine]
    assert tickets.waiting_for(session, owners["bolt"]) == []


def test_a_ticket_is_given_back(session: Session, owners: dict[str, Member]) -> None:
    ticket = tickets.open_ticket(session, "acme", "Help", opened_on=NEW_YEAR)
    tickets.assign(session, ticket, owners["acme"])
    session.commit()

    tickets.assign(session, ticket, None)
    session.commit()

    assert ticket.assignee is None
    assert ticket.workspace_id == "acme"


def test_two_who_change_a_ticket_do_not_overwrite_each_other(session: Session) -> None:
    ticket = tickets.open_ticket(session, "acme", "Help", opened_on=NEW_YEAR)
    session.commit()
    assert ticket.version == 1

    closed = tickets.close_older_than(session, "acme", date(2026, 2, 1))
    ticket.__dict__["version"] = 1  # what the other one has read before
    ticket.subject = "Changed"

    assert closed == 1
    with pytest.raises(StaleDataError):
        session.flush()


def test_only_what_nobody_answered_is_closed(session: Session, owners: dict[str, Member]) -> None:
    answered = tickets.open_ticket(session, "acme", "Answered", opened_on=NEW_YEAR)
    tickets.answer(session, answered, owners["acme"], "Yes")
    forgotten = tickets.open_ticket(session, "acme", "Forgotten", opened_on=NEW_YEAR)
    young = tickets.open_ticket(session, "acme", "Young", opened_on=date(2026, 3, 1))
    elsewhere = tickets.open_ticket(session, "bolt", "Elsewhere", opened_on=NEW_YEAR)

    assert tickets.close_older_than(session, "acme", date(2026, 2, 1)) == 1

    assert forgotten.status is Status.CLOSED
    assert {answered.status, young.status, elsewhere.status} == {Status.NEW}


def test_a_member_is_forgotten(session: Session, owners: dict[str, Member]) -> None:
    for id in ("acme", "bolt"):
        ticket = tickets.open_ticket(session, id, "Help", opened_on=NEW_YEAR)
        for text in ("One", "Two"):
            tickets.answer(session, ticket, owners[id], text)

    assert tickets.forget_comments_of(session, owners["acme"]) == 2

    assert session.scalars(select(Comment.workspace_id)).all() == ["bolt", "bolt"]


def test_labels_come_off(session: Session) -> None:
    ticket = tickets.open_ticket(
        session, "acme", "Help", opened_on=NEW_YEAR, labels=["fire", "urgent"]
    )
    session.commit()

    del ticket.labels[0]
    session.commit()

    assert [label.name for label in ticket.labels] == ["urgent"]
    assert tickets.tickets_page(session, "acme", label="fire").total == 0


def test_a_failed_step_leaves_the_rest(session: Session, owners: dict[str, Member]) -> None:
    tickets.open_ticket(session, "acme", "Help", opened_on=NEW_YEAR)
    with session.begin_nested() as step:
        tickets.open_ticket(session, "bolt", "Never mind", opened_on=NEW_YEAR)
        step.rollback()
    session.commit()

    assert session.scalars(select(Ticket.subject)).all() == ["Help"]
