"""UPDATE and DELETE that are given rows of other shards: beside other transactions, and refused."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import bindparam, delete, exists, func, literal, select, union_all, update
from sqlalchemy.exc import IntegrityError

from sqlalchemy_shards import GatherLimit
from sqlalchemy_shards.errors import (
    GatherLimitExceeded,
    ScatterNotAllowed,
    UnsupportedStatement,
)
from tests.databases import libpq_url
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.shop import World

EVERYWHERE = {"scatter": "allow"}
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"
STATES = "SELECT id, amount, status FROM orders WHERE status <> 'new'"


def by_customers(m: Any) -> Any:
    """Of the shop's orders those have amounts 1 and 2: customers 1 and 2 are on other shards."""
    return (
        update(m.Order)
        .where(m.Order.amount == m.Customer.id, m.Customer.id == 2)
        .values(status=m.Customer.name)
    )


@pytest.mark.parametrize(("amount", "is_written"), [(2, True), (7, False)])
def test_a_row_that_another_transaction_changes_is_judged_as_it_is_then(
    shop: World, amount: int, is_written: bool
) -> None:
    shard = next(name for name, rows in _orders(shop).items() if (52,) in rows)
    counts: list[int] = []

    def write() -> None:
        with shop.engine.begin() as connection:
            statement = by_customers(shop.models)
            counts.append(connection.execute(statement, execution_options=EVERYWHERE).rowcount)

    with psycopg.connect(libpq_url(shop.urls[shard])) as other:
        other.execute("UPDATE orders SET amount = %s WHERE id = 52", [amount])
        thread = threading.Thread(target=write)
        thread.start()
        with psycopg.connect(libpq_url(shop.urls[shard]), autocommit=True) as watching:
            eventually(lambda: watching.execute(WAITING).fetchone() != (0,), "a lock waited for")
        other.commit()
    thread.join()

    assert counts == [12 if is_written else 11]
    found = shop.rows("SELECT amount, status FROM orders WHERE id = 52")
    assert found == [(amount, "customer 2" if is_written else "new")]


def _orders(world: World) -> dict[str, list[tuple[Any, ...]]]:
    return world.rows_by_shard("SELECT id FROM orders")


def test_what_exceeds_the_limit_changes_nothing(spread_shop: World) -> None:
    m = spread_shop.models
    statement = update(m.Order).where(m.Order.amount == m.Customer.id).values(status="x")
    answered = delete(m.Label).where(m.Label.id.in_(select(m.Order.amount)))
    options = {**EVERYWHERE, "gather_limit": GatherLimit(rows=5)}
    with spread_shop.session() as session:
        session.get(m.Customer, 3).notes = "stays"
        for each in (statement, answered):
            with pytest.raises(GatherLimitExceeded):
                session.execute(each, execution_options=options)
        session.commit()

    assert spread_shop.rows(STATES) == []
    assert spread_shop.rows("SELECT id FROM customers WHERE notes = 'stays'") == [(3,)]


def test_a_shard_that_fails_fails_the_statement_on_all(spread_shop: World) -> None:
    m = spread_shop.models
    statement = update(m.Order).values(
        status=select(m.Customer.name).where(m.Customer.id == m.Order.amount).scalar_subquery(),
        amount=func.nullif(m.Order.id, 52),
    )
    with spread_shop.session() as session:
        with pytest.raises(IntegrityError):
            session.execute(statement, execution_options=EVERYWHERE)
        session.rollback()

    assert spread_shop.rows(STATES) == []


def test_the_transactions_own_writes_are_seen(shop: World) -> None:
    m = shop.models
    with shop.session() as session:
        session.add(m.Customer(id=50, name="new", region_code="n"))
        session.add(m.Order(customer_id=50, id=501, amount=2))
        session.get(m.Customer, 2).name = "changed"
        count = session.execute(by_customers(m), execution_options=EVERYWHERE).rowcount
        session.commit()

    assert count == 13
    assert {status for *_, status in shop.rows(STATES)} == {"changed"}


