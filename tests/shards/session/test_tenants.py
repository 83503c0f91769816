"""Row-level security over a cluster: what a transaction sets for its tenant guards every shard.

The tests connect as a role that the policies bind. The same body runs on one PostgreSQL by plain
SQLAlchemy, on a cluster of one shard, and on four shards.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.errors import InFailedSqlTransaction
from sqlalchemy import (
    BigInteger,
    ForeignKey,
    String,
    create_engine,
    delete,
    event,
    func,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.orm import (
    DeclarativeBase,
    Session,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    sessionmaker,
)

from sqlalchemy_shards import ShardedSession, create_cluster, shard_table
from sqlalchemy_shards.errors import MissingShardKey, UnsupportedStatement
from sqlalchemy_shards.testing.databases import ScratchDatabase
from tests.databases import ask
from tests.shards.shop import SHARDS, World, enlisted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Engine

    from sqlalchemy_shards.testing.servers import PostgresServers

NUMBERS = range(1, 13)


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"
    id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tenant = mapped_column(String, nullable=False)
    name = mapped_column(String)
    notes = relationship("Note", back_populates="account", order_by="Note.id")


class Note(Base):
    __tablename__ = "notes"
    account_id = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tenant = mapped_column(String, nullable=False)
    account = relationship(Account, back_populates="notes")


shard_table(Account.__table__, key="id")
shard_table(Note.__table__, key="account_id")

ROLE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tenants_app') THEN
        CREATE ROLE tenants_app LOGIN;
    END IF;
END $$
"""
POLICIES = """
GRANT SELECT, INSERT, UPDATE, DELETE ON accounts, notes TO tenants_app;
GRANT USAGE ON SCHEMA shards TO tenants_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shards TO tenants_app;
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_tenant ON accounts
    USING (tenant = current_setting('app.tenant', true));
CREATE POLICY of_tenant ON notes
    USING (tenant = current_setting('app.tenant', true));
"""


@pytest.fixture(scope="module")
def _databases(servers: PostgresServers) -> Iterator[Mapping[str, str]]:
    """URLs of five databases with the tables and their policies, as their owner."""
    numbers = {"one": 0, **{name: number for number, name in enumerate(SHARDS)}}
    with ExitStack() as stack:
        urls = {}
        for name, number in numbers.items():
            servers.start(number)
            ask(servers.url(number), ROLE)
            database = stack.enter_context(ScratchDatabase(servers.url(number), f"tenants_{name}"))
            urls[name] = database.url
        for group in (["one"], list(SHARDS)):
            cluster = create_cluster({name: urls[name] for name in group}, name="tenants")
            cluster.create_all(Base.metadata)
            cluster.dispose()
        for url in urls.values():
            ask(url, POLICIES)
        yield urls
        for number in numbers.values():
            servers.start(number)


@pytest.fixture(params=[pytest.param("plain", marks=pytest.mark.slow), "one shard", "four shards"])
def world(request: pytest.FixtureRequest, _databases: Mapping[str, str]) -> Iterator[World]:
    """Twelve accounts of two tenants; sessions are of a role that the policies bind.

    Each shard's pool holds one connection, so that each transaction has its predecessor's.
    """
    yield from _world(request.param, _databases)


@pytest.fixture
def spread(_databases: Mapping[str, str]) -> Iterator[World]:
    """The same on four shards only."""
    yield from _world("four shards", _databases)


def _world(name: str, databases: Mapping[str, str]) -> Iterator[World]:
    owned = {each: databases[each] for each in (SHARDS if name == "four shards" else ["one"])}
    _fill(owned)
    bound = {
        shard: make_url(url).set(username="tenants_app").render_as_string(hide_password=False)
        for shard, url in owned.items()
    }
    keywords: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5}
    if name == "plain":
        engine = create_engine(bound["one"], **keywords)
        yield World(name, None, engine, owned)
        engine.dispose()
    else:
        cluster = create_cluster(bound, name="tenants", **keywords)
        yield World(name, None, cluster.engine, owned, cluster)
        cluster.dispose()
    for url in owned.values():
        ask(url, "DELETE FROM notes; DELETE FROM accounts; DELETE FROM shards.decisions")


