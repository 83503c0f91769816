"""A stream that is left early leaves nothing open, whichever way it is left."""

from __future__ import annotations

import gc
import signal
from collections import deque
from itertools import chain
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tests.shards.shop import World

MANY = 1000


@pytest.fixture(params=["one_shard", "four_shards"])
def orders(request: pytest.FixtureRequest) -> World:
    """1,000 orders. Not on plain SQLAlchemy, where the driver warns of what is left open."""
    return _with_orders(request.getfixturevalue(request.param))


def _with_orders(world: World) -> World:
    m = world.models
    with world.session() as session, session.begin():
        session.execute(
            insert(m.Customer), [{"id": n, "name": "x", "version": 1} for n in range(50)]
        )
        session.execute(
            insert(m.Order),
            [{"customer_id": n % 50, "id": n, "amount": n % 7} for n in range(MANY)],
        )
    return world


@pytest.fixture(params=["merged", "unordered", "gathered"])
def query(request: pytest.FixtureRequest, orders: World) -> Any:
    """A statement for a stream of all orders' ids, from the shards or from the workspace."""
    return _query(orders, request.param)


def _query(world: World, kind: str) -> Any:
    order = world.models.Order
    if kind == "gathered":
        return select(order.id, func.rank().over(order_by=order.id)).order_by(order.id)
    return select(order.id).order_by(order.id) if kind == "merged" else select(order.id)


def busy(world: World) -> int:
    """How many connections are out of their pools."""
    assert world.cluster is not None
    pools: list[Any] = [shard.engine.pool for shard in world.cluster.shards.values()]
    pools.append(world.cluster.workspace._pool_of_own())
    return sum(pool.checkedout() for pool in pools)


def open_cursors(world: World) -> list[str]:
    """The server-side cursors of idle connections, each asked over the pool that it lies in."""
    with world.engine.connect() as connection:
        return _cursors_of(connection)


def _cursors_of(connection: Connection) -> list[str]:
    found = connection.execute(
        text("SELECT name FROM pg_cursors"), execution_options={"shard": "*"}
    )
    return list(found.scalars())


def test_everything_is_streamed(orders: World, query: Any) -> None:
    with orders.engine.connect() as connection:
        result = connection.execution_options(yield_per=90).execute(query)
        found = sorted(row.id for row in result)

    assert found == list(range(MANY))
    assert busy(orders) == 0


def test_an_exhausted_stream_is_closed_within_the_transaction(orders: World, query: Any) -> None:
    with orders.engine.connect() as connection:
        connection.execute(query, execution_options={"yield_per": 500}).all()
        left = (busy(orders), _cursors_of(connection))

    assert left == (len(orders.urls), [])


def test_a_loop_that_is_broken_off(orders: World, query: Any) -> None:
    with orders.session() as session:
        for row in session.execute(query, execution_options={"yield_per": 10}):
            if row.id >= 0:
                break

    assert (busy(orders), open_cursors(orders)) == (0, [])


def test_an_exception_in_the_loop(orders: World, query: Any) -> None:
    def divide() -> None:
        with orders.session() as session:
            for row in session.execute(query, execution_options={"yield_per": 10}):
                row.id // 0

    with pytest.raises(ZeroDivisionError):
        divide()

    assert (busy(orders), open_cursors(orders)) == (0, [])


def test_a_result_that_is_closed(orders: World, query: Any) -> None:
    with orders.engine.connect() as connection:
        result = connection.execute(query, execution_options={"yield_per": 10})
        result.fetchone()
        result.close()
        left = (busy(orders), _cursors_of(connection))

    assert left == (len(orders.urls), [])


def test_a_generator_that_nobody_holds_any_more(orders: World, query: Any) -> None:
    def ids() -> Iterator[int]:
        with orders.session() as session:
            for row in session.execute(query, execution_options={"yield_per": 10}):
                yield row.id

    stream = ids()
    next(stream)
    del stream
    gc.collect()

    assert (busy(orders), open_cursors(orders)) == (0, [])


