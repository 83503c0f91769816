"""INSERT ... SELECT: rows are made where they lie, by one shard or by each, or it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import CursorResult, func, insert, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import aliased

from sqlalchemy_shards.errors import ScatterNotAllowed, UnsupportedStatement
from tests.shards.shop import CUSTOMERS, World, enlisted

if TYPE_CHECKING:
    from collections.abc import Callable

EVERYWHERE = {"scatter": "allow"}
COLUMNS = ["customer_id", "id", "text"]


def run(world: World, statement: Any, **options: Any) -> Any:
    with world.session() as session:
        result = session.execute(
            statement, execution_options={"preserve_rowcount": True, **options}
        )
        has_rows = not isinstance(result, CursorResult) or result.returns_rows
        rows = result.all() if has_rows else result.rowcount
        session.commit()
        return rows


SELECTS: dict[str, Callable[[Any], Any]] = {
    "all rows": lambda m: select(m.Customer.id, m.Customer.id + 100, m.Customer.name),
    "a list of keys": lambda m: select(
        m.Order.customer_id, m.Order.id, literal("made of an order")
    ).where(m.Order.customer_id.in_([1, 2, 3, 4])),
    "a join": lambda m: select(m.Order.customer_id, m.Order.id, m.Customer.name).join(
        m.Customer, m.Customer.id == m.Order.customer_id
    ),
    "a reference table": lambda m: select(m.Customer.id, literal(7), m.Region.name).join(
        m.Region, m.Region.code == m.Customer.region_code
    ),
    "groups of a key": lambda m: select(
        m.Order.customer_id, func.sum(m.Order.id), func.min(m.Order.status)
    ).group_by(m.Order.customer_id),
    "distinct keys": lambda m: select(m.Order.customer_id, literal(9), m.Order.status).distinct(),
    "a subquery": lambda m: select(
        (made := select(m.Customer.id, m.Customer.name).where(m.Customer.id > 3).subquery()).c.id,
        literal(5),
        made.c.name,
    ),
}


class TestEachShardDoesItsPart:
    @pytest.mark.parametrize("make", SELECTS.values(), ids=SELECTS.keys())
    def test_as_one_database_would(
        self, plain: World, four_shards: World, make: Callable[[Any], Any]
    ) -> None:
        results = []
        for world in (plain, four_shards):
            world.fill()
            m = world.models
            statement = insert(m.Label).from_select(COLUMNS, make(m))
            count = run(world, statement, **EVERYWHERE)
            again = upsert(m.Label).from_select(COLUMNS, make(m)).on_conflict_do_nothing()
            none = run(world, again, **EVERYWHERE)
            results.append((count, none, world.rows("SELECT customer_id, id, text FROM labels")))

        assert results[0] == results[1]
        assert results[0][0] > 3

    def test_returned_rows_are_those_of_all(self, shop: World) -> None:
        m = shop.models
        statement = insert(m.Label).from_select(COLUMNS, SELECTS["all rows"](m))
        found = run(shop, statement.returning(m.Label.id), **EVERYWHERE)

        assert sorted(found) == [(number + 100,) for number in CUSTOMERS]

    def test_rows_lie_where_their_keys_say(self, spread_shop: World) -> None:
        m = spread_shop.models
        assert spread_shop.cluster is not None
        run(spread_shop, insert(m.Label).from_select(COLUMNS, SELECTS["all rows"](m)), shard="*")

        for name, rows in spread_shop.rows_by_shard("SELECT customer_id FROM labels").items():
            homes = {spread_shop.cluster.shard_for(m.Customer, number) for (number,) in rows}
            assert homes == {name}

    def test_not_on_every_shard_unasked(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = insert(m.Label).from_select(COLUMNS, SELECTS["all rows"](m))
        with pytest.raises(ScatterNotAllowed, match="INSERT of table 'labels'"):
            run(spread_shop, statement)


class TestOneShard:
    def test_rows_of_one_key(self, shop: World) -> None:
        m = shop.models
        made = select(m.Order.customer_id, m.Order.id, literal("x")).where(m.Order.customer_id == 4)
        # On one shard all that PostgreSQL can do works.
        made = made.order_by(m.Order.id.desc()).limit(1)
        with shop.session() as session:
            session.execute(insert(m.Label).from_select(COLUMNS, made))
            asked = enlisted(session) if shop.is_spread else {"one"}
            session.commit()

        assert len(asked) == 1
        assert shop.rows("SELECT customer_id, id FROM labels WHERE text = 'x'") == [(4, 42)]

    def test_a_key_that_is_a_value(self, shop: World) -> None:
        m = shop.models
        made = select(literal(4), m.Order.id, literal("x")).where(m.Order.customer_id == 4)
        count = run(shop, insert(m.Label).from_select(COLUMNS, made))
        run(
            shop, insert(m.Label).from_select(COLUMNS, select(literal(5), literal(9), literal("x")))
        )

        assert count == 2
        assert shop.rows("SELECT customer_id, id FROM labels WHERE text = 'x'") == [
            (4, 41),
            (4, 42),
            (5, 9),
        ]

    def test_no_key_at_all(self, shop: World) -> None:
        m = shop.models
        made = select(m.Order.customer_id, m.Order.id, literal("x"))
        statement = insert(m.Label).from_select(COLUMNS, made.where(m.Order.customer_id.in_([])))

        assert run(shop, statement) == 0


REFUSED: dict[str, Callable[[Any], Any]] = {
    "another column": lambda m: select(m.Order.id, m.Order.id, m.Order.status),
    "a computed key": lambda m: select(m.Order.customer_id + 1, m.Order.id, m.Order.status),
    "a limit": lambda m: select(m.Order.customer_id, m.Order.id, m.Order.status).limit(3),
    "groups of another column": lambda m: select(
        func.max(m.Order.customer_id), func.max(m.Order.id), m.Order.status
    ).group_by(m.Order.status),
    "a window": lambda m: select(
        m.Order.customer_id, func.row_number().over(order_by=m.Order.id), m.Order.status
    ),
    "chance": lambda m: select(m.Order.customer_id, m.Order.id, m.Order.status).where(
        func.random() < 2
    ),
    "tables that are not co-located": lambda m: select(
        m.Order.customer_id, m.Order.id, (other := aliased(m.Customer)).name
    ).join(other, other.id == m.Order.amount),
    "the filled side of an outer join": lambda m: select(
        m.Order.customer_id, m.Customer.id, m.Customer.name
    ).outerjoin_from(m.Customer, m.Order, m.Customer.id == m.Order.customer_id),
    "a union": lambda m: select(m.Order.customer_id, m.Order.id, m.Order.status).union_all(
        select(m.Customer.id, m.Customer.id, m.Customer.name)
    ),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_what_would_move_rows_is_refused(spread_shop: World, make: Callable[[Any], Any]) -> None:
    m = spread_shop.models
    statement = insert(m.Label).from_select(COLUMNS, make(m))
    with pytest.raises(UnsupportedStatement):
        run(spread_shop, statement, **EVERYWHERE)

    assert spread_shop.rows("SELECT count(*) FROM labels WHERE id > 2") == [(0,)] * 4


def test_one_default_for_all_rows_is_refused(spread_shop: World) -> None:
    m = spread_shop.models
    statement = insert(m.Document).from_select(
        ["owner_id", "title"], select(m.Customer.id, m.Customer.name)
    )
    with pytest.raises(UnsupportedStatement, match="same primary key"):
        run(spread_shop, statement, **EVERYWHERE)