def _fill(urls: Mapping[str, str]) -> None:
    with contextmanager(_cluster)(urls) as cluster, ShardedSession(cluster) as session:
        for number in NUMBERS:
            tenant = tenant_of(number)
            notes = [Note(id=n, tenant=tenant) for n in (1, 2)]
            session.add(Account(id=number, tenant=tenant, name=f"account {number}", notes=notes))
        session.commit()


def _cluster(urls: Mapping[str, str]) -> Iterator[Any]:
    cluster = create_cluster(urls, name="tenants")
    yield cluster
    cluster.dispose()


def tenant_of(number: int) -> str:
    return "even" if number % 2 == 0 else "odd"


EVEN = [number for number in NUMBERS if tenant_of(number) == "even"]


def guarded(world: World, tenant: str, statement: str | None = None) -> Session:
    """A session whose transactions are all the tenant's, told by the usual listener."""
    session = world.session(info={"tenant": tenant})
    as_tenant = text(statement or "SELECT set_config('app.tenant', :tenant, true)")

    @event.listens_for(session, "after_begin")
    def tell(session: Session, transaction: Any, connection: Connection) -> None:
        parameters = {} if statement else {"tenant": session.info["tenant"]}
        connection.execute(as_tenant, parameters)

    return session


class TestReading:
    def test_a_scatter_sees_the_tenants_rows_on_every_shard(self, world: World) -> None:
        with guarded(world, "even") as session:
            found = session.scalars(select(Account.id).order_by(Account.id)).all()
            count = session.scalar(select(func.count()).select_from(Note))

        assert found == EVEN
        assert count == 2 * len(EVEN)

    def test_rows_of_another_tenant_are_not_there_by_key_either(self, world: World) -> None:
        with guarded(world, "even") as session:
            found = [session.get(Account, number) is not None for number in NUMBERS]

        assert found == [number in EVEN for number in NUMBERS]

    def test_loaders_are_guarded(self, world: World) -> None:
        with guarded(world, "even") as session:
            loaded = session.scalars(
                select(Account).options(selectinload(Account.notes)).order_by(Account.id)
            ).all()
            joined = session.scalars(
                select(Account).options(joinedload(Account.notes)).where(Account.id == 2)
            ).unique()

            assert [len(account.notes) for account in loaded] == [2] * len(EVEN)
            assert [len(account.notes) for account in joined] == [2]

    def test_without_a_tenant_there_are_no_rows(self, world: World) -> None:
        with world.session() as session:
            assert session.scalars(select(Account)).all() == []
            assert session.get(Account, 2) is None

    @pytest.mark.parametrize(
        "statement",
        [
            "SET LOCAL app.tenant = 'even'",
            "SET LOCAL app.tenant TO even;",
            "SELECT set_config('app.tenant', 'even', true) AS tenant",
            "SELECT pg_catalog.set_config('app.tenant', 'even', true)",
        ],
    )
    def test_every_way_of_writing_it(self, world: World, statement: str) -> None:
        with guarded(world, "even", statement) as session:
            found = session.scalars(select(Account.id).order_by(Account.id)).all()

        assert found == EVEN

    def test_core_expressions_and_driver_sql_set_it_too(self, world: World) -> None:
        everything = select(Account.id).order_by(Account.id)
        with world.engine.begin() as connection:
            connection.execute(select(func.set_config("app.tenant", "even", True)))
            even = connection.execute(everything).scalars().all()
            connection.exec_driver_sql("SET LOCAL app.tenant = 'odd'")
            odd = connection.execute(everything).scalars().all()

        assert even == EVEN
        assert odd == [number for number in NUMBERS if number not in EVEN]

    def test_an_engines_begin_event_sets_it(self, world: World) -> None:
        @event.listens_for(world.engine, "begin")
        def tell(connection: Connection) -> None:
            connection.exec_driver_sql("SET LOCAL app.tenant = 'even'")

        with Session(world.engine) as session:
            found = session.scalars(select(Account.id).order_by(Account.id)).all()

        assert found == EVEN

    def test_a_plain_session_and_a_factory_are_guarded(self, world: World) -> None:
        factory = sessionmaker(world.engine, info={"tenant": "even"})

        @event.listens_for(factory, "after_begin")
        def tell(session: Session, transaction: Any, connection: Connection) -> None:
            connection.execute(select(func.set_config("app.tenant", session.info["tenant"], True)))

        with factory.begin() as session:
            found = session.scalars(select(Account.id).order_by(Account.id)).all()

        assert found == EVEN

    def test_a_stream_is_guarded(self, world: World) -> None:
        with guarded(world, "even") as session:
            stream = session.scalars(
                select(Account.id).order_by(Account.id), execution_options={"yield_per": 2}
            )

            assert list(stream) == EVEN


