"""INSERT ... SELECT whose rows move, run with several parameter sets, or with CTEs of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import bindparam, func, insert, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DataError, InternalError

from sqlalchemy_shards.errors import MissingShardKey, UnsupportedStatement
from tests.shards.shop import CUSTOMERS
from tests.shards.test_insert_from_select import COLUMNS, EVERYWHERE, run, shifted

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.shop import World

AMOUNT = bindparam("n")
LABELS = "SELECT customer_id, id, text FROM labels"


def of_amount(m: Any) -> Any:
    return shifted(m, m.Order.status).where(m.Order.amount == AMOUNT)


def from_itself(m: Any) -> Any:
    """Rows that the set before has made."""
    return select(m.Label.customer_id % 12 + 1, m.Label.id + 1000, m.Label.text).where(
        m.Label.id >= AMOUNT
    )


SETS: dict[str, tuple[Callable[[Any], Any], list[int]]] = {
    "other rows for each": (of_amount, [1, 2, 3]),
    "one finds nothing": (of_amount, [1, 99]),
    "rows of the set before": (from_itself, [1, 1001, 2001]),
    "one key for all": (
        lambda m: select(literal(5), m.Order.id + m.Order.customer_id * 100, m.Order.status).where(
            m.Order.amount == AMOUNT
        ),
        [1, 2],
    ),
    "a key of the set": (
        lambda m: (
            select(bindparam("n", type_=m.Label.customer_id.type), m.Order.id, literal("x"))
            .order_by(m.Order.customer_id, m.Order.id)
            .limit(1)
        ),
        [3, 7],
    ),
}


class TestSeveralParameterSets:
    @pytest.mark.parametrize(("make", "values"), SETS.values(), ids=SETS)
    def test_as_one_database_would(
        self, plain: World, four_shards: World, make: Callable[[Any], Any], values: list[int]
    ) -> None:
        found = []
        for world in (plain, four_shards):
            world.fill()
            statement = insert(world.models.Label).from_select(COLUMNS, make(world.models))
            with world.engine.begin() as connection:
                result = connection.execute(
                    statement,
                    [{"n": value} for value in values],
                    execution_options={**EVERYWHERE, "preserve_rowcount": True},
                )
                count = result.rowcount
            found.append((count, world.rows(LABELS)))

        assert found[0] == found[1]
        assert found[0][0] > 0

    def test_conflicts_and_defaults_are_those_of_each_set(
        self, plain: World, four_shards: World
    ) -> None:
        found = []
        for world in (plain, four_shards):
            world.fill()
            m = world.models
            made = select(m.Customer.id + AMOUNT, m.Customer.name, literal(1))
            statement = upsert(m.Customer.__table__).from_select(
                ["id", "name", "version"], made.where(m.Customer.id < 6)
            )
            statement = statement.on_conflict_do_nothing()
            with world.engine.begin() as connection:
                sets = [{"n": 4}, {"n": 4}, {"n": 100}]
                result = connection.execute(
                    statement, sets, execution_options={**EVERYWHERE, "preserve_rowcount": True}
                )
                count = result.rowcount
            found.append((count, world.rows("SELECT id, name, version FROM customers")))

        assert found[0] == found[1]
        assert found[0][0] == 5

    def test_every_copy_of_a_reference_table_gets_the_rows_of_each(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        made = select(func.concat("r", m.Customer.id), m.Customer.name)
        statement = insert(m.Region).from_select(
            ["code", "name"], made.where(m.Customer.id == AMOUNT)
        )
        with spread_shop.engine.begin() as connection:
            connection.execute(statement, [{"n": 1}, {"n": 2}])

        stored = spread_shop.rows_by_shard("SELECT code FROM regions WHERE code LIKE 'r%'")
        assert list(stored.values()) == [[("r1",), ("r2",)]] * 4

    @pytest.mark.parametrize(
        ("key", "error"),
        [
            (lambda key: func.nullif(key, 6), MissingShardKey),
            (lambda key: key / (6 - key), DataError),
        ],
        ids=["refused here", "refused by a server"],
    )
    def test_what_stops_at_a_later_set_fails_the_transaction(
        self, spread_shop: World, key: Callable[[Any], Any], error: type[Exception]
    ) -> None:
        m = spread_shop.models
        before = spread_shop.rows(LABELS)
        made = select(key(m.Customer.id), m.Customer.id + 1000, literal("x"))
        statement = insert(m.Label).from_select(COLUMNS, made.where(m.Customer.id == AMOUNT))
        sets = [{"n": value} for value in (5, 6, 7)]
        with spread_shop.engine.connect() as connection:
            with pytest.raises(error):
                connection.execute(statement, sets, execution_options=EVERYWHERE)
            with pytest.raises(InternalError, match="aborted"):
                connection.execute(select(m.Label.id), execution_options=EVERYWHERE)
            connection.rollback()

        assert spread_shop.rows(LABELS) == before


def used(m: Any) -> tuple[Any, Any]:
    best = select(func.max(m.Order.amount).label("amount")).cte("best")
    made = shifted(m, m.Order.status).where(m.Order.amount == best.c.amount)
    return made, best


def unused(m: Any) -> tuple[Any, Any]:
    return shifted(m, m.Order.status), select(m.Order.id).cte("more")


def named_as_the_table(m: Any) -> tuple[Any, Any]:
    """What the SELECT calls ``orders`` is the CTE."""
    orders = m.Order.__table__
    made = select(orders.c.customer_id % 12 + 1, orders.c.id + 1000, orders.c.status)
    few = select(*orders.c).where(orders.c.amount == 1).cte("orders")
    return made, few


def with_parameters(m: Any) -> tuple[Any, Any]:
    few = select(m.Customer.id).where(m.Customer.id < bindparam("below", 5)).cte("few")
    return shifted(m, m.Order.status).where(m.Order.customer_id.in_(select(few.c.id))), few


class TestOwnCtes:
    @pytest.mark.parametrize("nest_here", [False, True])
    @pytest.mark.parametrize("make", [used, unused, named_as_the_table, with_parameters])
    def test_as_one_database_would(
        self, plain: World, four_shards: World, make: Callable[[Any], Any], nest_here: bool
    ) -> None:
        found = []
        for world in (plain, four_shards):
            world.fill()
            made, cte = make(world.models)
            statement = insert(world.models.Label).from_select(COLUMNS, made)
            statement = statement.add_cte(cte, nest_here=nest_here)
            try:
                count = run(world, statement, **EVERYWHERE)
            except UnsupportedStatement:
                assert make is named_as_the_table
                return
            found.append((count, world.rows(LABELS)))

        assert found[0] == found[1]
        assert found[0][0] > 0

    def test_rows_come_back(self, plain: World, four_shards: World) -> None:
        found = []
        for world in (plain, four_shards):
            world.fill()
            made, cte = used(world.models)
            statement = insert(world.models.Label).from_select(COLUMNS, made).add_cte(cte)
            found.append(
                sorted(
                    run(world, statement.returning(world.models.Label.customer_id), **EVERYWHERE)
                )
            )

        assert found[0] == found[1]
        assert {key for (key,) in found[0]} <= set(CUSTOMERS)
