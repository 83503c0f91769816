"""``insert().values([row, row, ...])``: each shard is given its rows, and the answer is one."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import bindparam, func, insert, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import CompileError, DBAPIError, IntegrityError

from sqlalchemy_shards.errors import (
    MissingShardKey,
    RoutingError,
    ShardsError,
    UnsupportedStatement,
)
from tests.shards.shop import CUSTOMERS, World, enlisted

SHUFFLED = [7, 3, 11, 1, 12, 2, 9, 4, 10, 5, 8, 6]


def rows(numbers: Any = SHUFFLED) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"n{number}", "version": 1} for number in numbers]


class TestRows:
    def test_each_lies_where_its_key_says(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            for statement in (
                insert(m.Customer).values(rows(range(100, 200))),
                insert(m.Customer.__table__).values(rows()),
            ):
                session.execute(statement)
            session.commit()

        assert len(world.rows("SELECT id FROM customers")) == 112
        for name, found in world.rows_by_shard("SELECT id FROM customers").items():
            if world.is_spread:
                assert world.cluster is not None
                assert {world.cluster.shard_for(m.Customer, id_) for (id_,) in found} == {name}

    def test_row_counts_add_up(self, world: World) -> None:
        m = world.models
        with world.engine.begin() as connection:
            result = connection.execute(
                insert(m.Customer.__table__).values(rows()),
                execution_options={"preserve_rowcount": True},
            )

        assert result.rowcount == 12

    def test_rows_of_one_shard_go_there_only(self, four_shards: World) -> None:
        m = four_shards.models
        assert four_shards.cluster is not None
        home = four_shards.cluster.shard_for(m.Customer, 1)
        numbers = [n for n in range(100) if four_shards.cluster.shard_for(m.Customer, n) == home]
        with four_shards.session() as session:
            session.execute(insert(m.Customer).values(rows(numbers)))

            assert enlisted(session) == {home}

    def test_all_or_none_is_committed(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.execute(insert(m.Customer).values(rows([1, 2, 3, 4])))
            session.rollback()
            with pytest.raises(IntegrityError):
                session.execute(insert(m.Customer).values(rows([5, 6, 7, 8, 5])))
            session.rollback()
            session.commit()

        assert world.rows("SELECT id FROM customers") == []

    def test_sql_expressions_and_parameters(self, world: World) -> None:
        m = world.models
        t = m.Customer.__table__
        given = [
            {"id": 7, "name": func.upper("seven"), "version": 1},
            {"id": 3, "name": bindparam("third"), "version": 1},
            {"id": bindparam("key"), "name": func.lower(bindparam("fourth")), "version": 1},
            {"id": 11, "name": literal("a") + "b", "version": 1},
        ]
        with world.engine.begin() as connection:
            values = {"third": "THREE", "key": 4, "fourth": "FOUR"}
            connection.execute(insert(t).values(given), values)

        assert world.rows("SELECT id, name FROM customers") == [
            (3, "THREE"),
            (4, "four"),
            (7, "SEVEN"),
            (11, "ab"),
        ]

    def test_client_side_defaults_of_each_row(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            owners = [{"owner_id": number, "title": str(number)} for number in SHUFFLED]
            found = session.execute(
                insert(m.Document).values(owners).returning(m.Document.id, m.Document.owner_id)
            ).all()
            session.commit()

        assert len({key for key, _ in found}) == 12
        assert sorted(found) == world.rows("SELECT id, owner_id FROM documents")

    def test_tuples(self, world: World) -> None:
        m = world.models
        t = m.order_labels
        with world.session() as session:
            session.add_all([m.Customer(id=n, name="x") for n in (1, 2, 3)])
            session.flush()
            session.add_all([m.Order(customer_id=n, id=n, amount=1) for n in (1, 2, 3)])
            session.add_all([m.Label(customer_id=n, id=n, text="x") for n in (1, 2, 3)])
            session.flush()
            session.execute(insert(t).values([(3, 3, 3), (1, 1, 1), (2, 2, 2)]))
            session.commit()

        assert world.rows("SELECT customer_id FROM order_labels") == [(1,), (2,), (3,)]


class TestReturning:
    @pytest.mark.parametrize("times", [1, 2])
    def test_columns_come_in_the_order_given(self, world: World, times: int) -> None:
        m = world.models
        with world.session() as session:
            for time in range(times):
                numbers = [number + 100 * time for number in SHUFFLED]
                statement = insert(m.Customer).values(rows(numbers))
                found = session.execute(
                    statement.returning(m.Customer.id, func.upper(m.Customer.name))
                ).all()

                assert found == [(number, f"N{number}") for number in numbers]

    def test_objects_come_in_the_order_given(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            found = session.scalars(insert(m.Customer).values(rows()).returning(m.Customer)).all()
            session.commit()

            assert [each.id for each in found] == SHUFFLED
            assert {each.id: each.home for each in found} == dict(
                world.rows("SELECT id, home FROM customers")
            )

    def test_core_rows_come_in_the_order_given(self, world: World) -> None:
        m = world.models
        t = m.Customer.__table__
        with world.engine.begin() as connection:
            found = connection.execute(insert(t).values(rows()).returning(t)).mappings().all()

        assert [each["id"] for each in found] == SHUFFLED


class TestUpserts:
    def test_do_update(self, shop: World) -> None:
        m = shop.models
        statement = upsert(m.Customer).values(rows([*SHUFFLED, 20, 21]))
        statement = statement.on_conflict_do_update(
            index_elements=["id"],
            set_={"name": statement.excluded.name, "notes": "twice"},
            where=m.Customer.id > 0,
        )
        with shop.session() as session:
            result = session.execute(statement.returning(m.Customer.id, m.Customer.notes)).all()
            session.commit()

        assert result == [*((n, "twice") for n in SHUFFLED), (20, None), (21, None)]
        assert len(shop.rows("SELECT id FROM customers WHERE name LIKE 'n%'")) == 14

    def test_do_nothing(self, shop: World) -> None:
        m = shop.models
        statement = upsert(m.Customer.__table__).values(rows([*SHUFFLED, 20, 21, 22]))
        with shop.engine.begin() as connection:
            some = connection.execute(
                statement.on_conflict_do_nothing(),
                execution_options={"preserve_rowcount": True},
            )
            none = connection.execute(
                statement.on_conflict_do_nothing(index_elements=["id"]).returning(m.Customer.id)
            ).all()

        assert (some.rowcount, none) == (3, [])
        assert len(shop.rows("SELECT id FROM customers")) == 15

    def test_do_nothing_returns_what_was_inserted(self, shop: World) -> None:
        m = shop.models
        t = m.Customer.__table__
        statement = upsert(t).values(rows([25, 1, 24, 2, 23, 3]))
        with shop.engine.begin() as connection:
            found = connection.execute(statement.on_conflict_do_nothing().returning(t.c.id)).all()

        assert sorted(found) == [(23,), (24,), (25,)]

    def test_the_same_row_twice_is_an_error_as_ever(self, world: World) -> None:
        m = world.models
        statement = upsert(m.Customer).values(rows([1, 2, 1]))
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"name": "x"})
        with world.session() as session, pytest.raises(DBAPIError, match="a second time"):
            session.execute(statement)


class TestRefusals:
    def test_a_row_without_a_key(self, four_shards: World) -> None:
        m = four_shards.models
        given = [
            {"id": 1, "customer_id": 1, "amount": 1},
            {"id": 2, "customer_id": None, "amount": 1},
        ]
        with four_shards.session() as session, pytest.raises(MissingShardKey, match="no value"):
            session.execute(insert(m.Order).values(given))

    def test_a_computed_key(self, four_shards: World) -> None:
        m = four_shards.models
        given = [{"id": 1, "name": "x"}, {"id": func.abs(-2), "name": "x"}]
        with four_shards.session() as session, pytest.raises(MissingShardKey, match="not known"):
            session.execute(insert(m.Customer).values(given))

    def test_a_value_of_another_type(self, four_shards: World) -> None:
        m = four_shards.models
        given = [{"id": 1, "name": "x"}, {"id": "two", "name": "x"}]
        with four_shards.session() as session, pytest.raises(RoutingError, match="of type str"):
            session.execute(insert(m.Customer).values(given))

    def test_a_row_that_reads_another_shard(self, four_shards: World) -> None:
        m = four_shards.models
        name = select(m.Customer.name).where(m.Customer.id == 5).scalar_subquery()
        given = [{"id": 1, "name": "x"}, {"id": 2, "name": name}]
        with four_shards.session() as session, pytest.raises(UnsupportedStatement, match="reads"):
            session.execute(insert(m.Customer).values(given))

    def test_a_row_without_a_value_that_the_first_has(self, world: World) -> None:
        m = world.models
        given = [{"id": 1, "name": "x"}, {"id": 2}]
        with world.session() as session, pytest.raises((CompileError, ShardsError)):
            session.execute(insert(m.Customer).values(given))

    def test_a_shard_that_is_not_the_rows(self, four_shards: World) -> None:
        m = four_shards.models
        statement = insert(m.Customer).values(rows(CUSTOMERS))
        with four_shards.session() as session, pytest.raises(RoutingError, match="option names"):
            session.execute(statement, execution_options={"shard": "s0"})