class TestWriting:
    def test_rows_are_written_on_all_shards_in_one_transaction(self, world: World) -> None:
        with guarded(world, "even") as session:
            for account in session.scalars(select(Account)):
                account.name = "changed"
            session.add_all([Account(id=n + 100, tenant="even") for n in NUMBERS])
            session.commit()

        changed = world.rows("SELECT id FROM accounts WHERE name = 'changed'")
        assert [number for (number,) in changed] == EVEN
        assert len(world.rows("SELECT id FROM accounts WHERE id > 100")) == len(NUMBERS)

    def test_rows_for_another_tenant_are_refused_by_the_policy(self, world: World) -> None:
        with guarded(world, "even") as session:
            session.add_all([Account(id=n + 100, tenant="odd") for n in NUMBERS])
            with pytest.raises(ProgrammingError, match="row-level security"):
                session.flush()

    def test_updates_and_deletes_reach_the_tenants_rows_only(self, world: World) -> None:
        everywhere = {"shard": "*"} if world.cluster else {}
        with guarded(world, "even") as session:
            updated = session.execute(
                update(Account).values(name="changed"), execution_options=everywhere
            )
            deleted = session.execute(delete(Note), execution_options=everywhere)
            counts = (updated.rowcount, deleted.rowcount)  # type: ignore[attr-defined]
            session.commit()

        assert counts == (len(EVEN), 2 * len(EVEN))
        assert len(world.rows("SELECT * FROM notes")) == 2 * (len(NUMBERS) - len(EVEN))


class TestTransactions:
    def test_the_setting_is_gone_after_the_transaction(self, world: World) -> None:
        """The pools hold one connection each, which the next transaction gets."""
        with guarded(world, "even") as session:
            for end in (session.commit, session.rollback, session.close):
                session.scalars(select(Account)).all()
                end()
        with world.session() as session:
            found = session.scalars(select(Account)).all()

        assert found == []

    def test_it_is_gone_after_a_commit_over_several_shards(self, world: World) -> None:
        with guarded(world, "even") as session:
            session.add_all([Account(id=n + 100, tenant="even") for n in NUMBERS])
            session.commit()
        with world.session() as session:
            found = session.scalars(select(Account)).all()

        assert found == []

    def test_the_next_tenant_has_its_own(self, world: World) -> None:
        seen = []
        for tenant in ("even", "odd", "even"):
            with guarded(world, tenant) as session:
                seen.append(set(session.scalars(select(Account.tenant))))

        assert seen == [{"even"}, {"odd"}, {"even"}]

    def test_a_savepoint_that_is_rolled_back_undoes_it(self, world: World) -> None:
        as_odd = text("SELECT set_config('app.tenant', 'odd', true)")
        with world.engine.begin() as connection:
            connection.execute(text("SELECT set_config('app.tenant', 'even', true)"))
            connection.execute(select(Account.id).where(Account.id == 2)).all()
            savepoint = connection.begin_nested()
            connection.execute(as_odd)
            within = connection.execute(select(Account.tenant).where(Account.id < 4)).scalars()
            seen_within = set(within)
            savepoint.rollback()
            seen_after = set(connection.execute(select(Account.tenant)).scalars())
            with connection.begin_nested():
                connection.execute(as_odd)
            seen_last = set(connection.execute(select(Account.tenant)).scalars())

        assert (seen_within, seen_after, seen_last) == ({"odd"}, {"even"}, {"odd"})

    def test_it_holds_within_the_savepoints_of_a_session(self, world: World) -> None:
        with guarded(world, "even") as session:
            with session.begin_nested():
                session.add(Account(id=102, tenant="even"))
            savepoint = session.begin_nested()
            session.add(Account(id=104, tenant="even"))
            session.flush()
            savepoint.rollback()
            found = session.scalars(select(Account.id).order_by(Account.id)).all()

        assert found == [*EVEN, 102]

    def test_other_settings_of_the_transaction_hold_too(self, world: World) -> None:
        with guarded(world, "even") as session:
            session.execute(text("SET LOCAL statement_timeout = 30"))
            with pytest.raises(OperationalError, match="statement timeout"):
                session.execute(select(Account.id, func.pg_sleep(5)).where(Account.id == 2))

    def test_constraints_can_be_deferred_and_the_transaction_be_read_only(
        self, world: World
    ) -> None:
        with guarded(world, "even") as session:
            session.execute(text("SET CONSTRAINTS ALL DEFERRED"))
            session.execute(text("SET TRANSACTION READ ONLY"))
            session.add(Account(id=102, tenant="even"))
            with pytest.raises(DBAPIError, match="read-only transaction"):
                session.flush()

    def test_a_wrong_setting_fails_the_transaction(self, world: World) -> None:
        with world.session() as session:
            session.scalars(select(Account)).all()
            with pytest.raises(DBAPIError, match="unrecognized configuration"):
                session.execute(text("SET LOCAL no_such_setting = 1"))
            with pytest.raises(DBAPIError, match="aborted"):
                session.scalars(select(Account)).all()


