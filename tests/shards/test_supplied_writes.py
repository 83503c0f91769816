"""UPDATE and DELETE that read rows of other shards: as on one database, which does them alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Integer,
    String,
    cast,
    column,
    delete,
    exists,
    func,
    literal,
    select,
    tuple_,
    union,
    update,
    values,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.shop import World

EVERYWHERE = {"scatter": "allow"}

EVERYTHING = [
    "SELECT id, name, notes, region_code FROM customers",
    "SELECT customer_id, id, amount, status FROM orders",
    "SELECT customer_id, id, text FROM labels",
]


def everything(world: World) -> Any:
    with world.engine.connect() as connection:
        flag = world.models.Flag
        flags = connection.execute(select(flag.id, flag.name).order_by(flag.id)).all()
    return [world.rows(each) for each in EVERYTHING], [tuple(row) for row in flags]


def _average(m: Any) -> Any:
    return select(func.avg(m.Order.amount)).scalar_subquery()


def _first_orders(m: Any) -> Any:
    return select(m.Order.id).order_by(m.Order.id).limit(5)


def steps(m: Any) -> Any:
    """Customers 2 and 4, and so on, as far as there are any."""
    numbers = select(m.Customer.id.label("number")).where(m.Customer.id == 2).cte(recursive=True)
    further = select(m.Customer.id).where(m.Customer.id == numbers.c.number + 2)
    return numbers.union_all(further)


WRITES: dict[str, Callable[[Any], Any]] = {
    "update from a table of another key": lambda m: (
        update(m.Order).where(m.Order.amount == m.Customer.id).values(status=m.Customer.name)
    ),
    "update from a filtered table": lambda m: (
        update(m.Order)
        .where(m.Order.amount == m.Customer.id, m.Customer.name == "customer 2")
        .values(status=m.Customer.notes)
    ),
    "update from an alias of itself": lambda m: (
        update(m.Order)
        .where(m.Order.id + 10 == (other := aliased(m.Order)).id)
        .values(amount=m.Order.amount + other.customer_id)
    ),
    "update from a global table": lambda m: (
        update(m.Order).where(m.Order.amount == m.Flag.id).values(status=m.Flag.name)
    ),
    "update to a number of floating point": lambda m: update(m.Order).values(
        status=cast(
            select(func.percentile_cont(0.3).within_group(m.Order.id)).scalar_subquery(), String
        )
    ),
    "update from a joined pair": lambda m: (
        update(m.Customer)
        .where(m.Customer.id == m.Label.id, m.Label.customer_id == m.Order.customer_id)
        .where(m.Order.id == 52)
        .values(notes=m.Label.text)
    ),
    "update from co-located and other tables": lambda m: (
        update(m.Order)
        .where(m.Order.customer_id == m.Customer.id, m.Order.amount == m.Flag.id)
        .values(status=m.Customer.name + m.Flag.name)
    ),
    "update from a subquery": lambda m: (
        update(m.Customer)
        .where(
            m.Customer.id
            == (
                found := select(m.Order.amount, func.count().label("many"))
                .group_by(m.Order.amount)
                .subquery()
            ).c.amount
        )
        .values(version=found.c.many)
    ),
    "update from a CTE": lambda m: (
        update(m.Customer)
        .where(
            m.Customer.id
            == (
                found := select(m.Order.amount, func.max(m.Order.id).label("last"))
                .group_by(m.Order.amount)
                .cte("found")
            ).c.amount
        )
        .values(version=found.c.last)
    ),
    "delete in a recursive CTE": lambda m: delete(m.Label).where(
        m.Label.customer_id.in_(select(steps(m).c.number))
    ),
    "update in a limited choice from a CTE": lambda m: (
        update(m.Order)
        .where(
            m.Order.id.in_(
                select((c := select(m.Order.id).where(m.Order.amount == 1).cte("c")).c.id)
                .order_by(c.c.id)
                .limit(3)
            )
        )
        .values(status="c")
    ),
    "update from values": lambda m: (
        update(m.Order)
        .where(
            m.Order.id
            == (
                given := values(column("id", Integer), column("to", String), name="given").data(
                    [(11, "a"), (52, "b")]
                )
            ).c.id
        )
        .values(status=given.c.to)
    ),
    "update from two arrays side by side": lambda m: (
        update(m.Order)
        .where(
            m.Order.id
            == (
                given := func.unnest(
                    literal([11, 52], ARRAY(Integer)), literal(["a", "b"], ARRAY(String))
                )
                .table_valued(column("id", Integer), column("to", String), name="given")
                .render_derived()
            ).c.id
        )
        .values(status=given.c.to)
    ),
    "update by a scalar subquery": lambda m: update(m.Order).values(
        amount=m.Order.amount + select(func.max(m.Order.id)).scalar_subquery()
    ),
    "update above the average": lambda m: (
        update(m.Order).where(m.Order.amount > _average(m)).values(status="much")
    ),
    "update by a correlated subquery": lambda m: update(m.Customer).values(
        version=select(func.count(m.Order.id))
        .where(m.Order.amount == m.Customer.id)
        .scalar_subquery()
    ),
    "update where something exists": lambda m: (
        update(m.Customer)
        .where(exists().where(m.Order.amount == m.Customer.id, m.Order.id > 30))
        .values(notes="exists")
    ),
    "update where nothing exists": lambda m: (
        update(m.Customer)
        .where(~exists().where(m.Order.amount == m.Customer.id))
        .values(notes="none")
    ),
    "update where anything exists": lambda m: (
        update(m.Customer)
        .where(exists(select(m.Order).where(m.Order.amount == 2)))
        .values(notes="x")
    ),
    "update where groups of all shards exist": lambda m: (
        update(m.Customer)
        .where(exists(select(m.Order.amount).group_by(m.Order.amount).having(func.count() > 2)))
        .values(notes="x")
    ),
    "update where no pair of several shards exists": lambda m: (
        update(m.Customer)
        .where(
            ~exists(
                select(m.Label.id).join(m.Order, m.Order.amount == m.Label.id).where(m.Order.id < 0)
            )
        )
        .values(notes="x")
    ),
    "update by a subquery without a table": lambda m: (
        update(m.Customer)
        .where(m.Customer.id == m.Order.amount)
        .values(
            version=select(
                func.max(func.generate_series(1, 3).table_valued("n").render_derived().c.n)
            ).scalar_subquery()
        )
    ),
    "update in the rows of a function": lambda m: (
        update(m.Customer)
        .where(
            m.Customer.id.in_(
                select(func.generate_series(2, 5).table_valued("n").render_derived().c.n)
            )
        )
        .values(notes="n")
    ),
    "update in the first few": lambda m: (
        update(m.Order).where(m.Order.id.in_(_first_orders(m))).values(status="first")
    ),
    "update not in what has no key": lambda m: (
        update(m.Order)
        .where(m.Order.amount.not_in(select(m.Label.id).where(m.Label.customer_id.in_([]))))
        .values(status="all")
    ),
    "update not in": lambda m: (
        update(m.Order).where(m.Order.id.not_in(_first_orders(m))).values(status="later")
    ),
    "update in pairs": lambda m: (
        update(m.Order)
        .where(
            tuple_(m.Order.customer_id, m.Order.id).in_(
                select(m.Label.id, m.Label.customer_id * 10 + 1)
            )
        )
        .values(status="pair")
    ),
    "update in a union": lambda m: (
        update(m.Customer)
        .where(m.Customer.id.in_(union(select(m.Order.amount), select(m.Label.id + 3))))
        .values(notes="union")
    ),
    "update of one key by others": lambda m: (
        update(m.Order)
        .where(m.Order.customer_id == 5, m.Order.amount == m.Customer.id)
        .values(status=m.Customer.name)
    ),
    "update of keys by a joined key": lambda m: (
        update(m.Order)
        .where(
            m.Order.customer_id == m.Customer.id,
            m.Customer.id.in_([3, 4, 5]),
            m.Order.amount.in_(select(m.Label.id)),
        )
        .values(status=m.Customer.name)
    ),
    "update of a global table": lambda m: update(m.Flag).values(
        name=select(func.min(m.Customer.name))
        .where(m.Customer.id >= m.Flag.id * 3)
        .scalar_subquery()
    ),
    "update with the time": lambda m: (
        update(m.Customer)
        .where(m.Customer.created <= func.now(), m.Customer.id == m.Order.amount)
        .values(notes="before")
    ),
    "delete using a table of another key": lambda m: delete(m.Label).where(
        m.Label.id == m.Order.amount, m.Order.customer_id > 6, m.Label.text != "x"
    ),
    "delete where nothing exists": lambda m: delete(m.Label).where(
        ~exists().where(m.Order.amount == m.Label.customer_id, m.Order.customer_id < 9)
    ),
    "delete duplicates": lambda m: delete(m.Order).where(
        m.Order.id.in_(
            select(
                (
                    numbered := select(
                        m.Order.id,
                        func.row_number()
                        .over(partition_by=m.Order.amount, order_by=m.Order.id)
                        .label("place"),
                    ).subquery()
                ).c.id
            ).where(numbered.c.place > 2)
        )
    ),
    "delete by an outer join": lambda m: delete(m.Label).where(
        m.Label.customer_id.in_(
            select(m.Customer.id)
            .outerjoin(m.Order, m.Order.amount == m.Customer.id)
            .where(m.Order.id.is_(None))
        )
    ),
    "delete from a global table": lambda m: delete(m.Flag).where(
        m.Flag.id.in_(select(m.Order.amount).where(m.Order.customer_id == 3))
    ),
}

writes = pytest.mark.parametrize("make", WRITES.values(), ids=WRITES.keys())


def fill(world: World) -> None:
    world.fill()
    with world.session() as session, session.begin():
        session.add_all([world.models.Flag(id=number, name=f"flag {number}") for number in (1, 2)])


def keys_of(statement: Any, m: Any) -> tuple[Any, ...]:
    return tuple(statement.table.primary_key)


@writes
def test_as_one_database_does(plain: World, four_shards: World, make: Callable[[Any], Any]) -> None:
    found = []
    for world in (plain, four_shards):
        fill(world)
        statement = make(world.models)
        returning = statement.returning(*statement.table.primary_key, literal("x"))
        with world.engine.begin() as connection:
            rows = connection.execute(returning, execution_options=EVERYWHERE).all()
            connection.rollback()
        with world.session() as session:
            result = session.execute(make(world.models), execution_options=EVERYWHERE)
            count = result.rowcount
            session.commit()
        found.append((sorted(tuple(row) for row in rows), count, everything(world)))

    assert found[1] == found[0]
    assert found[0][1] == len(found[0][0]) > 0
