"""Errors of one shard: what is told, what is refused afterwards, and what is thrown away."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Connection, event, func, insert, select, text
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InternalError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from sqlalchemy_shards import Timeouts, create_cluster
from sqlalchemy_shards.errors import ShardUnavailable
from tests.databases import ask
from tests.shards.shop import CUSTOMERS, SHARDS, World, enlisted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers

EVERYWHERE = {"shard": "*"}


def on(name: str) -> dict[str, Any]:
    return {"shard": name}


def pid_on(connection: Connection, shard: str) -> int:
    """Process of the connection that a transaction has to a shard."""
    driver: Any = connection.connection.driver_connection
    return int(driver.enlisted[shard].driver.info.backend_pid)


def end(world: World, shard: str, pid: int) -> None:
    """End a server process, and return when it is gone."""
    assert ask(world.urls[shard], f"SELECT pg_terminate_backend({pid}, 10000)") == [(True,)]


class TestMessages:
    def test_an_error_names_its_shard(self, spread_shop: World) -> None:
        with spread_shop.engine.connect() as connection, pytest.raises(ProgrammingError) as caught:
            connection.execute(text("SELECT no_such_column"), execution_options=on("s2"))

        assert "shard: s2" in str(caught.value)
        assert caught.value.orig.shard == "s2"  # type: ignore[union-attr]

    def test_an_error_of_an_inserted_row_names_its_shard(self, spread_shop: World) -> None:
        m = spread_shop.models
        assert spread_shop.cluster is not None
        shard = spread_shop.cluster.shard_for(m.Customer, 5)
        with spread_shop.session() as session, pytest.raises(IntegrityError) as caught:
            session.execute(insert(m.Customer).values(id=5, name="x", version=1))

        assert f"shard: {shard}" in str(caught.value)
        assert isinstance(caught.value.orig, psycopg.errors.UniqueViolation)
        assert caught.value.orig.diag.constraint_name == "customers_pkey"

    def test_errors_of_several_shards_are_kept_side_by_side(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.engine.connect() as connection, pytest.raises(DBAPIError) as caught:
            connection.execute(select(m.Order.id / 0))

        errors = caught.value.orig.shard_errors  # type: ignore[union-attr]
        assert set(errors) == set(SHARDS)
        assert {type(each) for each in errors.values()} == {psycopg.errors.DivisionByZero}
        assert "s3" in str(caught.value)

    def test_listeners_for_errors_are_asked(self, shop: World) -> None:
        seen = []
        event.listen(shop.engine, "handle_error", lambda context: seen.append(context.statement))
        with shop.engine.connect() as connection, pytest.raises(DBAPIError):
            connection.execute(select(shop.models.Order.id / 0))

        assert len(seen) == 1


class TestFailedTransactions:
    def test_after_an_error_every_statement_is_refused_until_rollback(self, shop: World) -> None:
        m = shop.models
        with shop.engine.connect() as connection:
            with pytest.raises(DBAPIError):
                connection.execute(select(m.Order.id / 0).where(m.Order.customer_id == 1))
            for number in CUSTOMERS:
                with pytest.raises(InternalError, match="current transaction is aborted"):
                    connection.execute(select(m.Order).where(m.Order.customer_id == number))
            with pytest.raises(InternalError, match="current transaction is aborted"):
                connection.execute(select(m.Region))
            connection.rollback()
            found = connection.execute(select(func.count()).select_from(m.Order)).scalar()

        assert found == 24

    def test_statements_of_one_shard_only_are_refused_too(self, spread_shop: World) -> None:
        with spread_shop.engine.connect() as connection:
            connection.execute(text("SELECT 1"), execution_options=on("s1"))
            with pytest.raises(DBAPIError):
                connection.execute(text("SELECT 1 / 0"), execution_options=on("s2"))
            for name in SHARDS:
                with pytest.raises(InternalError) as caught:
                    connection.execute(text("SELECT 1"), execution_options=on(name))
                assert isinstance(caught.value.orig, psycopg.errors.InFailedSqlTransaction)

    def test_a_commit_after_an_error_stores_nothing(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.engine.connect() as connection:
            connection.execute(
                m.Customer.__table__.insert(),
                [{"id": n + 100, "name": "x", "version": 1} for n in CUSTOMERS],
            )
            with pytest.raises(DBAPIError):
                connection.execute(text("SELECT 1 / 0"), execution_options=on("s2"))
            with pytest.raises(SQLAlchemyError, match="rolled back"):
                connection.commit()

        assert len(spread_shop.rows("SELECT * FROM customers")) == 12

    def test_a_failed_statement_of_the_client_fails_no_transaction(self, shop: World) -> None:
        """What never reached a server leaves the transaction as it is."""
        m = shop.models
        with shop.engine.connect() as connection:
            connection.execute(select(m.Customer)).all()
            with pytest.raises(SQLAlchemyError):
                connection.execute(select(m.Customer).where(m.Customer.id == text(":missing")))
            found = len(connection.execute(select(m.Customer)).all())

        assert found == 12

    def test_a_savepoint_from_before_the_error_repairs_all_shards(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            session.add_all([m.Customer(id=n + 100, name="kept") for n in CUSTOMERS])
            session.flush()
            savepoint = session.begin_nested()
            session.add_all([m.Customer(id=n + 200, name="lost") for n in CUSTOMERS])
            session.flush()
            with pytest.raises(DBAPIError):
                session.execute(text("SELECT 1 / 0"), execution_options=on("s2"))
            savepoint.rollback()
            session.commit()

        assert {
            name for (name,) in spread_shop.rows("SELECT name FROM customers WHERE id > 99")
        } == {"kept"}


class TestLostConnections:
    def test_a_lost_shard_invalidates_the_connection_and_rollback_works(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        with spread_shop.engine.connect() as connection:
            connection.execute(select(m.Customer)).all()
            end(spread_shop, "s2", pid_on(connection, "s2"))
            with pytest.raises(OperationalError) as caught:
                connection.execute(text("SELECT 1"), execution_options=on("s2"))
            was_invalidated = connection.invalidated
            connection.rollback()
            found = connection.execute(select(func.count()).select_from(m.Customer)).scalar()

        assert caught.value.connection_invalidated
        assert "shard: s2" in str(caught.value)
        assert was_invalidated
        assert found == 12

    def test_only_the_pool_of_the_lost_shard_throws_connections_away(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        assert spread_shop.cluster is not None
        seen: list[str] = []
        for name, shard in spread_shop.cluster.shards.items():
            event.listen(shard.engine, "invalidate", lambda *_, name=name: seen.append(name))
        with spread_shop.engine.connect() as connection:
            connection.execute(select(m.Customer)).all()
            pids = {name: pid_on(connection, name) for name in SHARDS}
            end(spread_shop, "s2", pids["s2"])
            with pytest.raises(OperationalError):
                connection.execute(select(m.Customer.id))
        with spread_shop.engine.connect() as connection:
            connection.execute(select(m.Customer)).all()
            after = {name: pid_on(connection, name) for name in SHARDS}

        assert set(seen) == {"s2"}
        assert {name for name in SHARDS if pids[name] != after[name]} == {"s2"}

    def test_idle_connections_that_died_are_replaced_after_one_error(
        self, spread_shop: World
    ) -> None:
        """As with one PostgreSQL: the pool distrusts what it opened before the loss."""
        m = spread_shop.models
        with spread_shop.engine.connect() as one, spread_shop.engine.connect() as other:
            for connection in (one, other):
                connection.execute(select(m.Customer)).all()
            pids = [pid_on(connection, "s1") for connection in (one, other)]
        for pid in pids:
            end(spread_shop, "s1", pid)
        errors, found = 0, []
        for _ in range(3):
            with spread_shop.engine.connect() as connection:
                try:
                    found.append(len(connection.execute(select(m.Customer)).all()))
                except OperationalError:
                    errors += 1

        assert errors == 1
        assert found == [12, 12]

    def test_pre_ping_spares_that_error(self, spread_shop: World) -> None:
        m = spread_shop.models
        cluster = create_cluster(spread_shop.urls, name="shop", pool_pre_ping=True)
        with cluster.engine.connect() as connection:
            connection.execute(select(m.Customer)).all()
            pids = {name: pid_on(connection, name) for name in SHARDS}
        for name, pid in pids.items():
            end(spread_shop, name, pid)
        with cluster.engine.connect() as connection:
            found = len(connection.execute(select(m.Customer)).all())
        cluster.dispose()

        assert found == 12

    def test_a_session_goes_on_after_rollback(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            session.add_all([m.Customer(id=n + 100, name="lost") for n in CUSTOMERS])
            session.flush()
            end(spread_shop, "s3", pid_on(session.connection(), "s3"))
            with pytest.raises(SQLAlchemyError):
                session.scalars(select(m.Customer.id)).all()
            session.rollback()
            session.add_all([m.Customer(id=n + 200, name="kept") for n in CUSTOMERS])
            session.commit()

        assert {
            name for (name,) in spread_shop.rows("SELECT name FROM customers WHERE id > 99")
        } == {"kept"}

    def test_a_shard_that_is_lost_before_the_commit_aborts_it_everywhere(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            session.add_all([m.Customer(id=n + 100, name="lost") for n in CUSTOMERS])
            session.flush()
            end(spread_shop, "s3", pid_on(session.connection(), "s3"))
            with pytest.raises(SQLAlchemyError) as caught:
                session.commit()
            session.rollback()
            found = session.scalar(select(func.count()).select_from(m.Customer))

        assert "s3" in str(caught.value)
        assert found == 12

    def test_a_savepoint_cannot_be_rolled_back_to_on_a_lost_shard(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            session.scalars(select(m.Customer)).all()
            savepoint = session.begin_nested()
            end(spread_shop, "s0", pid_on(session.connection(), "s0"))
            with pytest.raises(OperationalError):
                session.execute(text("SELECT 1"), execution_options=on("s0"))
            with suppress(SQLAlchemyError):
                savepoint.rollback()
            with pytest.raises(SQLAlchemyError):
                session.execute(text("SELECT 1"), execution_options=on("s1"))
            session.rollback()
            found = session.scalar(select(func.count()).select_from(m.Customer))

        assert found == 12

    def test_a_connection_that_the_user_invalidates_comes_back_fresh(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        assert spread_shop.cluster is not None
        with spread_shop.engine.connect() as connection:
            connection.execute(insert(m.Customer).values(id=100, name="x", version=1))
            connection.invalidate()
            connection.rollback()
            found = connection.execute(select(func.count()).select_from(m.Customer)).scalar()
        pools: list[Any] = [each.engine.pool for each in spread_shop.cluster.shards.values()]

        assert found == 12
        assert [pool.checkedout() for pool in pools] == [0] * 4

    def test_a_stream_that_loses_its_shard_is_told(self, spread_shop: World) -> None:
        m = spread_shop.models
        rows = [
            {"customer_id": n, "id": k, "amount": 1} for n in CUSTOMERS for k in range(1000, 3000)
        ]
        with spread_shop.session() as session:
            session.execute(insert(m.Order), rows)
            session.commit()
        with spread_shop.engine.connect() as connection:
            query = select(m.Order.id).order_by(m.Order.id)
            result = connection.execute(query, execution_options={"yield_per": 100})
            result.fetchmany(100)
            end(spread_shop, "s1", pid_on(connection, "s1"))
            with pytest.raises(OperationalError) as caught:
                result.all()
            connection.rollback()
            found = connection.execute(select(func.count()).select_from(m.Customer)).scalar()

        assert caught.value.connection_invalidated
        assert found == 12


class TestUnreachableShards:
    @pytest.fixture
    def without_s2(self, spread_shop: World, servers: PostgresServers) -> Iterator[World]:
        """Server 2 is stopped."""
        servers.stop(2)
        yield spread_shop
        servers.start(2)

    def test_other_shards_go_on(self, without_s2: World) -> None:
        m = without_s2.models
        assert without_s2.cluster is not None
        reachable = [n for n in CUSTOMERS if without_s2.cluster.shard_for(m.Customer, n) != "s2"]
        with without_s2.session() as session:
            for number in reachable:
                session.get(m.Customer, number).name = "changed"
            session.commit()
        without_s2.urls.pop("s2")
        changed = without_s2.rows("SELECT id FROM customers WHERE name = 'changed'")

        assert changed == [(number,) for number in reachable]

    def test_the_unreachable_one_is_named_and_comes_back(
        self, without_s2: World, servers: PostgresServers
    ) -> None:
        m = without_s2.models
        with without_s2.session() as session:
            with pytest.raises(SQLAlchemyError, match="s2"):  # its pool's connection died
                session.scalars(select(m.Customer)).all()
            session.rollback()
            with pytest.raises(ShardUnavailable) as caught:
                session.scalars(select(m.Customer)).all()
            session.rollback()
            servers.start(2)
            found = session.scalars(select(m.Customer.id).order_by(m.Customer.id)).all()

        assert caught.value.shard == "s2"
        assert caught.value.is_retryable
        assert found == list(CUSTOMERS)

    def test_a_shard_that_cannot_be_enlisted_fails_the_transaction(
        self, spread_shop: World, servers: PostgresServers
    ) -> None:
        m = spread_shop.models
        cluster = create_cluster(spread_shop.urls, name="shop")
        with cluster.engine.connect() as connection:
            connection.execute(text("SELECT 1"), execution_options=on("s1"))
            servers.stop(2)
            with pytest.raises(ShardUnavailable):
                connection.execute(text("SELECT 1"), execution_options=on("s2"))
            servers.start(2)
            with pytest.raises(InternalError, match="aborted"):
                connection.execute(text("SELECT 1"), execution_options=on("s1"))
            connection.rollback()
            found = len(connection.execute(select(m.Customer)).all())
        cluster.dispose()

        assert found == 12


class TestTimeouts:
    def test_a_statement_that_takes_too_long_on_one_shard_is_cancelled_on_all(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        cluster = create_cluster(
            spread_shop.urls, name="shop", timeouts=Timeouts(statement_seconds=0.5)
        )
        sleep = text("SELECT pg_sleep(CASE current_database() WHEN 'shop_s1' THEN 60 ELSE 0 END)")
        with cluster.engine.connect() as connection:
            with pytest.raises(Exception, match="s1"):
                connection.execute(sleep, execution_options=EVERYWHERE)
            connection.rollback()
            found = len(connection.execute(select(m.Customer)).all())
        asleep = spread_shop.rows(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' "
            "AND state = 'active' AND pid <> pg_backend_pid()"
        )
        cluster.dispose()

        assert found == 12
        assert asleep == []

    def test_a_lock_that_is_not_had_in_time_names_its_shard(self, spread_shop: World) -> None:
        m = spread_shop.models
        assert spread_shop.cluster is not None
        shard = spread_shop.cluster.shard_for(m.Customer, 5)
        with spread_shop.session() as holder, spread_shop.session() as session:
            holder.get(m.Customer, 5, with_for_update=True)
            session.execute(text("SET LOCAL lock_timeout = 50"), execution_options=EVERYWHERE)
            with pytest.raises(OperationalError, match=f"shard: {shard}"):
                session.get(m.Customer, 5, with_for_update=True)
            session.rollback()
            used = enlisted(session)

        assert used == set()
