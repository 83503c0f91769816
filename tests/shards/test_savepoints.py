"""One savepoint over all shards, those that join the transaction later included."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from sqlalchemy_shards import ShardedSession
from tests.shards.shop import CUSTOMERS, World, enlisted


def names(world: World) -> set[str]:
    return {name for (name,) in world.rows("SELECT name FROM customers")}


class TestSessions:
    def test_a_kept_and_an_undone_savepoint(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.add_all([m.Customer(id=n, name="outer") for n in CUSTOMERS])
            with session.begin_nested():
                session.add_all([m.Customer(id=n + 100, name="kept") for n in CUSTOMERS])
            undone = session.begin_nested()
            session.add_all([m.Customer(id=n + 200, name="undone") for n in CUSTOMERS])
            session.flush()
            undone.rollback()
            session.commit()

        assert names(world) == {"outer", "kept"}

    def test_an_error_within_a_savepoint_leaves_the_rest(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.add_all([m.Customer(id=n, name="outer") for n in CUSTOMERS])
            session.flush()
            for number in CUSTOMERS:
                with suppress(IntegrityError), session.begin_nested():
                    session.add(m.Customer(id=number + 50, name="undone"))
                    session.flush()
                    session.add(m.Order(customer_id=999, id=1, amount=1))
                    session.flush()
            session.add(m.Customer(id=99, name="after"))
            session.commit()

        assert names(world) == {"outer", "after"}

    def test_savepoints_nest(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            with session.begin_nested():
                session.add_all([m.Customer(id=n, name="one") for n in CUSTOMERS])
                two = session.begin_nested()
                session.add_all([m.Customer(id=n + 100, name="two") for n in CUSTOMERS])
                with session.begin_nested():
                    session.add_all([m.Customer(id=n + 200, name="three") for n in CUSTOMERS])
                two.rollback()
                with session.begin_nested():
                    session.add_all([m.Customer(id=n + 300, name="four") for n in CUSTOMERS])
            session.commit()

        assert names(world) == {"one", "four"}

    def test_rolling_back_expires_what_was_changed_within(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            customer = session.get(m.Customer, 5)
            savepoint = session.begin_nested()
            customer.name = "undone"
            session.flush()
            savepoint.rollback()
            name = customer.name

        assert name == "customer 5"

    def test_a_session_within_an_outer_transaction_of_a_test(self, shop: World) -> None:
        """SQLAlchemy's recipe for test suites: nothing that the session commits stays."""
        m = shop.models
        with shop.engine.connect() as connection:
            outer = connection.begin()
            make = ShardedSession if shop.cluster else Session
            with make(bind=connection, join_transaction_mode="create_savepoint") as session:
                session.add_all([m.Customer(id=n + 100, name="within") for n in CUSTOMERS])
                session.commit()
                session.get(m.Customer, 101).name = "changed"
                session.rollback()
                seen = session.get(m.Customer, 101).name
                session.delete(session.get(m.Label, (1, 1)))
                session.commit()
            outer.rollback()

        assert seen == "within"
        assert len(names(shop)) == len(CUSTOMERS)
        assert len(shop.rows("SELECT * FROM labels")) == 24


class TestLateEnlistment:
    def test_a_shard_that_joins_later_takes_part_in_open_savepoints(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        first, second = two_customers(spread_shop)
        with spread_shop.session() as session:
            session.get(m.Customer, first).name = "kept"
            session.flush()
            before = enlisted(session)
            savepoint = session.begin_nested()
            session.get(m.Customer, second).name = "undone"
            session.flush()
            after = enlisted(session)
            savepoint.rollback()
            session.commit()

        assert (len(before), len(after)) == (1, 2)
        assert "kept" in names(spread_shop)
        assert "undone" not in names(spread_shop)

    def test_only_the_inner_of_two_savepoints_is_undone(self, spread_shop: World) -> None:
        m = spread_shop.models
        first, second = two_customers(spread_shop)
        with spread_shop.session() as session:
            session.get(m.Customer, first)
            outer = session.begin_nested()
            inner = session.begin_nested()
            session.get(m.Customer, second).name = "undone"
            session.flush()
            inner.rollback()
            session.get(m.Customer, second).name = "kept"
            outer.commit()
            session.commit()

        assert "kept" in names(spread_shop)
        assert "undone" not in names(spread_shop)

    def test_a_released_savepoint_is_not_made_on_shards_that_join_later(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        first, second = two_customers(spread_shop)
        with spread_shop.session() as session:
            session.get(m.Customer, first)
            with session.begin_nested():
                pass
            session.get(m.Customer, second)
            connection = session.connection().connection.driver_connection
            shard = spread_shop.cluster.shard_for(m.Customer, second)  # type: ignore[union-attr]

            with pytest.raises(Exception, match="does not exist"):
                connection.shard(shard).execute("RELEASE SAVEPOINT sa_savepoint_1")

    def test_a_savepoint_before_any_statement(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            with session.begin_nested():
                session.add_all([m.Customer(id=n + 100, name="kept") for n in CUSTOMERS])
            savepoint = session.begin_nested()
            session.add_all([m.Customer(id=n + 200, name="undone") for n in CUSTOMERS])
            session.flush()
            savepoint.rollback()
            session.commit()

        assert "kept" in names(spread_shop)
        assert "undone" not in names(spread_shop)


class TestCore:
    def test_begin_nested_of_a_connection(self, world: World) -> None:
        table = world.models.Customer.__table__
        rows = [{"id": n, "name": "x", "version": 1} for n in CUSTOMERS]
        with world.engine.begin() as connection:
            with connection.begin_nested():
                connection.execute(table.insert(), rows)
            undone = connection.begin_nested()
            connection.execute(table.delete().where(table.c.id.in_([1, 2, 3, 4])))
            undone.rollback()

        assert len(world.rows("SELECT * FROM customers")) == len(CUSTOMERS)

    def test_a_savepoint_that_is_named_by_the_user(self, world: World) -> None:
        """`savepoint` events and odd names reach the servers quoted."""
        seen = []
        table = world.models.Customer.__table__

        def note(connection: object, name: str) -> None:
            seen.append(name)

        event.listen(world.engine, "savepoint", note)
        with world.engine.begin() as connection:
            connection.execute(select(table)).all()
            with connection.begin_nested():
                connection.execute(select(table)).all()

        assert len(seen) == 1

    def test_an_error_is_forgotten_only_by_its_own_savepoint(self, spread_shop: World) -> None:
        table = spread_shop.models.Customer.__table__
        select_all = select(table.c.id).order_by(table.c.id)
        with spread_shop.engine.connect() as connection:
            connection.begin()
            outer = connection.begin_nested()
            with pytest.raises(ProgrammingError), connection.begin_nested():
                connection.execute(text("SELECT no_such_column"), execution_options={"shard": "s2"})
            found = connection.execute(select_all).scalars().all()
            outer.rollback()
            connection.rollback()

        assert found == list(CUSTOMERS)


def two_customers(shop: World) -> tuple[int, int]:
    """Numbers of two customers on different shards."""
    assert shop.cluster is not None
    first = shop.cluster.shard_for(shop.models.Customer, 1)
    second = next(n for n in CUSTOMERS if shop.cluster.shard_for(shop.models.Customer, n) != first)
    return 1, second