def test_text_arrives_as_it_is(shop: World) -> None:
    m = shop.models
    odd = "a\tb\nc\\d%e'f\"g\r{}$1 %(x)s é\\N"
    one = select(m.Customer.name).where(m.Customer.name == odd).limit(1).scalar_subquery()
    with shop.session() as session, session.begin():
        session.execute(update(m.Customer).where(m.Customer.id == 2).values(name=odd))
        session.execute(by_customers(m), execution_options=EVERYWHERE)
        session.execute(update(m.Label).values(text=one), execution_options=EVERYWHERE)

    assert {status for *_, status in shop.rows(STATES)} == {odd}
    assert shop.rows("SELECT DISTINCT text FROM labels")[0] == (odd,)


def test_not_in_a_list_with_null_is_never_true(shop: World) -> None:
    m = shop.models
    statement = delete(m.Label).where(m.Label.text.not_in(select(m.Order.status)))
    with shop.session() as session, session.begin():
        session.execute(update(m.Order).where(m.Order.customer_id == 3).values(status=None))
        count = session.execute(statement, execution_options=EVERYWHERE).rowcount

    assert count == 0


def test_a_cte_that_is_named_twice_is_chosen_once(shop: World) -> None:
    m = shop.models
    # Without an order: any five rows, but the same five in both places.
    chosen = select(m.Order.id, m.Order.amount).limit(5).cte("chosen")
    statement = (
        update(m.Order)
        .where(m.Order.id == chosen.c.id)
        .values(amount=select(func.count(chosen.c.id)).scalar_subquery())
    )
    with shop.session() as session, session.begin():
        count = session.execute(statement, execution_options=EVERYWHERE).rowcount

    assert count == 5
    assert shop.rows("SELECT count(*) FROM orders WHERE amount = 5").count((0,)) < 4
    assert sum(n for (n,) in shop.rows("SELECT count(*) FROM orders WHERE amount = 5")) == 5


def test_it_must_say_that_it_means_all_shards(spread_shop: World) -> None:
    m = spread_shop.models
    of_one_customer = by_customers(m).where(m.Customer.id == 2)
    with spread_shop.session() as session:
        with pytest.raises(ScatterNotAllowed, match="UPDATE of table 'orders'"):
            session.execute(of_one_customer)
        count = session.execute(of_one_customer, execution_options={"shard": "*"}).rowcount
        keyed = session.execute(of_one_customer.where(m.Order.customer_id.in_([3, 4]))).rowcount

    assert (count, keyed) == (12, 2)


def test_only_shards_that_an_option_names_are_read_and_written(spread_shop: World) -> None:
    m = spread_shop.models
    customers = spread_shop.rows_by_shard("SELECT id FROM customers")
    home = next(name for name, rows in customers.items() if (2,) in rows)
    others = tuple(name for name in spread_shop.urls if name != home)
    with spread_shop.session() as session:
        count = session.execute(by_customers(m), execution_options={"shard": others}).rowcount

    assert count == 0


def test_explain_tells_what_is_brought(spread_shop: World) -> None:
    m = spread_shop.models
    cluster: Any = spread_shop.cluster
    first = select(m.Label.customer_id).order_by(m.Label.customer_id).limit(2)
    statement = by_customers(m).where(m.Order.customer_id.not_in(first))
    told = cluster.explain(statement, scatter="allow")
    with spread_shop.session() as session:
        measured = session.explain(statement, analyze=True, scatter="allow")

    assert [each.origin for each in told.supplied] == ["customers"]
    assert "ships customers, before: the rows that may matter, with id, name" in str(told)
    assert "answer 1, before" in str(told)
    assert set(told.as_dict()) >= {"answers", "ships", "obstacle"}
    assert measured.measured.rows == 11
    assert spread_shop.rows(STATES) == []


