"""Results that are fetched as they are read, over server-side cursors of every shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from tests.shards.shop import World

MANY = 4000


@pytest.fixture
def orders(world: World) -> World:
    """4,000 orders, spread evenly."""
    m = world.models
    with world.session() as session, session.begin():
        session.execute(
            insert(m.Customer), [{"id": n, "name": "x", "version": 1} for n in range(100)]
        )
        session.execute(
            insert(m.Order),
            [{"customer_id": n % 100, "id": n, "amount": n % 7} for n in range(MANY)],
        )
    return world


def open_cursors(connection: Any, world: World) -> int:
    options = {"shard": "*"} if world.cluster else {}
    found = connection.execute(text("SELECT name FROM pg_cursors"), execution_options=options)
    return len(found.all())


@pytest.mark.parametrize("size", [1, 7, 500, 10_000])
def test_rows_are_merged_in_order(orders: World, size: int) -> None:
    m = orders.models
    query = select(m.Order.id).order_by(m.Order.id)
    if size == 1:
        query = query.limit(300)
    with orders.engine.connect() as connection:
        result = connection.execute(query, execution_options={"yield_per": size})
        found = result.scalars().all()
        left = open_cursors(connection, orders)

    assert found == list(range(300 if size == 1 else MANY))
    assert left == 0


def test_all_objects_take_few_fetches_without_yield_per(
    orders: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy asks for one row then, and for all others."""
    m, fetch = orders.models, psycopg.ServerCursor.fetchmany
    sizes: list[int] = []

    def noted(cursor: Any, size: int = 0) -> Any:
        sizes.append(size)
        return fetch(cursor, size)

    monkeypatch.setattr(psycopg.ServerCursor, "fetchmany", noted)
    query = select(m.Order).order_by(m.Order.id)
    with orders.session() as session:
        found = session.scalars(query, execution_options={"stream_results": True}).all()

    assert [order.id for order in found] == list(range(MANY))
    assert len(sizes) < 40


def test_rows_come_in_partitions_of_the_size_asked_for(orders: World) -> None:
    m = orders.models
    query = select(m.Order.id).order_by(m.Order.id.desc())
    with orders.engine.connect() as connection:
        result = connection.execute(query, execution_options={"yield_per": 600})
        partitions = [[row.id for row in each] for each in result.partitions()]

    assert [len(each) for each in partitions] == [600] * 6 + [400]
    assert [id_ for each in partitions for id_ in each] == list(reversed(range(MANY)))


def test_cursors_are_open_while_reading_and_closed_after(orders: World) -> None:
    m = orders.models
    query = select(m.Order.id).order_by(m.Order.id)
    with orders.engine.connect() as connection:
        result = connection.execute(query, execution_options={"stream_results": True})
        first = [next(result).id, next(result).id]
        during = open_cursors(connection, orders)
        result.close()
        after = open_cursors(connection, orders)

    assert first == [0, 1]
    assert (during, after) == (len(orders.urls), 0)


def test_objects_are_streamed(orders: World) -> None:
    m = orders.models
    with orders.session() as session:
        query = select(m.Order).order_by(m.Order.id).execution_options(yield_per=100)
        found = [order.id for order in session.scalars(query)]
        left = open_cursors(session.connection(), orders)

    assert found == list(range(MANY))
    assert left == 0


def test_unordered_rows_are_streamed(orders: World) -> None:
    m = orders.models
    with orders.engine.connect() as connection:
        result = connection.execution_options(yield_per=300).execute(select(m.Order.id))
        found = sorted(result.scalars())

    assert found == list(range(MANY))


def test_rows_of_one_key_are_streamed_from_its_shard(orders: World) -> None:
    m = orders.models
    query = select(m.Order.id).where(m.Order.customer_id == 42).order_by(m.Order.id)
    with orders.engine.connect() as connection:
        result = connection.execution_options(yield_per=10).execute(query)
        found = result.scalars().all()

    assert found == list(range(42, MANY, 100))


def test_aggregates_are_streamed_too(orders: World) -> None:
    m = orders.models
    with orders.engine.connect() as connection:
        streaming = connection.execution_options(stream_results=True)
        found = streaming.execute(select(func.count(), func.sum(m.Order.id))).one()

    assert found == (MANY, sum(range(MANY)))


def test_fetchone_fetchmany_and_fetchall_mix(orders: World) -> None:
    m = orders.models
    query = select(m.Order.id).order_by(m.Order.id)
    found = []
    for options in ({}, {"stream_results": True}, {"yield_per": 64}):
        with orders.engine.connect() as connection:
            result = connection.execution_options(**options).execute(query)
            rows = [result.fetchone(), *result.fetchmany(5), result.fetchone(), *result.fetchall()]
            found.append([row.id for row in rows if row])

    assert found == [list(range(MANY))] * 3


def test_limits_hold_while_streaming(orders: World) -> None:
    m = orders.models
    query = select(m.Order.id).order_by(m.Order.id).limit(1000).offset(900)
    with orders.engine.connect() as connection:
        result = connection.execute(query, execution_options={"yield_per": 33})
        found = result.scalars().all()
        left = open_cursors(connection, orders)

    assert found == list(range(900, 1900))
    assert left == 0


def test_two_streams_of_one_connection_do_not_mix(orders: World) -> None:
    m = orders.models
    query = select(m.Order.id).order_by(m.Order.id)
    with orders.engine.connect() as connection:
        streaming = connection.execution_options(yield_per=50)
        up = streaming.execute(query)
        down = streaming.execute(query.order_by(None).order_by(m.Order.id.desc()))
        pairs = [(one.id, other.id) for one, other in zip(up, down, strict=True)]

    assert pairs == [(n, MANY - 1 - n) for n in range(MANY)]


def test_an_error_in_the_middle_of_a_stream_fails_the_transaction(orders: World) -> None:
    m = orders.models
    # The server computes each row as it is fetched, and stumbles over one of the last.
    query = select(m.Order.id, 1 / (m.Order.id - 3000)).order_by(m.Order.id)
    with orders.engine.connect() as connection:
        streaming = connection.execution_options(yield_per=20)
        with pytest.raises(DBAPIError, match="division by zero"):
            streaming.execute(query).all()
        for options in [{"shard": name} for name in orders.urls] if orders.is_spread else [{}]:
            with pytest.raises(DBAPIError, match="current transaction is aborted"):
                connection.execute(select(m.Customer.id), execution_options=options)
        connection.rollback()
        count = connection.execute(select(func.count()).select_from(m.Order)).scalar()

    assert count == MANY


def test_a_connection_that_is_closed_in_the_middle_leaves_nothing_open(orders: World) -> None:
    m = orders.models
    connection = orders.engine.connect()
    result = connection.execution_options(yield_per=10).execute(
        select(m.Order.id).order_by(m.Order.id)
    )
    next(result)
    connection.close()
    with orders.engine.connect() as again:
        left = open_cursors(again, orders)
    result.close()

    assert left == 0
