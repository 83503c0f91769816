"""Many DELETEs go to a shard as arrays, and delete and count what they would one by one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import BigInteger, bindparam, delete, insert, select
from sqlalchemy.orm.exc import StaleDataError

from tests.shards.made import made
from tests.shards.shop import CUSTOMERS
from tests.shards.test_row_arrays import AS_ARRAYS, MANY, columns_of
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.shards.shop import World

KINDS = {**AS_ARRAYS, "c0": (BigInteger, [0, 1, None])}


def test_values_are_compared_as_by_one_postgresql(plain: World, four_shards: World) -> None:
    rows: list[dict[str, Any]] = [
        {"id": number, **{name: each[number % len(each)] for name, (_, each) in KINDS.items()}}
        for number in MANY
    ]
    found = []
    for world in (plain, four_shards):
        with made(world, *columns_of(KINDS)) as table:
            counts = {}
            with world.engine.begin() as connection:
                connection.execute(insert(table), rows)
                for name in KINDS:
                    # Each value of its own row, and of the next one.
                    statement = delete(table).where(
                        table.c.id == bindparam("key"), table.c[name] == bindparam("value")
                    )
                    compared = [*rows[1:], rows[0]] if len(name) % 2 else rows
                    sets = [
                        {"key": row["id"], "value": other[name]}
                        for row, other in zip(rows, compared, strict=True)
                    ]
                    counts[name] = connection.execute(statement, sets).rowcount
                    connection.execute(delete(table), execution_options={"shard": "*"})
                    connection.execute(insert(table), rows)
            found.append(counts)

    assert found[0] == found[1]
    assert any(found[0].values())


def test_a_row_that_is_named_twice_is_counted_once(shop: World) -> None:
    table = shop.models.Order.__table__
    statement = table.delete().where(table.c.customer_id == bindparam("customer"))
    sets = [{"customer": number} for number in (*CUSTOMERS, *CUSTOMERS)]
    with shop.engine.begin() as connection:
        count = connection.execute(statement, sets).rowcount

    assert count == 2 * len(CUSTOMERS)
    assert shop.rows("SELECT id FROM orders") == []


@pytest.mark.parametrize("is_stale", [False, True])
def test_versions_are_compared_row_by_row(world: World, is_stale: bool) -> None:
    m = world.models
    with world.session() as session, session.begin():
        session.add_all([m.Customer(id=number, name="x") for number in range(20)])
    with world.session() as session:
        customers = session.query(m.Customer).all()
        if is_stale:
            world.rows("UPDATE customers SET version = 9 WHERE id = 7 RETURNING id")
        with session.no_autoflush:
            for customer in customers:
                session.delete(customer)
        if is_stale:
            with pytest.raises(StaleDataError, match=r"20 row.* 19 were matched"):
                session.flush()
            session.rollback()
        else:
            session.commit()

    assert len(world.rows("SELECT id FROM customers")) == (20 if is_stale else 0)


def test_deletes_of_the_same_rows_wait_for_one_another(four_shards: World) -> None:
    """On a shard both go through the rows in one order, also where its pages have another."""
    customer, cluster = four_shards.models.Customer, four_shards.cluster
    assert cluster is not None
    mixed = (number * 61 % 1000 for number in range(1000))  # all of them, in no order
    numbers = [number for number in mixed if cluster.shard_for(customer, number) == "s1"]
    table = customer.__table__
    with four_shards.engine.begin() as connection:
        rows = [{"id": number, "name": "x", "version": 1} for number in numbers]
        connection.execute(insert(table), rows)
    found: list[Any] = []

    def delete_all() -> None:
        statement = table.delete().where(table.c.id == bindparam("key"))
        try:
            with four_shards.engine.begin() as connection:
                sets = [{"key": number} for number in sorted(numbers)]
                found.append(connection.execute(statement, sets).rowcount)
        except Exception as error:
            found.append(error)

    deletes = [threading.Thread(target=delete_all) for _ in range(2)]
    with four_shards.engine.connect() as connection:
        locked = select(table.c.id).where(table.c.id == sorted(numbers)[len(numbers) // 2])
        connection.execute(locked.with_for_update()).all()
        for each in deletes:
            each.start()
        eventually(lambda: waiting(four_shards) == 2, "both wait for a lock")
        connection.rollback()
    for each in deletes:
        each.join(30)

    assert sorted(found, key=str) == [0, len(numbers)]


def waiting(world: World) -> int:
    """How many transactions wait on some shard for another one."""
    query = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return max(len(pids) for pids in world.rows_by_shard(query).values())
