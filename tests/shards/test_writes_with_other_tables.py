"""UPDATE ... FROM, DELETE ... USING and correlated subqueries, on shards as on one database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, exists, func, select, update

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.shop import World

LISTED = [1, 2, 3, 4, 5]

WRITES: dict[str, Callable[[Any], Any]] = {
    "update from a co-located table": lambda m: (
        update(m.Order)
        .where(m.Order.customer_id == m.Customer.id, m.Customer.id.in_(LISTED))
        .values(status=m.Customer.name)
    ),
    "update from a reference table": lambda m: (
        update(m.Customer)
        .where(m.Customer.region_code == m.Region.code, m.Customer.id.in_(LISTED))
        .values(name=m.Region.name)
    ),
    "update by a correlated subquery": lambda m: (
        update(m.Customer)
        .where(m.Customer.id.in_(LISTED))
        .values(
            notes=select(func.max(m.Order.status))
            .where(m.Order.customer_id == m.Customer.id)
            .scalar_subquery()
        )
    ),
    "update where something exists": lambda m: (
        update(m.Customer)
        .where(
            exists().where(m.Order.customer_id == m.Customer.id, m.Order.amount == 2),
            m.Customer.id.in_(LISTED),
        )
        .values(name="has ordered")
    ),
    "delete using a co-located table": lambda m: delete(m.Label).where(
        m.Label.customer_id == m.Customer.id, m.Customer.id.in_(LISTED), m.Label.id == 1
    ),
    "delete using a reference table": lambda m: delete(m.Label).where(
        m.Label.customer_id == m.Customer.id,
        m.Customer.region_code == m.Region.code,
        m.Region.name == "North",
        m.Label.customer_id.in_(LISTED),
    ),
}

writes = pytest.mark.parametrize("make", WRITES.values(), ids=WRITES.keys())

EVERYTHING = [
    "SELECT id, name, notes FROM customers",
    "SELECT id, status FROM orders",
    "SELECT customer_id, id FROM labels",
]


def key_of(statement: Any, m: Any) -> Any:
    table = statement.table.name
    return {"customers": m.Customer.id, "orders": m.Order.id, "labels": m.Label.customer_id}[table]


@writes
@pytest.mark.parametrize("synchronize", [False, "fetch", "auto"])
def test_as_one_database_would(
    plain: World, four_shards: World, make: Callable[[Any], Any], synchronize: Any
) -> None:
    found = []
    for world in (plain, four_shards):
        world.fill()
        statement = make(world.models)
        with world.session() as session:
            count = session.execute(
                statement, execution_options={"synchronize_session": synchronize}
            ).rowcount
            session.commit()
        found.append((count, [world.rows(each) for each in EVERYTHING]))

    assert found[0] == found[1]
    assert found[0][0] > 1


@writes
def test_returned_rows_are_those_of_all(
    plain: World, four_shards: World, make: Callable[[Any], Any]
) -> None:
    found = []
    for world in (plain, four_shards):
        world.fill()
        statement = make(world.models)
        with world.session() as session:
            rows = session.execute(statement.returning(key_of(statement, world.models))).all()
        found.append(sorted(rows))

    assert found[0] == found[1]
    assert len(found[0]) > 1


@pytest.mark.parametrize("synchronize", [False, "fetch", "evaluate", "auto"])
def test_objects_of_the_session_follow(shop: World, synchronize: Any) -> None:
    m = shop.models
    with shop.session() as session:
        customers = session.scalars(select(m.Customer).order_by(m.Customer.id)).all()
        options = {"synchronize_session": synchronize}
        for _ in range(2):
            session.execute(
                update(m.Customer).where(m.Customer.id.in_(LISTED)).values(name="new"),
                execution_options=options,
            )
        names = [each.name for each in customers[:6]]
        session.execute(
            delete(m.Label).where(m.Label.customer_id.in_(LISTED)), execution_options=options
        )
        session.expire_all()
        stored = [each.name for each in customers[:6]]

    assert stored == ["new"] * 5 + ["customer 6"]
    assert names == (stored if synchronize else [f"customer {n}" for n in range(1, 7)])