class TestShardsThatJoinLater:
    def test_each_has_the_setting_before_anything_else(self, spread: World) -> None:
        with guarded(spread, "even") as session:
            joined = []
            for number in EVEN:
                assert session.get(Account, number) is not None
                joined.append(len(enlisted(session)))

        assert joined[0] == 1
        assert joined[-1] == 4

    def test_none_joins_for_the_setting_alone(self, spread: World) -> None:
        with guarded(spread, "even") as session:
            assert enlisted(session) == set()

    def test_settings_and_savepoints_come_in_their_order(self, spread: World) -> None:
        first, second = two_of_one_tenant(spread)
        with spread.engine.begin() as connection:
            connection.execute(text("SET LOCAL app.tenant = 'even'"))
            savepoint = connection.begin_nested()
            connection.execute(text("SET LOCAL app.tenant = 'odd'"))
            connection.execute(select(Account).where(Account.id == first)).all()
            savepoint.rollback()
            found = connection.execute(select(Account.id).where(Account.id == second)).scalar()
            again = connection.execute(select(Account.id).where(Account.id == first)).scalar()

        assert (found, again) == (second, first)

    def test_the_drivers_own_connection_has_it_too(self, spread: World) -> None:
        with guarded(spread, "even") as session:
            cluster_connection: Any = session.connection().connection.driver_connection
            rows = [
                tenant
                for shard in SHARDS
                for (tenant,) in cluster_connection.shard(shard).execute(
                    "SELECT tenant FROM accounts"
                )
            ]

        assert rows == ["even"] * len(EVEN)

    def test_a_setting_that_a_shard_refuses_leaves_nothing_to_run_there(
        self, spread: World
    ) -> None:
        first, second = two_of_one_tenant(spread)
        with spread.session() as session:
            cluster_connection: Any = session.connection().connection.driver_connection
            session.execute(text("SET LOCAL no_such_setting = 1"))
            with pytest.raises(DBAPIError, match="unrecognized configuration") as told:
                session.get(Account, first)
            with pytest.raises(DBAPIError, match="aborted"):
                session.get(Account, second)
            with pytest.raises(InFailedSqlTransaction):
                cluster_connection.shard(spread.cluster.shard_for(Account, first))  # type: ignore[union-attr]
            session.rollback()
            session.get(Account, second)

        assert f"shard: {spread.cluster.shard_for(Account, first)}" in str(told.value)  # type: ignore[union-attr]

    def test_a_dead_connection_is_noticed_by_the_setting(self, spread: World) -> None:
        """The setting is the first that a pooled connection is asked in each transaction."""
        with guarded(spread, "even") as session:
            session.scalars(select(Account)).all()
            session.rollback()
            for url in spread.urls.values():
                ask(
                    url,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE usename = 'tenants_app' AND datname = current_database()",
                )
            with pytest.raises(DBAPIError) as told:
                session.get(Account, 2)
            session.rollback()
            found = session.get(Account, 2)

        assert told.value.connection_invalidated
        assert found is not None