def test_in_autocommit_mode_one_shard_may_be_written(spread_shop: World) -> None:
    m = spread_shop.models
    with spread_shop.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(ScatterNotAllowed, match="half done"):
            connection.execute(by_customers(m), execution_options=EVERYWHERE)
        count = connection.execute(by_customers(m).where(m.Order.customer_id == 5)).rowcount

    assert count == 1
    assert spread_shop.rows(STATES) == [(52, 2, "customer 2")]


def test_tables_that_are_co_located_or_everywhere_stay_where_they_are(spread_shop: World) -> None:
    m = spread_shop.models
    cluster: Any = spread_shop.cluster
    statement = (
        update(m.Order)
        .where(
            m.Order.customer_id == m.Customer.id,
            m.Customer.region_code == m.Region.code,
            m.Order.amount == m.Label.id,
        )
        .values(status=m.Region.name)
    )
    told = cluster.explain(statement, scatter="allow")

    assert [each.origin for each in told.supplied] == ["labels"]


def test_the_same_plan_serves_other_values(shop: World) -> None:
    m = shop.models
    found = []
    with shop.session() as session:
        for number in (1, 2, 3):
            some = select(m.Customer.id).where(m.Customer.id <= number).order_by(m.Customer.id)
            statement = (
                update(m.Order)
                .where(m.Order.amount.in_(some.limit(number)), m.Order.id > number * 20)
                .values(status=f"{number}")
            )
            found.append(session.execute(statement, execution_options=EVERYWHERE).rowcount)

    assert found == [11, 18, 14]


def _recursive() -> Any:
    numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
    return numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < 3))


REFUSED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a reference table": (
        "would not become the same on every shard",
        lambda m: delete(m.Region).where(~exists().where(m.Order.amount == m.Customer.id)),
    ),
    "a recursive CTE": (
        "a recursive CTE in it would be answered by each shard",
        lambda m: delete(m.Label).where(m.Label.id == _recursive().c.n),
    ),
    "a limited union": (
        "LIMIT of a UNION in it would be answered by each shard",
        lambda m: delete(m.Label).where(
            m.Label.id.in_(union_all(select(m.Order.id), select(m.Customer.id)).limit(3))
        ),
    ),
    "a change within a CTE": (
        "it changes rows inside a CTE",
        lambda m: delete(m.Label).where(
            m.Label.id
            == delete(m.Order).where(m.Order.id > 1).returning(m.Order.id).cte("gone").c.id
        ),
    ),
    "locked rows": (
        "FOR UPDATE would lock copies",
        lambda m: delete(m.Label).where(m.Label.id.in_(select(m.Order.id).with_for_update())),
    ),
    "a choice from a CTE in a subquery": (
        "each shard would choose rows for itself",
        lambda m: delete(m.Label).where(
            m.Label.id.in_(select((found := select(m.Order.id).cte("found")).c.id).limit(2)),
            m.Label.customer_id.in_(select(found.c.id)),
        ),
    ),
    "chance": (
        "the function random",
        lambda m: (
            update(m.Order).where(m.Order.amount == m.Customer.id).values(amount=func.random())
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_differ_is_refused(spread_shop: World, name: str) -> None:
    sentence, make = REFUSED[name]
    with (
        spread_shop.engine.begin() as connection,
        pytest.raises(UnsupportedStatement, match=sentence),
    ):
        connection.execute(make(spread_shop.models), execution_options=EVERYWHERE)


def test_several_parameter_sets_are_refused(spread_shop: World) -> None:
    m = spread_shop.models
    statement = by_customers(m).where(m.Order.customer_id == bindparam("customer"))
    sets = [{"customer": number} for number in (3, 4, 5)]
    with (
        spread_shop.engine.begin() as connection,
        pytest.raises(UnsupportedStatement, match="not joined on the whole shard key"),
    ):
        connection.execute(statement, sets)