def test_a_result_that_nobody_holds_any_more_ends_with_the_session(
    orders: World, query: Any
) -> None:
    with orders.session() as session:
        next(iter(session.execute(query, execution_options={"yield_per": 10})))
        gc.collect()

    assert (busy(orders), open_cursors(orders)) == (0, [])


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("kind", ["merged", "gathered"])
def test_a_stream_ends_with_its_transaction(world: World, kind: str, end: str) -> None:
    m = _with_orders(world).models
    with world.session() as session:
        result = session.execute(_query(world, kind), execution_options={"yield_per": 10})
        next(result)
        getattr(session, end)()
        with pytest.raises(DBAPIError, match="cursor"):
            result.all()
        result.close()
        session.rollback()
        count = session.scalar(select(func.count()).select_from(m.Order))

    assert count == MANY


def test_a_result_that_is_closed_late_leaves_the_next_session_alone(
    orders: World, query: Any
) -> None:
    m = orders.models
    connection = orders.engine.connect()
    result = connection.execution_options(yield_per=10).execute(query)
    result.fetchone()
    connection.close()
    with orders.session() as other:
        before = other.scalars(select(m.Order.id).where(m.Order.id < 3)).all()
        result.close()
        after = other.scalars(select(m.Order.id).where(m.Order.id < 3)).all()

    assert sorted(before) == sorted(after) == [0, 1, 2]


def test_other_statements_run_meanwhile(orders: World, query: Any) -> None:
    m = orders.models
    with orders.session() as session:
        rows = iter(session.execute(query, execution_options={"yield_per": 40}))
        found = [next(rows).id]
        counted = session.scalar(select(func.count(m.Order.amount.distinct())))
        session.execute(insert(m.Order), [{"customer_id": 1, "id": MANY, "amount": 100}])
        found += [row.id for row in rows]
        session.rollback()

    assert (counted, sorted(found)) == (7, list(range(MANY)))


def test_a_failed_statement_fails_the_stream(orders: World, query: Any) -> None:
    m = orders.models
    with orders.session() as session:
        rows = iter(session.execute(query, execution_options={"yield_per": 10}))
        next(rows)
        with pytest.raises(DBAPIError, match="division by zero"):
            session.execute(select(1 / func.sum(m.Order.id * 0))).all()
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            list(rows)
        session.rollback()

    assert (busy(orders), open_cursors(orders)) == (0, [])


def test_a_server_that_ends_the_connection(orders: World, query: Any) -> None:
    with orders.session() as session:
        rows = iter(session.execute(query, execution_options={"yield_per": 10}))
        next(rows)
        for url in dict.fromkeys(orders.urls.values()):
            orders.view.ask(
                url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <>"
                " pg_backend_pid() AND datname = current_database() AND state <> 'idle'",
            )
        with pytest.raises(OperationalError):
            list(rows)
    with orders.session() as session:
        found = session.scalar(select(func.count()).select_from(orders.models.Order))

    assert found == MANY
    assert busy(orders) == 0


@pytest.mark.sync_only("Ctrl-C ends an event loop, or cancels its task")
def test_ctrl_c_while_rows_are_fetched(orders: World, query: Any) -> None:
    with orders.session() as session:
        rows = iter(session.execute(query, execution_options={"yield_per": 1}))
        next(rows)
        previous = signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            with pytest.raises(KeyboardInterrupt):
                # Python drops an interrupt that comes while it tidies up an object.
                deque(chain(rows, until_it_is_late()), maxlen=0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        session.rollback()
        found = session.scalar(select(func.count()).select_from(orders.models.Order))

    assert found == MANY
    assert (busy(orders), open_cursors(orders)) == (0, [])


def until_it_is_late() -> Iterator[None]:
    late = monotonic() + 60
    while monotonic() < late:
        yield


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