class TestRefusals:
    @pytest.mark.parametrize(
        "statement",
        [
            "SET app.tenant = 'even'",
            "SET SESSION app.tenant = 'even'",
            "SELECT set_config('app.tenant', 'even', false)",
            "RESET app.tenant",
            "SET LOCAL app.tenant = 'even'; SELECT 1",
        ],
    )
    def test_what_would_outlive_the_transaction_is_refused(
        self, spread: World, statement: str
    ) -> None:
        with spread.session() as session, pytest.raises(MissingShardKey, match="SET LOCAL name"):
            session.execute(text(statement))

    @pytest.mark.parametrize(
        "statement",
        [
            "SET LOCAL ROLE tenants_app",
            "SET ROLE tenants_app",
            "SET SESSION AUTHORIZATION tenants_app",
            "SELECT set_config('role', 'tenants_app', true)",
        ],
    )
    def test_the_role_is_not_set_without_a_shard(self, spread: World, statement: str) -> None:
        with spread.session() as session, pytest.raises(UnsupportedStatement, match="the role"):
            session.execute(text(statement))

    def test_a_core_call_that_would_set_one_shard_for_ever_is_refused(self, spread: World) -> None:
        with spread.session() as session, pytest.raises(MissingShardKey, match="SET LOCAL name"):
            session.execute(select(func.set_config("app.tenant", "even", False)))

    def test_autocommit_has_no_transaction_to_set_for(self, spread: World) -> None:
        engine: Engine = spread.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection, pytest.raises(UnsupportedStatement, match="AUTOCOMM"):
            connection.execute(text("SET LOCAL app.tenant = 'even'"))

    def test_the_value_that_was_set_is_not_returned(self, spread: World) -> None:
        with guarded(spread, "even") as session:
            result = session.execute(text("SELECT set_config('app.tenant', 'odd', true) AS a"))
            with pytest.raises(UnsupportedStatement, match="current_setting"):
                result.scalar()
            tenant = session.scalar(select(func.current_setting("app.tenant")))

        assert list(result.keys()) == ["a"]
        assert tenant == "odd"

    def test_one_named_shard_alone_can_be_set(self, spread: World) -> None:
        shard = spread.cluster.shard_for(Account, 2)  # type: ignore[union-attr]
        with spread.session() as session:
            session.execute(
                text("SET LOCAL app.tenant = 'even'"), execution_options={"shard": shard}
            )
            found = session.scalars(select(Account.id)).all()

        assert 2 in found
        assert len(found) < len(EVEN)

    def test_explain_tells_it(self, spread: World) -> None:
        told = str(spread.cluster.explain(text("SET LOCAL app.tenant = 'even'")))  # type: ignore[union-attr]

        assert "set on each shard as it joins" in told


class TestConnectEvents:
    def test_a_listener_of_each_shards_engine_sets_every_connection(self, spread: World) -> None:
        for shard in spread.cluster.shards.values():  # type: ignore[union-attr]

            @event.listens_for(shard.engine, "connect")
            def tell(driver_connection: Any, record: Any) -> None:
                driver_connection.execute("SET app.tenant = 'even'")
                driver_connection.commit()

        with spread.session() as session:
            first = session.scalars(select(Account.id).order_by(Account.id)).all()
        with spread.session() as session:
            second = session.scalars(select(Account.id).order_by(Account.id)).all()

        assert first == second == EVEN

    def test_the_cluster_connection_has_no_server_to_set(self, spread: World) -> None:
        @event.listens_for(spread.engine, "connect")
        def tell(driver_connection: Any, record: Any) -> None:
            driver_connection.cursor().execute("SET app.tenant = 'even'")

        with pytest.raises(MissingShardKey, match=r"connection\.shard"):
            spread.engine.connect()


def two_of_one_tenant(world: World) -> tuple[int, int]:
    """Numbers of two accounts of one tenant on different shards."""
    assert world.cluster is not None
    home = world.cluster.shard_for(Account, EVEN[0])
    return EVEN[0], next(n for n in EVEN if world.cluster.shard_for(Account, n) != home)
