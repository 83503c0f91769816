"""What a statement over several shards sees of changes: its own session's, and those of others."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Integer, cast, delete, exists, func, select, union_all, update
from sqlalchemy.engine import make_url
from sqlalchemy.orm import aliased

from sqlalchemy_shards.plan import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.shards.shop import World

DEADLINE_SECONDS = 60.0
ALL_ROWS = -1
"""Of `cte_rows_max`: whatever is shipped is put into temporary tables."""


def beside_by_amount(m: Any) -> Any:
    other = aliased(m.Order)
    pairs = select(m.Order.id, other.id).join(other, other.amount == m.Order.amount)
    return pairs.where(other.id != m.Order.id)


def customers_of_few_orders(m: Any) -> Any:
    few = select(m.Order.amount).where(m.Order.customer_id == 3)
    return select(m.Customer.id).where(m.Customer.id.in_(few))


STATEMENTS: Mapping[str, Callable[[Any], Any]] = {
    "concatenated": lambda m: select(m.Order.customer_id, m.Order.id, m.Order.amount),
    "merged in order": lambda m: select(m.Order.amount, m.Order.id).order_by(m.Order.amount),
    "merged in order, limited": lambda m: (
        select(m.Order.amount, m.Order.id).order_by(m.Order.amount.desc(), m.Order.id).limit(3)
    ),
    "in an order of the workspace": lambda m: select(
        m.Ledger.customer_id, m.Ledger.balance
    ).order_by(m.Ledger.balance, m.Ledger.customer_id),
    "counted and summed": lambda m: select(
        func.count(), func.sum(m.Order.amount), func.max(m.Order.id)
    ),
    "grouped by the key": lambda m: select(
        m.Order.customer_id, func.count(), func.avg(m.Order.amount)
    ).group_by(m.Order.customer_id),
    "grouped": lambda m: select(m.Order.amount, func.count()).group_by(m.Order.amount),
    "grouped, with an average": lambda m: (
        select(m.Customer.region_code, func.avg(m.Order.amount), func.count(m.Order.id.distinct()))
        .join(m.Customer.orders)
        .group_by(m.Customer.region_code)
        .having(func.count() > 1)
    ),
    "distinct": lambda m: select(m.Order.amount % 7).distinct(),
    "windows": lambda m: select(
        m.Order.id, func.sum(m.Order.amount).over(order_by=[m.Order.amount, m.Order.id])
    ),
    "joined over other columns": beside_by_amount,
    "keys of one shard": customers_of_few_orders,
    "a set operation": lambda m: union_all(
        select(m.Order.amount), select(cast(m.Ledger.balance, Integer))
    ),
    "a subquery": lambda m: select(m.Region.code).where(
        exists().where(m.Order.amount > 1000).correlate(None)
    ),
}


def change(session: Any, m: Any) -> None:
    """Insert, update and delete on several shards."""
    session.add(m.Customer(id=100, name="new", region_code="n"))
    session.flush()
    session.add_all(m.Order(customer_id=100, id=900 + n, amount=2000 + n) for n in range(3))
    session.flush()
    session.execute(delete(m.Order).where(m.Order.customer_id == 5))
    everywhere = {"shard": "*"}
    session.execute(
        update(m.Order).where(m.Order.id % 2 == 0).values(amount=m.Order.amount + 3),
        execution_options={**everywhere, "synchronize_session": False},
    )
    session.execute(
        update(m.Ledger).values(balance=m.Ledger.balance * -1),
        execution_options={**everywhere, "synchronize_session": False},
    )
    session.execute(update(m.Order).where(m.Order.customer_id == 3).values(amount=7))


def rows_of(session: Any, statement: Any) -> list[Any]:
    return sorted(map(tuple, session.execute(statement)), key=repr)


@pytest.mark.parametrize("rows_max", [5_000, ALL_ROWS], ids=["CTEs", "tables"])
@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_sees_what_its_session_has_not_committed(
    spread_shop: World, name: str, rows_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = spread_shop.models
    assert spread_shop.cluster is not None
    monkeypatch.setattr(spread_shop.cluster.workspace, "cte_rows_max", rows_max)
    statement = STATEMENTS[name](m)
    with spread_shop.session() as session, spread_shop.session() as other:
        session.add_all(m.Ledger(customer_id=n, balance=n % 4) for n in range(1, 13))
        session.commit()
        before = rows_of(session, statement)
        change(session, m)

        within = rows_of(session, statement)
        meanwhile = rows_of(other, statement)
        other.rollback()
        session.commit()
        after = rows_of(other, statement)

    assert before == meanwhile
    assert before != within
    assert within == after


def test_what_is_rolled_back_to_a_savepoint_is_not_seen(spread_shop: World) -> None:
    m = spread_shop.models
    averages = select(m.Customer.region_code, func.avg(m.Order.amount)).join(m.Customer.orders)
    averages = averages.group_by(m.Customer.region_code)
    with spread_shop.session() as session:
        before = rows_of(session, averages)
        with session.begin_nested() as savepoint:
            change(session, m)
            within = rows_of(session, averages)
            savepoint.rollback()

        after = rows_of(session, averages)

    assert before == after != within


class Writer:
    """Changes two tables of one shard in one transaction, again and again, until it is stopped."""

    def __init__(self, url: str) -> None:
        address = make_url(url).set(drivername="postgresql")
        self._address = address.render_as_string(hide_password=False)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.error: BaseException | None = None

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(DEADLINE_SECONDS)

    def _write(self) -> None:
        try:
            with psycopg.connect(self._address) as connection:
                number = 0
                while not self._stopped.is_set():
                    number += 1
                    connection.execute("UPDATE orders SET amount = %s", [number])
                    connection.execute("UPDATE ledgers SET balance = %s", [number])
                    connection.commit()
        except BaseException as error:  # told to the test
            self.error = error


def joined(m: Any, ids: list[int]) -> Any:
    pairs = select(m.Order.amount, m.Ledger.balance)
    pairs = pairs.join(m.Ledger, m.Ledger.customer_id == m.Order.customer_id + 0)
    return pairs.where(m.Order.customer_id.in_(ids))


def joined_with_one_shard(m: Any, ids: list[int]) -> Any:
    """The keys of one side are known, those of the other follow from them."""
    pairs = select(m.Order.amount, m.Ledger.balance)
    pairs = pairs.join(m.Ledger, m.Ledger.customer_id == m.Order.customer_id + 0)
    return pairs.where(m.Ledger.customer_id == ids[0])


def joined_by_values(m: Any, ids: list[int]) -> Any:
    """Every row has a partner in a snapshot, as both tables hold one number."""
    few = select(m.Order.amount, m.Order.customer_id).where(m.Order.customer_id == ids[0])
    inner = few.distinct().subquery()
    pairs = select(inner.c.amount, m.Ledger.balance)
    on = cast(m.Ledger.balance, Integer) == inner.c.amount
    return pairs.join(m.Ledger, on, isouter=True)


def two_subqueries(m: Any, ids: list[int]) -> Any:
    amount = select(func.max(m.Order.amount)).where(m.Order.customer_id.in_(ids))
    balance = select(func.max(m.Ledger.balance)).where(m.Ledger.customer_id.in_(ids))
    return select(m.Flag.id, amount.scalar_subquery(), balance.scalar_subquery())


def two_groupings(m: Any, ids: list[int]) -> Any:
    amounts = select(
        m.Order.customer_id.label("id"), func.avg(m.Order.amount).label("amount")
    ).group_by(m.Order.customer_id)
    shifted = m.Ledger.customer_id + 0
    balance = func.avg(m.Ledger.balance).label("balance")
    balances = select(shifted.label("id"), balance).group_by(shifted)
    one, two = amounts.subquery(), balances.subquery()
    both = select(one.c.amount, two.c.balance).join(two, one.c.id == two.c.id)
    return both.where(one.c.id.in_(ids))


READS = (joined, joined_with_one_shard, joined_by_values, two_subqueries, two_groupings)


@pytest.fixture
def one_shard(spread_shop: World) -> tuple[World, list[int]]:
    """The shop with a ledger and orders of 0 for each customer, and the customers of `s1`."""
    m = spread_shop.models
    assert spread_shop.cluster is not None
    with spread_shop.session() as session:
        session.add_all(m.Ledger(customer_id=n, balance=0) for n in range(1, 13))
        session.add(m.Flag(id=1, name="one"))
        session.execute(update(m.Order).values(amount=0), execution_options={"shard": "*"})
        session.commit()
    ids = [n for n in range(1, 13) if spread_shop.cluster.shard_for(m.Customer, n) == "s1"]
    return spread_shop, ids


@pytest.mark.parametrize("read", READS)
def test_what_one_shard_ships_is_one_snapshot(
    one_shard: tuple[World, list[int]], read: Callable[[Any, list[int]], Any]
) -> None:
    world, ids = one_shard
    statement = read(world.models, ids)
    assert world.cluster is not None
    assert world.cluster.explain(statement).tier is Tier.GATHER
    seen: set[tuple[Any, Any]] = set()
    reads, deadline = 0, time.monotonic() + DEADLINE_SECONDS
    with Writer(world.urls["s1"]) as writer, world.session() as session:
        while (reads < 30 or len(seen) < 6) and time.monotonic() < deadline:
            seen.update(tuple(row)[-2:] for row in session.execute(statement))
            session.rollback()
            reads += 1
    torn = {(amount, balance) for amount, balance in seen if amount != balance}

    assert writer.error is None
    assert len(seen) >= 6
    assert torn == set()
