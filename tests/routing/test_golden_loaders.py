"""The statements that loaders and expired attributes make of themselves reach one shard each.

An ordinary SQLite database answers them, so that their values are real; the route is that of the
same statements on the six shards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import (
    Session,
    defaultload,
    immediateload,
    joinedload,
    lazyload,
    selectinload,
    subqueryload,
    undefer,
)

from tests.routed import routed
from tests.routing.golden import TERRITORY, Case
from tests.routing.world import Base, Country, Item, Label, Order, User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine


@pytest.fixture(scope="module")
def one_database() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    names = ("users", "orders", "items", "countries", "labels", "user_labels")
    Base.metadata.create_all(engine, [Base.metadata.tables[name] for name in names])
    label, country = Label(id=1), Country(code=1, name="India")
    with Session(engine) as session, session.begin():
        for number in (1, 2):
            orders = [Order(id=5, items=[Item(line=1)]), Order(id=6)]
            session.add(User(id=number, country=country, labels=[label], orders=orders))
    yield engine
    engine.dispose()


def all_users(*options: Any, keys: tuple[int, ...] = (1,)) -> Callable[[Session], Any]:
    query = select(User).options(*options).where(User.id.in_(keys))
    return lambda session: session.scalars(query).unique().all()


def read(model: type[Any], key: Any, attribute: str) -> Callable[[Session], Any]:
    return lambda session: getattr(session.get(model, key), attribute)


def refresh(session: Session) -> None:
    user = session.get_one(User, 1)
    session.refresh(user, with_for_update=True)


def expire(session: Session) -> None:
    order = session.get_one(Order, (1, 5))
    session.expire(order)
    assert order.amount is None


def remove(session: Session) -> None:
    session.delete(session.get_one(Item, (1, 5, 1)))
    session.flush()


LOADING = [
    (all_users(joinedload(User.orders)), "of 1"),
    (all_users(selectinload(User.orders)), "of 1, of 1"),
    (all_users(selectinload(User.orders), keys=(1, 2)), "of 1 2, of 1 2"),
    (all_users(selectinload(User.orders).selectinload(Order.items)), "of 1, of 1, of 1"),
    (all_users(subqueryload(User.orders)), "of 1, of 1"),
    (all_users(subqueryload(User.orders).subqueryload(Order.items)), "of 1, of 1, of 1"),
    (all_users(subqueryload(User.orders), keys=(1, 2)), "of 1 2, of 1 2"),
    (all_users(immediateload(User.orders)), "of 1, of 1"),
    (all_users(immediateload(User.orders), keys=(1, 2)), "of 1 2, of 1, of 2"),
    (all_users(selectinload(User.labels)), "of 1, of 1"),
    (all_users(selectinload(User.country)), "of 1, s5"),
    (all_users(joinedload(User.labels), undefer(User.order_count)), "of 1"),
    (all_users(lazyload(User.orders)), "of 1"),
    (all_users(defaultload(User.orders).joinedload(Order.items)), "of 1"),
    (read(User, 1, "orders"), "of 1, of 1"),
    (read(User, 1, "labels"), "of 1, of 1"),
    (read(User, 1, "country"), "of 1, s5"),
    (read(User, 1, "order_count"), "of 1, of 1"),
    (read(Order, (1, 5), "user"), "of 1, of 1"),
    (read(Order, (1, 5), "items"), "of 1, of 1"),
    (read(Item, (1, 5, 1), "order"), "of 1, of 1"),
    (refresh, "of 1, of 1"),
    (expire, "of 1, of 1"),
    (remove, "of 1, of 1"),
]


@pytest.mark.parametrize(("load", "expected"), LOADING, ids=range(len(LOADING)))
def test_each_statement_of_a_loader_reaches_its_shards(
    one_database: Engine, load: Callable[[Session], Any], expected: str
) -> None:
    found: list[str] = []

    def note(connection: Any, statement: Any, many: Any, one: Any, options: Any) -> None:
        (parameters,) = many or (one,)
        found.append(" ".join(sorted(routed(statement, TERRITORY, parameters).shards)))

    with one_database.connect() as connection, Session(connection) as session:
        event.listen(connection, "before_execute", note)
        load(session)

    assert found == [Case("", "", each, "default").expected for each in expected.split(",")]
