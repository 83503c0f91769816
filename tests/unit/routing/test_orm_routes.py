"""From ORM statements to shards, without a server: relationships, loaders, aliases, properties."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.orm import (
    aliased,
    contains_eager,
    joinedload,
    undefer,
    with_loader_criteria,
    with_parent,
)

from tests.properties.world import Country, Document, Event, Order, Page, User, keyspaces
from tests.routed import routed, territory_of

TERRITORY = territory_of(keyspaces())
EVERYWHERE = "s0 s1 s2 s3"
USER = User(id=5)
ORDER = Order(user_id=5, id=1)
OTHER = aliased(Order)
CHOSEN = aliased(User, select(User).where(User.score > 1).subquery())

STATEMENTS = [
    (select(User).filter_by(id=5), "s1"),
    (select(Order).where(Order.user == USER), "s1"),
    (select(Order).where(with_parent(USER, User.orders)), "s1"),
    (select(User).where(User.orders.contains(ORDER)), "s1"),
    (select(User).where(User.orders.any(Order.user_id == 5)), "s1"),
    (select(User).where(User.orders.any(Order.amount == 5)), EVERYWHERE),
    (select(User).where(~User.orders.any(Order.user_id == 5)), EVERYWHERE),
    (select(Order).where(Order.user.has(id=5)), "s1"),
    (select(Order).where(Order.user.has(User.id.in_([5, 1]))), "s1 s2"),
    (select(Order).join(Order.user).where(User.id == 5), "s1"),
    (select(User).outerjoin(User.orders).where(Order.user_id == 5), "s1"),
    (select(User).outerjoin(User.orders).where(User.id == 5), "s1"),
    (select(User).join(OTHER, User.orders).where(OTHER.user_id == 5), "s1"),
    (select(User).options(joinedload(User.orders)).where(User.id == 5), "s1"),
    (select(User).options(joinedload(User.orders)).where(User.id == 5).limit(1), "s1"),
    (
        select(User)
        .join(User.orders)
        .options(contains_eager(User.orders))
        .where(Order.user_id == 5),
        "s1",
    ),
    (
        select(Order).options(joinedload(Order.user).joinedload(User.country)).filter_by(user_id=5),
        "s1",
    ),
    (select(User).options(undefer(User.order_count)).where(User.id == 5), "s1"),
    (select(User).join(User.country).where(User.id == 5, Country.code == "in"), "s1"),
    (select(CHOSEN).where(CHOSEN.id == 5), "s1"),
    (select(User).options(with_loader_criteria(User, User.id == 5)), "s1"),
    (select(Order).options(with_loader_criteria(Order, Order.user_id == 5)), "s1"),
    (select(func.count()).select_from(User).where(User.id == 5), "s1"),
    (select(User.id).where(User.id == 5).union(select(Order.user_id).filter_by(user_id=5)), "s1"),
    (select(Event).where(Event.year.between(1900, 1949)), "s2"),
    (select(Event).where(or_(Event.year < 1900, Event.year >= 2000)), "s0 s3"),
    (
        select(Page).join(Document, and_(Page.tenant == Document.tenant)).where(Page.tenant == "a"),
        EVERYWHERE,
    ),
    (update(Order).where(Order.user == USER).values(amount=1), "s1"),
    (update(Order).where(Order.user_id == User.id, User.id == 5).values(amount=User.score), "s1"),
    (delete(Order).where(Order.user.has(User.id == 5)), "s1"),
]


@pytest.mark.parametrize(("statement", "expected"), STATEMENTS, ids=range(len(STATEMENTS)))
@pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
def test_an_orm_statement_leads_to_shards(statement: Any, expected: str) -> None:
    assert " ".join(routed(statement, TERRITORY).shards) == expected
