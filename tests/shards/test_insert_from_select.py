"""INSERT ... SELECT: rows are made where they lie, or read first and sent there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    CursorResult,
    Double,
    Numeric,
    String,
    bindparam,
    cast,
    func,
    insert,
    literal,
    null,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import aliased

from sqlalchemy_shards import GatherLimit
from sqlalchemy_shards.errors import (
    GatherLimitExceeded,
    MissingShardKey,
    RoutingError,
    ScatterNotAllowed,
    UnsupportedStatement,
)
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


def shifted(m: Any, *more: Any) -> Any:
    """Rows of orders for the next customer, who lives elsewhere."""
    columns = (m.Order.customer_id % 12 + 1, m.Order.id + 1000, *more)
    return select(*columns)


MOVED: dict[str, Callable[[Any], Any]] = {
    "another column": lambda m: select(m.Order.amount, m.Order.id, m.Order.status),
    "a computed key": lambda m: shifted(m, m.Order.status),
    "a limit": lambda m: (
        select(m.Order.customer_id, m.Order.id, m.Order.status).order_by(m.Order.id.desc()).limit(5)
    ),
    "groups of another column": lambda m: select(
        func.max(m.Order.customer_id), func.max(m.Order.id), m.Order.status
    ).group_by(m.Order.status),
    "a window": lambda m: select(
        m.Order.customer_id,
        100 + func.row_number().over(order_by=m.Order.id),
        m.Order.status,
    ),
    "chance": lambda m: select(m.Order.customer_id, m.Order.id, m.Order.status).where(
        func.random() < 2
    ),
    "tables that are not co-located": lambda m: select(
        m.Order.customer_id, m.Order.id, (other := aliased(m.Customer)).name
    ).join(other, other.id == m.Order.amount),
    "the filled side of an outer join": lambda m: (
        select(m.Order.customer_id, m.Customer.id + 100, m.Customer.name)
        .outerjoin_from(m.Customer, m.Order, m.Customer.id == m.Order.customer_id)
        .where(m.Order.amount == 1)
    ),
    "a union": lambda m: union_all(
        shifted(m, m.Order.status), select(m.Customer.id, m.Customer.id + 500, m.Customer.name)
    ),
    "a CTE": lambda m: select(
        (
            made := select(m.Order.customer_id, func.count().label("n"))
            .group_by(m.Order.customer_id)
            .cte("made")
        ).c.customer_id
        % 12
        + 1,
        made.c.n + 50,
        cast(made.c.n, String),
    ),
    "columns of one name": lambda m: (
        select(m.Order.id % 12 + 1, m.Customer.id + 300, m.Customer.id.cast(String))
        .join(m.Customer, m.Customer.id == m.Order.customer_id)
        .where(m.Order.amount == 2)
    ),
    "one key, and rows of all shards": lambda m: select(literal(5), m.Order.id, m.Order.status),
    "a global table": lambda m: select(m.Customer.id, literal(77), m.Flag.name).join(
        m.Flag, m.Flag.id == 3
    ),
    "nothing": lambda m: shifted(m, m.Order.status).where(m.Order.amount > 50),
}


class TestRowsMove:
    @pytest.mark.parametrize("make", MOVED.values(), ids=MOVED.keys())
    def test_as_one_database_would(
        self, plain: World, four_shards: World, make: Callable[[Any], Any]
    ) -> None:
        results = []
        for world in (plain, four_shards):
            world.fill()
            m = world.models
            with world.session() as session, session.begin():
                session.add(m.Flag(id=3, name="flag"))
            count = run(world, insert(m.Label).from_select(COLUMNS, make(m)), **EVERYWHERE)
            again = upsert(m.Label).from_select(COLUMNS, make(m)).on_conflict_do_nothing()
            none = run(world, again.returning(m.Label.id), **EVERYWHERE)
            results.append((count, none, world.rows("SELECT customer_id, id, text FROM labels")))
            check_homes(world, "labels")

        assert results[0] == results[1]
        assert results[1][1] == []

    def test_returned_rows_are_those_of_all(self, plain: World, four_shards: World) -> None:
        found = []
        for world in (plain, four_shards):
            world.fill()
            m = world.models
            statement = insert(m.Order).from_select(
                ["customer_id", "id", "amount"], shifted(m, m.Order.amount).order_by(m.Order.id)
            )
            with world.session() as session, session.begin():
                orders = session.scalars(statement.returning(m.Order), execution_options=EVERYWHERE)
                found.append(sorted((each.customer_id, each.id, each.doubled) for each in orders))

        assert found[0] == found[1]
        assert len(found[0]) == 24

    def test_values_take_the_types_of_their_columns(self, plain: World, four_shards: World) -> None:
        found = []
        for world in (plain, four_shards):
            world.fill()
            m = world.models
            amount = m.Order.amount * literal(1.5, Numeric)
            run(
                world,
                insert(m.Order).from_select(
                    ["customer_id", "id", "amount", "status"], shifted(m, amount, null())
                ),
                **EVERYWHERE,
            )
            found.append(world.rows("SELECT customer_id, id, amount, status FROM orders"))

        assert found[0] == found[1]

    def test_rows_are_updated_where_they_conflict(self, plain: World, four_shards: World) -> None:
        found = []
        for world in (plain, four_shards):
            world.fill()
            m = world.models
            made = select(m.Order.customer_id % 12 + 1, m.Order.amount, literal("x"))
            statement = upsert(m.Label).from_select(COLUMNS, made.where(m.Order.amount < 9))
            statement = statement.on_conflict_do_update(
                index_elements=["customer_id", "id"],
                set_={"text": m.Label.text + statement.excluded.text + bindparam("more")},
                where=m.Label.customer_id > bindparam("low"),
            ).returning(m.Label.customer_id, m.Label.text)
            with world.engine.begin() as connection:
                connection = connection.execution_options(**EVERYWHERE)
                rows = connection.execute(statement, {"more": "!", "low": 3}).all()
            found.append((sorted(rows), world.rows("SELECT customer_id, text FROM labels")))

        assert found[0] == found[1]
        assert len(found[0][0]) == 18

    def test_a_row_is_not_updated_twice(self, shop: World) -> None:
        m = shop.models
        statement = upsert(m.Label).from_select(
            COLUMNS, select(m.Order.customer_id % 12 + 1, literal(1), m.Order.status)
        )
        statement = statement.on_conflict_do_update(
            index_elements=["customer_id", "id"], set_={"text": "x"}
        )
        with pytest.raises(ProgrammingError, match="second time"):
            run(shop, statement, **EVERYWHERE)

    def test_rows_may_refer_to_each_other(self, shop: World) -> None:
        m = shop.models
        made = select(m.Order.customer_id % 12 + 1, m.Order.amount, 3 - m.Order.amount)
        count = run(
            shop,
            insert(m.Comment).from_select(["customer_id", "id", "parent_id"], made),
            **EVERYWHERE,
        )

        assert count == 24

    def test_values_of_the_application_arrive(self, shop: World) -> None:
        m = shop.models
        made = select(m.Order.customer_id % bindparam("many") + 1, m.Order.id, m.Order.status)
        made = made.where(m.Order.amount.in_(bindparam("amounts", expanding=True)))
        statement = insert(m.Label).from_select(COLUMNS, made)
        with shop.engine.begin() as connection:
            connection = connection.execution_options(preserve_rowcount=True, **EVERYWHERE)
            counts = [
                connection.execute(statement, {"many": 12, "amounts": amounts}).rowcount
                for amounts in ([1], [2, 3])
            ]

        assert counts == [12, 12]

    def test_more_rows_than_a_gather_may_bring_together(self, four_shards: World) -> None:
        m = four_shards.models
        four_shards.fill()
        many = [
            {"customer_id": 1 + number % 12, "id": 10 + number, "text": "x"}
            for number in range(12_000)
        ]
        made = select(m.Label.customer_id % 12 + 1, m.Label.id + 100_000, m.Label.text)
        statement = insert(m.Label).from_select(COLUMNS, made.where(m.Label.text == "x"))
        options = {**EVERYWHERE, "gather_limit": GatherLimit(rows=100)}
        with four_shards.session() as session, session.begin():
            session.execute(insert(m.Label), many)
        count = run(four_shards, statement, **options)
        late = upsert(m.Label).from_select(COLUMNS, made)
        late = late.on_conflict_do_update(index_elements=["customer_id", "id"], set_={"text": "y"})
        with pytest.raises(GatherLimitExceeded, match="inserted by one statement"):
            run(four_shards, late, **options)

        assert count == 12_000
        check_homes(four_shards, "labels")

    def test_a_row_without_a_key_leaves_nothing(self, spread_shop: World) -> None:
        m = spread_shop.models
        made = select(func.nullif(m.Order.amount, 2), m.Order.id, m.Order.status)
        with spread_shop.session() as session:
            with pytest.raises(MissingShardKey):
                session.execute(
                    insert(m.Label).from_select(COLUMNS, made), execution_options=EVERYWHERE
                )
            session.commit()

        assert len(spread_shop.rows("SELECT id FROM labels")) == 24

    def test_rows_must_belong_where_an_option_says(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = insert(m.Label).from_select(COLUMNS, shifted(m, m.Order.status))
        with pytest.raises(RoutingError, match="execution option names"):
            run(spread_shop, statement, shard="s0")

    def test_not_on_every_shard_unasked(self, spread_shop: World) -> None:
        m = spread_shop.models
        with pytest.raises(ScatterNotAllowed, match="INSERT of table 'labels'"):
            run(spread_shop, insert(m.Label).from_select(COLUMNS, shifted(m, m.Order.status)))

    def test_what_is_no_row_of_the_select_is_refused(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = insert(m.Label).from_select(COLUMNS, shifted(m, m.Order.status))
        statement = statement.returning(select(func.max(m.Region.name)).scalar_subquery())
        with pytest.raises(UnsupportedStatement, match="subqueries beside its SELECT"):
            run(spread_shop, statement, **EVERYWHERE)

    def test_several_parameter_sets_in_autocommit_are_refused(self, spread_shop: World) -> None:
        m = spread_shop.models
        made = shifted(m, m.Order.status).where(m.Order.amount == bindparam("n"))
        statement = insert(m.Label).from_select(COLUMNS, made).execution_options(**EVERYWHERE)
        refused = pytest.raises(ScatterNotAllowed, match="half done")
        with spread_shop.engine.connect() as connection, refused:
            autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
            autocommit.execute(statement, [{"n": 1}, {"n": 2}])

    def test_a_cte_that_writes_is_refused(self, spread_shop: World) -> None:
        m = spread_shop.models
        writes = insert(m.Flag.__table__).values(id=77, name="x").cte("writes")
        statement = insert(m.Label).from_select(COLUMNS, shifted(m, m.Order.status))
        with pytest.raises(UnsupportedStatement, match="changes rows inside a CTE"):
            run(spread_shop, statement.add_cte(writes), **EVERYWHERE)

    def test_rounded_numbers_are_refused(self, spread_shop: World) -> None:
        m = spread_shop.models
        made = shifted(m, cast(m.Order.amount, Double) / 3)
        statement = insert(m.Order).from_select(["customer_id", "id", "amount"], made)
        with spread_shop.session() as session:
            session.execute(text("SET LOCAL extra_float_digits = 0"))
            with pytest.raises(UnsupportedStatement, match="extra_float_digits"):
                session.execute(statement, execution_options=EVERYWHERE)

    def test_it_is_explained(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = insert(m.Label).from_select(COLUMNS, shifted(m, m.Order.status))
        assert spread_shop.cluster is not None
        told = spread_shop.cluster.explain(statement, scatter="allow")
        measured = spread_shop.cluster.explain(statement, scatter="allow", analyze=True)

        assert "inserted into the shards of their keys" in str(told)
        assert measured.measured is not None
        assert measured.measured.rows == 24
        assert len(spread_shop.rows("SELECT id FROM labels")) == 24


class TestOtherTables:
    def test_a_reference_table_is_filled_from_all_shards(
        self, plain: World, four_shards: World
    ) -> None:
        found = []
        for world in (plain, four_shards):
            world.fill()
            m = world.models
            made = select(cast(m.Customer.id, String), m.Customer.name)
            count = run(world, insert(m.Region).from_select(["code", "name"], made))
            statement = upsert(m.Region).from_select(
                ["code", "name"],
                select(m.Customer.region_code, func.max(m.Customer.name)).group_by(
                    m.Customer.region_code
                ),
            )
            statement = statement.on_conflict_do_update(
                index_elements=["code"], set_={"name": statement.excluded.name}
            )
            rows = run(world, statement.returning(m.Region.code, m.Region.name))
            copies = world.rows_by_shard("SELECT code, name FROM regions").values()
            found.append((count, sorted(rows), *{tuple(each) for each in copies}))

        assert found[0] == found[1]
        assert found[0][0] == 12

    def test_a_global_table_is_filled_from_all_shards(
        self, plain: World, four_shards: World
    ) -> None:
        found = []
        for world in (plain, four_shards):
            world.fill()
            m = world.models
            made = select(m.Customer.id, m.Customer.name).where(m.Customer.id < 9)
            count = run(world, insert(m.Flag).from_select(["id", "name"], made))
            made = select(m.Customer.id + 100, m.Flag.name)
            made = made.outerjoin(m.Flag, m.Flag.id == m.Customer.id)
            statement = insert(m.Flag).from_select(["id", "name"], made)
            rows = run(world, statement.returning(m.Flag.id, m.Flag.name))
            one = select(m.Customer.id, m.Customer.name).where(m.Customer.id == 11)
            alone = run(world, insert(m.Flag).from_select(["id", "name"], one))
            with world.session() as session:
                flags = session.execute(select(m.Flag.id, m.Flag.name)).all()
            found.append((count, sorted(rows), alone, sorted(flags)))

        assert found[0] == found[1]
        assert found[0][0] == 8


def check_homes(world: World, table: str) -> None:
    """Each row lies where its key says."""
    if world.cluster is None:
        return
    for name, rows in world.rows_by_shard(f"SELECT DISTINCT customer_id FROM {table}").items():
        homes = {world.cluster.shard_for(world.models.Customer, number) for (number,) in rows}
        assert homes <= {name}


def test_one_default_for_all_rows_is_refused(spread_shop: World) -> None:
    m = spread_shop.models
    statement = insert(m.Document).from_select(
        ["owner_id", "title"], select(m.Customer.id, m.Customer.name)
    )
    with pytest.raises(UnsupportedStatement, match="same primary key"):
        run(spread_shop, statement, **EVERYWHERE)
