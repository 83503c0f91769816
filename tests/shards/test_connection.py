"""The cluster connection: enlisting, modes and attributes, and giving all of it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import create_engine, event, func, select, text
from sqlalchemy.exc import DBAPIError, InternalError, InvalidRequestError
from sqlalchemy.ext.asyncio import create_async_engine

from sqlalchemy_shards import create_cluster
from sqlalchemy_shards.errors import (
    ConfigurationError,
    MissingShardKey,
    ScatterNotAllowed,
    TransactionAborted,
    UnknownShard,
    UnsupportedStatement,
)
from tests.databases import ask
from tests.shards.shop import CUSTOMERS, SHARDS, World, enlisted

if TYPE_CHECKING:
    from sqlalchemy import Connection

EVERYWHERE = {"shard": "*"}


def cluster_connection(connection: Connection) -> Any:
    return connection.connection.driver_connection


def show(connection: Connection, setting: str) -> list[str]:
    """A setting of every shard, in this transaction."""
    found = connection.execute(text(f"SHOW {setting}"), execution_options=EVERYWHERE)
    return list(found.scalars())


class TestEnlisting:
    def test_nothing_is_enlisted_before_a_statement(self, four_shards: World) -> None:
        with four_shards.engine.connect() as connection:
            connection.begin()
            found = enlisted(connection)

        assert found == set()

    def test_a_statement_enlists_the_shards_it_goes_to(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.engine.connect() as connection:
            connection.execute(select(m.Customer).where(m.Customer.id == 1))
            one = enlisted(connection)
            connection.execute(select(m.Customer))
            all_of_them = enlisted(connection)

        assert one == {spread_shop.cluster.shard_for(m.Customer, 1)}  # type: ignore[union-attr]
        assert all_of_them == set(SHARDS)

    @pytest.mark.parametrize("end", ["commit", "rollback", "close"])
    def test_the_end_of_the_transaction_gives_everything_back(
        self, spread_shop: World, end: str
    ) -> None:
        assert spread_shop.cluster is not None
        with spread_shop.engine.connect() as connection:
            connection.execute(select(spread_shop.models.Customer)).all()
            driver = cluster_connection(connection)
            getattr(connection, end)()

            assert driver.enlisted == {}
            pools = [each.engine.pool for each in spread_shop.cluster.shards.values()]
            assert [pool.checkedout() for pool in pools] == [0, 0, 0, 0]  # type: ignore[attr-defined]

    def test_shard_gives_that_shards_driver_connection_in_the_transaction(
        self, spread_shop: World
    ) -> None:
        with spread_shop.engine.begin() as connection:
            driver = cluster_connection(connection).shard("s1")
            driver.execute(_INSERT)
            seen = connection.execute(
                text("SELECT count(*) FROM customers WHERE name = 'by hand'"),
                execution_options={"shard": "s1"},
            ).scalar()
            elsewhere = ask(spread_shop.urls["s1"], _COUNT)

        assert isinstance(driver, psycopg.Connection)
        assert (seen, elsewhere) == (1, [(0,)])
        assert ask(spread_shop.urls["s1"], _COUNT) == [(1,)]

    def test_what_is_written_by_hand_on_two_shards_commits_together(
        self, four_shards: World
    ) -> None:
        with four_shards.engine.connect() as connection:
            connection.begin()
            for name in ("s1", "s3"):
                cluster_connection(connection).shard(name).execute(_INSERT)
            connection.rollback()
            connection.begin()
            for name in ("s0", "s3"):
                cluster_connection(connection).shard(name).execute(_INSERT)
            connection.commit()

        assert {name for name, url in four_shards.urls.items() if ask(url, _COUNT) == [(1,)]} == {
            "s0",
            "s3",
        }

    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_one_shards_part_that_is_ended_by_hand_aborts_the_others(
        self, four_shards: World, end: str
    ) -> None:
        customers = four_shards.models.Customer.__table__
        with four_shards.engine.connect() as connection:
            rows = [{"id": number, "name": "x", "version": 1} for number in CUSTOMERS]
            connection.execute(customers.insert(), rows)
            getattr(cluster_connection(connection).shard("s1"), end)()

            with pytest.raises(TransactionAborted, match="'s1' was ended beside commit") as caught:
                connection.commit()

        assert not caught.value.is_retryable
        written = four_shards.rows_by_shard("SELECT id FROM customers")
        assert [name for name, rows in written.items() if rows] == ["s1"][: end == "commit"]

    def test_an_unknown_shard_is_told(self, four_shards: World) -> None:
        with four_shards.engine.connect() as connection, pytest.raises(UnknownShard) as caught:
            cluster_connection(connection).shard("s9")

        assert caught.value.shard == "s9"
        assert "'s0', 's1', 's2', 's3'" in str(caught.value)

    def test_its_own_cursor_refuses_sql_that_names_no_shard(self, four_shards: World) -> None:
        with four_shards.engine.connect() as connection:
            cursor = cluster_connection(connection).cursor()

            with pytest.raises(MissingShardKey, match=r"connection\.shard"):
                cursor.execute("SELECT 1")

    def test_the_cursor_of_one_shard_is_an_ordinary_one(self, one_shard: World) -> None:
        with one_shard.engine.connect() as connection:
            cursor = cluster_connection(connection).cursor()
            cursor.execute("SELECT generate_series(1, 5)")
            found = [cursor.fetchone(), cursor.fetchmany(2), cursor.fetchall()]
            cursor.close()

        assert found == [(1,), [(2,), (3,)], [(4,), (5,)]]

    def test_a_closed_cluster_connection_refuses_work(self, four_shards: World) -> None:
        pooled = four_shards.engine.raw_connection()
        driver = pooled.driver_connection
        pooled.detach()
        pooled.close()

        with pytest.raises(psycopg.InterfaceError):
            driver.shard("s0")  # type: ignore[union-attr]


_INSERT = "INSERT INTO customers (id, name, version) VALUES (1000, 'by hand', 1)"
_COUNT = "SELECT count(*) FROM customers WHERE id = 1000"


class TestIsolation:
    @pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
    def test_a_level_reaches_every_shard(self, spread_shop: World, level: str) -> None:
        options = {"isolation_level": level}
        with spread_shop.engine.connect().execution_options(**options) as connection:
            told = connection.get_isolation_level()
            found = show(connection, "transaction_isolation")

        assert told == level
        assert found == [level.lower()] * 4

    def test_the_level_of_a_session_reaches_shards_that_join_later(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            session.get(m.Customer, 1)
            found = show(session.connection(), "transaction_isolation")

        assert found == ["repeatable read"] * 4

    def test_the_level_of_an_engine(self, spread_shop: World) -> None:
        engine = spread_shop.engine.execution_options(isolation_level="SERIALIZABLE")
        with engine.connect() as connection:
            found = show(connection, "transaction_isolation")
        with spread_shop.engine.connect() as connection:
            other = show(connection, "transaction_isolation")

        assert found == ["serializable"] * 4
        assert other == ["read committed"] * 4

    def test_the_default_level_is_that_of_the_servers(self, four_shards: World) -> None:
        with four_shards.engine.connect() as connection:
            found = connection.get_isolation_level(), connection.default_isolation_level

        assert found == ("READ COMMITTED", "READ COMMITTED")

    def test_a_level_does_not_leak_into_the_shards_own_engines(self, shop: World) -> None:
        if shop.cluster is None:
            pytest.skip("there is no shard")
        options = {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True}
        with shop.engine.connect().execution_options(**options) as connection:
            connection.execute(select(shop.models.Customer)).all()
        found = set()
        for shard in shop.cluster.shards.values():
            with shard.engine.connect() as connection:
                driver: Any = connection.connection.driver_connection
                found.add((driver.isolation_level, driver.read_only, driver.autocommit))
                found.add(connection.execute(text("SHOW transaction_isolation")).scalar())

        assert found == {(None, None, False), "read committed"}

    def test_repeatable_read_sees_one_snapshot_of_a_shard(self, spread_shop: World) -> None:
        m = spread_shop.models
        with (
            spread_shop.session() as session,
            spread_shop.session() as other,
        ):
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            before = session.scalar(select(func.count()).select_from(m.Customer))
            other.add_all([m.Customer(id=n + 100, name="later") for n in CUSTOMERS])
            other.commit()
            after = session.scalar(select(func.count()).select_from(m.Customer))

        assert (before, after) == (12, 12)


class TestModes:
    def test_read_only_refuses_writes_on_every_shard(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.engine.connect().execution_options(postgresql_readonly=True) as connection:
            read = len(connection.execute(select(m.Customer)).all())
            settings = show(connection, "transaction_read_only")
            with pytest.raises(InternalError, match="read-only transaction"):
                connection.execute(_insert(m, 100))

        assert (read, settings) == (12, ["on"] * 4)

    def test_deferrable_reaches_every_shard(self, spread_shop: World) -> None:
        options = {
            "isolation_level": "SERIALIZABLE",
            "postgresql_readonly": True,
            "postgresql_deferrable": True,
        }
        with spread_shop.engine.connect().execution_options(**options) as connection:
            found = show(connection, "transaction_deferrable")

        assert found == ["on"] * 4

    def test_autocommit_writes_at_once_to_one_shard(self, world: World) -> None:
        m = world.models
        options = {"isolation_level": "AUTOCOMMIT"}
        with world.engine.connect().execution_options(**options) as connection:
            connection.execute(_insert(m, 1))
            seen = world.rows("SELECT id FROM customers")
            level = connection.get_isolation_level()

        assert seen == [(1,)]
        assert level == "READ COMMITTED"  # as plain SQLAlchemy tells of psycopg's autocommit

    def test_autocommit_reads_from_every_shard(self, spread_shop: World) -> None:
        m = spread_shop.models
        options = {"isolation_level": "AUTOCOMMIT"}
        with spread_shop.engine.connect().execution_options(**options) as connection:
            found = (
                connection.execute(select(m.Customer.id).order_by(m.Customer.id)).scalars().all()
            )
            statuses = {
                each.driver.info.transaction_status
                for each in cluster_connection(connection).enlisted.values()
            }

        assert found == list(CUSTOMERS)
        assert statuses == {TransactionStatus.IDLE}

    def test_autocommit_writes_to_several_shards_are_refused(self, four_shards: World) -> None:
        m = four_shards.models
        table = m.Customer.__table__
        rows = [{"id": n, "name": "x", "version": 1} for n in CUSTOMERS]
        region = m.Region.__table__.insert().values(code="n", name="North")
        options = {"isolation_level": "AUTOCOMMIT"}
        with four_shards.engine.connect().execution_options(**options) as connection:
            for statement, parameters in (
                (table.insert(), rows),
                (table.insert().returning(table.c.id), rows),
                (region, None),
            ):
                with pytest.raises(ScatterNotAllowed, match="AUTOCOMMIT"):
                    connection.execute(statement, parameters)
            with pytest.raises(ScatterNotAllowed, match="AUTOCOMMIT"):
                connection.execute(table.delete(), execution_options=EVERYWHERE)
            with pytest.raises(ScatterNotAllowed, match="AUTOCOMMIT"):
                connection.execute(
                    text("INSERT INTO customers (id, name, version) VALUES (1, 'x', 1)"),
                    execution_options=EVERYWHERE,
                )

        assert four_shards.rows("SELECT * FROM customers") == []
        assert four_shards.rows("SELECT * FROM regions") == []

    def test_an_error_in_autocommit_mode_does_not_stop_the_next_statement(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        options = {"isolation_level": "AUTOCOMMIT"}
        with spread_shop.engine.connect().execution_options(**options) as connection:
            for where in ("s1", "*"):
                with pytest.raises(DBAPIError, match="division by zero"):
                    connection.execute(select(m.Order.id / 0), execution_options={"shard": where})
            found = len(connection.execute(select(m.Customer)).all())

        assert found == 12

    def test_the_mode_is_taken_back_when_the_connection_is_used_again(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        options = {"isolation_level": "AUTOCOMMIT"}
        with spread_shop.engine.connect().execution_options(**options) as connection:
            connection.execute(select(m.Customer)).all()
        with spread_shop.engine.connect() as connection:
            connection.execute(_insert(m, 100))
            connection.rollback()

        assert len(spread_shop.rows("SELECT * FROM customers")) == 12

    def test_the_level_cannot_change_within_a_transaction(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.engine.connect() as connection:
            connection.execute(select(m.Customer)).all()

            with pytest.raises(InvalidRequestError, match="isolation_level"):
                connection.execution_options(isolation_level="SERIALIZABLE")


class TestAttributes:
    """A cluster connection has the attributes of a driver connection, and hands them on."""

    def test_what_is_set_before_enlisting_is_given_to_each_shard(self, four_shards: World) -> None:
        pooled = four_shards.engine.raw_connection()
        connection: Any = pooled.driver_connection
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.read_only = True
        connection.deferrable = True
        shards = [connection.shard(name) for name in SHARDS]
        found = {(each.isolation_level, each.read_only, each.deferrable) for each in shards}
        connection.rollback()
        after = {(each.isolation_level, each.read_only, each.deferrable) for each in shards}
        pooled.close()

        assert found == {(psycopg.IsolationLevel.SERIALIZABLE, True, True)}
        assert after == {(None, None, None)}

    def test_what_is_set_later_reaches_the_enlisted_too(self, four_shards: World) -> None:
        pooled = four_shards.engine.raw_connection()
        connection: Any = pooled.driver_connection
        shard = connection.shard("s1")
        connection.autocommit = True
        during = shard.autocommit
        connection.autocommit = False
        connection.rollback()
        pooled.close()

        assert during is True
        assert shard.autocommit is False

    def test_attributes_of_a_shards_own_engine_stay(self, shop_urls: dict[str, str]) -> None:
        """A shard's engine may have modes of its own; the cluster's use does not change them."""
        cluster = create_cluster(shop_urls, name="shop", isolation_level="REPEATABLE READ")
        with cluster.engine.connect() as connection:
            before = show(connection, "transaction_isolation")
        options = {"isolation_level": "SERIALIZABLE"}
        with cluster.engine.connect().execution_options(**options) as connection:
            during = show(connection, "transaction_isolation")
        with cluster.shards["s2"].engine.connect() as connection:
            after = connection.execute(text("SHOW transaction_isolation")).scalar()
        cluster.dispose()

        assert before == ["repeatable read"] * 4
        assert during == ["serializable"] * 4
        assert after == "repeatable read"


class TestHooks:
    def test_events_of_the_engine_fire_as_ever(self, four_shards: World) -> None:
        seen: list[str] = []
        for name in ("begin", "commit", "rollback"):
            event.listen(four_shards.engine, name, lambda *_, name=name: seen.append(name))
        with four_shards.engine.begin() as connection:
            connection.execute(_insert(four_shards.models, 1))
        with four_shards.engine.connect() as connection:
            connection.execute(_insert(four_shards.models, 2))

        assert seen == ["begin", "commit", "begin", "rollback"]

    def test_two_phase_sessions_are_refused(self, four_shards: World) -> None:
        with four_shards.engine.connect() as connection:
            with pytest.raises(UnsupportedStatement, match="atomic by itself"):
                connection.begin_twophase()
            with pytest.raises(UnsupportedStatement, match="recover"):
                connection.recover_twophase()

    @pytest.mark.sync_only("an event loop runs")
    def test_without_an_event_loop_asyncio_is_refused(self) -> None:
        cluster = create_cluster({"s0": "postgresql+psycopg://nobody@localhost/none"})
        engine = create_async_engine("postgresql+shards://", cluster=cluster)

        with pytest.raises(ConfigurationError, match="no event loop of asyncio runs"):
            engine.sync_engine.connect()

    def test_a_url_without_a_file_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="no configuration file"):
            create_engine("postgresql+shards://")


def _insert(models: Any, number: int) -> Any:
    return models.Customer.__table__.insert().values(id=number, name="x", version=1)
