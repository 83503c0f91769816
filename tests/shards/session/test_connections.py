"""The connection of a session: options of transactions, binds, the driver below, reflection."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from sqlalchemy import MetaData, func, inspect, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

from sqlalchemy_shards.errors import ScatterNotAllowed
from tests.shards.shop import CUSTOMERS, World, enlisted

SHOWN = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")


def settings(world: World, connection: Any) -> set[tuple[str, ...]]:
    """What every shard of a connection says of its transaction."""
    columns = [func.current_setting(name) for name in SHOWN]
    if not world.is_spread:
        return {tuple(connection.execute(select(*columns)).one())}
    assert world.cluster is not None
    return {
        tuple(connection.execute(select(*columns), execution_options={"shard": shard}).one())
        for shard in world.cluster.shards
    }


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"isolation_level": "SERIALIZABLE"}, ("serializable", "off", "off")),
            ({"isolation_level": "REPEATABLE READ"}, ("repeatable read", "off", "off")),
            ({"postgresql_readonly": True}, ("read committed", "on", "off")),
            (
                {
                    "isolation_level": "SERIALIZABLE",
                    "postgresql_readonly": True,
                    "postgresql_deferrable": True,
                },
                ("serializable", "on", "on"),
            ),
        ],
    )
    def test_a_transactions_options_reach_every_shard_and_end_with_it(
        self, world: World, options: dict[str, Any], expected: tuple[str, ...]
    ) -> None:
        with world.session() as session:
            connection = session.connection(execution_options=options)
            session.get(world.models.Customer, 1)
            within = settings(world, connection)
            session.rollback()
            after = settings(world, session.connection())

        assert within == {expected}
        assert after == {("read committed", "off", "off")}

    def test_sessions_of_an_engine_with_a_level(self, world: World) -> None:
        engine = world.engine.execution_options(isolation_level="REPEATABLE READ")
        with Session(engine) as session:
            found = settings(world, session.connection())

        assert found == {("repeatable read", "off", "off")}

    def test_a_level_comes_too_late_within_the_transaction(self, shop: World) -> None:
        with shop.session() as session:
            session.get(shop.models.Customer, 1)
            with pytest.warns(Warning, match="already established"):
                session.connection(execution_options={"isolation_level": "SERIALIZABLE"})

    def test_autocommit_writes_one_shard_at_once(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            session.add(m.Customer(id=1, name="at once"))
            session.flush()
            seen = world.rows("SELECT name FROM customers")
            session.rollback()

        assert seen == [("at once",)]

    def test_autocommit_refuses_a_write_that_could_be_half_done(self, four_shards: World) -> None:
        m = four_shards.models
        with four_shards.session() as session:
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            session.add_all([m.Customer(id=n, name="at once") for n in CUSTOMERS])
            with pytest.raises(ScatterNotAllowed, match="AUTOCOMMIT"):
                session.flush()

        assert four_shards.rows("SELECT * FROM customers") == []


class TestBinds:
    def test_get_bind_and_connection(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            bind = session.get_bind(m.Customer)
            connection = session.connection(bind_arguments={"mapper": inspect(m.Customer)})
            same = session.connection()
            of_call = session.execute(
                select(m.Customer.id).where(m.Customer.id == 3),
                bind_arguments={"mapper": inspect(m.Customer)},
            ).scalar()

        assert bind is shop.engine
        assert connection is same
        assert of_call == 3

    def test_an_engine_as_the_bind_of_one_call(self, spread_shop: World) -> None:
        """A shard's own engine is another database: a transaction of its own, unmerged."""
        m = spread_shop.models
        shard = next(iter(spread_shop.cluster.shards.values()))  # type: ignore[union-attr]
        with spread_shop.session() as session:
            session.get(m.Customer, 1).name = "changed"
            session.flush()
            here = session.scalars(select(m.Customer.id), bind_arguments={"bind": shard.engine})

            assert 0 < len(here.all()) < 12

    def test_the_drivers_connection_of_a_shard(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            customer = session.get(m.Customer, 3)
            customer.name = "changed"
            session.flush()
            shard = session.shard_of(customer)  # type: ignore[attr-defined]
            driver = session.connection().connection.driver_connection.shard(shard)  # type: ignore[union-attr]
            seen = driver.execute("SELECT name FROM customers WHERE id = 3").fetchone()
            driver.execute("UPDATE customers SET name = 'by hand' WHERE id = 3")
            shards = enlisted(session)
            session.rollback()

        assert seen == ("changed",)
        assert shards == {shard}
        assert spread_shop.rows("SELECT name FROM customers WHERE id = 3") == [("customer 3",)]

    def test_info_is_kept_with_the_session(self, world: World) -> None:
        with world.session(info={"request": 7}) as session:
            session.info["more"] = True

            assert session.info == {"request": 7, "more": True}

    def test_a_level_cannot_be_set_in_an_open_transaction(self, shop: World) -> None:
        with shop.engine.connect() as connection:
            connection.execute(select(shop.models.Customer.id)).all()
            with pytest.raises(InvalidRequestError):
                connection.execution_options(isolation_level="SERIALIZABLE")


class TestInspection:
    """Reflection asks one shard, that of the global tables: it has every table."""

    def test_names_and_columns(self, plain: World, four_shards: World) -> None:
        here, there = inspect(four_shards.engine), inspect(plain.engine)

        assert set(here.get_table_names()) == set(there.get_table_names())
        assert here.has_table("customers")
        assert not here.has_table("no_such_table")
        assert "public" in here.get_schema_names()
        for name in ("customers", "orders", "card_payments", "flags"):
            assert described(here, name) == described(there, name)

    def test_a_reflected_metadata_has_every_table(self, world: World) -> None:
        metadata = MetaData()
        metadata.reflect(world.engine, only=lambda name, _: name != "decisions")

        assert set(world.models.metadata.tables) <= set(metadata.tables)

    def test_reflection_within_a_transaction(self, shop: World) -> None:
        with shop.session() as session:
            found = inspect(session.connection()).get_columns("customers")

        assert {column["name"] for column in found} >= {"id", "name", "home"}


class TestLogging:
    def test_what_is_logged_is_what_one_database_logs(
        self, plain: World, four_shards: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        logged = []
        for world in (plain, four_shards):
            caplog.clear()
            m = world.models
            with caplog.at_level(logging.INFO, "sqlalchemy.engine.Engine"), world.session() as s:
                s.connection(execution_options={"logging_token": "shop"})
                s.add(m.Customer(id=1, name="one"))
                with s.begin_nested():
                    s.add(m.Customer(id=2, name="two"))
                s.scalars(select(m.Customer).order_by(m.Customer.id)).all()
                s.commit()
            texts = [record.getMessage() for record in caplog.records]
            logged.append([without_times(each) for each in texts if each.startswith("[shop]")])

        assert logged[1] == logged[0]
        assert any("SAVEPOINT" in each for each in logged[1])


def described(inspector: Any, table: str) -> Any:
    return (
        [
            (each["name"], str(each["type"]), each["nullable"])
            for each in inspector.get_columns(table)
        ],
        inspector.get_pk_constraint(table)["constrained_columns"],
        sorted(each["referred_table"] for each in inspector.get_foreign_keys(table)),
        inspector.get_indexes(table),
    )


def without_times(message: str) -> str:
    """A logged line, without how long ago its statement was compiled."""
    return re.sub(r"\[(?:generated|cached|no key)[^\]]*\]", "", message)
