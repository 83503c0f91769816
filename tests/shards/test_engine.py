"""The cluster's engine where an ordinary one is expected, and what starts it."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import (
    JSON,
    Column,
    Enum,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    bindparam,
    create_engine,
    event,
    func,
    inspect,
    lambda_stmt,
    select,
    text,
    tuple_,
    types,
)
from sqlalchemy.dialects.postgresql import ARRAY, HSTORE, JSONB
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import DDL, CreateIndex, Index

from sqlalchemy_shards import create_cluster, global_table, reference_table, shard_table
from sqlalchemy_shards.errors import MissingShardKey
from tests.databases import ask
from tests.shards.shop import CUSTOMERS, DECLARED, SHARDS, World, enlisted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy_shards import Cluster

EVERYWHERE = {"shard": "*"}


@pytest.fixture
def empty_cluster(clean_shards: dict[str, str]) -> Iterator[Cluster]:
    """Four shards without any table."""
    cluster = create_cluster(clean_shards, name="shop")
    yield cluster
    cluster.dispose()


def tables_of(urls: dict[str, str]) -> dict[str, set[str]]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    return {name: {row[0] for row in ask(url, query)} for name, url in urls.items()}


class TestOrdinaryUses:
    def test_a_plain_session_works_on_the_engine(self, shop: World) -> None:
        m = shop.models
        with Session(shop.engine) as session:
            session.add_all([m.Customer(id=n + 100, name="new") for n in CUSTOMERS])
            session.get(m.Customer, 3).name = "changed"
            session.delete(session.get(m.Customer, 4))
            session.commit()
            found = session.scalars(select(m.Customer).order_by(m.Customer.id)).all()
            names = [each.name for each in found[:4]]

        assert len(found) == 23
        assert names == ["customer 1", "customer 2", "changed", "customer 5"]

    def test_a_plain_sessionmaker_works_on_the_engine(self, shop: World) -> None:
        m = shop.models
        with sessionmaker(shop.engine).begin() as session:
            session.add(m.Customer(id=100, name="new"))

        assert shop.rows("SELECT id FROM customers WHERE name = 'new'") == [(100,)]

    def test_core_begins_commits_and_rolls_back(self, world: World) -> None:
        table = world.models.Customer.__table__
        rows = [{"id": n, "name": "x", "version": 1} for n in CUSTOMERS]
        with world.engine.begin() as connection:
            connection.execute(table.insert(), rows)
        with world.engine.connect() as connection:
            connection.execute(table.delete().where(table.c.id.in_([1, 2, 3, 4, 5])))
            connection.rollback()
        with world.engine.connect() as connection:
            counted = connection.scalar(select(func.count()).select_from(table))

        assert counted == len(CUSTOMERS)

    def test_pandas_reads_and_writes(self, shop: World) -> None:
        pandas = pytest.importorskip("pandas")
        m = shop.models
        query = select(m.Order.id, m.Order.amount).order_by(m.Order.id)
        with shop.engine.connect() as connection:
            frame = pandas.read_sql(query, connection)
        by_engine = pandas.read_sql(query, shop.engine)
        chunks = list(pandas.read_sql(query, shop.engine, chunksize=5))

        assert list(frame.columns) == ["id", "amount"]
        assert frame["id"].tolist() == [n * 10 + each for n in CUSTOMERS for each in (1, 2)]
        assert by_engine.equals(frame)
        assert [len(chunk) for chunk in chunks] == [5, 5, 5, 5, 4]

    def test_threads_use_one_engine_at_the_same_time(self, world: World) -> None:
        m = world.models
        errors: list[BaseException] = []

        def work(first: int) -> None:
            try:
                for number in range(first, first + 10):
                    with world.session() as session:
                        session.add(m.Customer(id=number, name="x"))
                        session.commit()
                        session.scalars(select(m.Customer.id).order_by(m.Customer.id)).all()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n * 100,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert errors == []
        assert len(world.rows("SELECT * FROM customers")) == 60

    def test_two_clusters_in_one_process_keep_apart(
        self, four_shards: World, one_shard: World
    ) -> None:
        with four_shards.session() as one, one_shard.session() as other:
            one.add_all([four_shards.models.Customer(id=n, name="one") for n in CUSTOMERS])
            other.add_all([one_shard.models.Customer(id=n, name="other") for n in CUSTOMERS])
            one.commit()
            other.commit()

        assert set(four_shards.rows("SELECT name FROM customers")) == {("one",)}
        assert set(one_shard.rows("SELECT name FROM customers")) == {("other",)}

    def test_the_same_models_on_two_clusters(
        self, clean_shards: dict[str, str], four_shards: World
    ) -> None:
        """The second has its shards in another order, and so another map."""
        four_shards.fill()
        m = four_shards.models
        urls = dict(reversed(clean_shards.items()))
        other = create_cluster(urls, name="shop")
        other.create_all(m.metadata)
        World("the other", m, other.engine, urls, other).fill()
        with Session(other.engine) as session:
            everyone = session.scalars(select(m.Customer.id).order_by(m.Customer.id)).all()
        differ = [
            n
            for n in CUSTOMERS
            if other.shard_for(m.Customer, n) != four_shards.cluster.shard_for(m.Customer, n)  # type: ignore[union-attr]
        ]
        other.dispose()

        assert everyone == list(CUSTOMERS)
        assert differ

    def test_four_databases_of_one_server_are_four_shards(
        self, one_server_urls: dict[str, str]
    ) -> None:
        """They share the names of prepared transactions, and still commit together."""
        m = DECLARED
        cluster = create_cluster(one_server_urls, name="shop")
        cluster.create_all(m.metadata)
        world = World("one server", m, cluster.engine, one_server_urls, cluster)
        world.fill()
        with world.session() as session:
            for number in CUSTOMERS:
                session.get(m.Customer, number).name = "changed"
            session.commit()
            counted = session.scalar(select(func.count()).select_from(m.Customer))
            in_doubt = cluster.in_doubt()
        cluster.dispose()

        assert counted == 12
        assert all(world.rows_by_shard("SELECT id FROM customers").values())
        assert world.rows("SELECT DISTINCT name FROM customers") == [("changed",)] * 4
        assert in_doubt == []

    def test_sqlmodel_works_on_the_engine(self, clean_shards: dict[str, str]) -> None:
        sqlmodel = pytest.importorskip("sqlmodel")
        namespace = {
            "__annotations__": {"id": int, "name": str},
            "__module__": __name__,
            "__tablename__": "heroes",
            "id": sqlmodel.Field(
                sa_column=Column("id", Integer, primary_key=True, autoincrement=False)
            ),
        }
        hero: Any = type(sqlmodel.SQLModel)("Hero", (sqlmodel.SQLModel,), namespace, table=True)
        shard_table(hero, key="id")
        cluster = create_cluster(clean_shards, name="shop")
        cluster.create_all(hero.metadata)
        with sqlmodel.Session(cluster.engine) as session:
            session.add_all([hero(id=n, name=f"hero {n}") for n in CUSTOMERS])
            session.commit()
            found = session.exec(sqlmodel.select(hero).order_by(hero.id)).all()
            names = [each.name for each in found]
        cluster.dispose()

        assert names == [f"hero {n}" for n in CUSTOMERS]
        assert all(ask(url, "SELECT * FROM heroes") for url in clean_shards.values())


class TestDefaults:
    """Values that SQL computes, before or within the statement."""

    def test_sequences_of_global_tables_count_on_the_global_shard(
        self, empty_cluster: Cluster, clean_shards: dict[str, str]
    ) -> None:
        sequence = Sequence("numbers", metadata=MetaData())
        ask(clean_shards["s0"], "CREATE SEQUENCE numbers")
        with empty_cluster.engine.connect() as connection:
            found = [connection.scalar(sequence) for _ in range(3)]
            used = enlisted(connection)

        assert found == [1, 2, 3]
        assert used == {"s0"}

    def test_defaults_that_run_before_the_statement(self, world: World) -> None:
        table = Table(
            "defaulted",
            MetaData(),
            Column("id", Integer, primary_key=True, default=func.length("abc")),
            Column("note", String, default=func.upper("note")),
            implicit_returning=False,
        )
        if world.is_spread:
            global_table(table)
        table.create(world.engine)
        try:
            with world.engine.begin() as connection:
                key = connection.execute(table.insert()).inserted_primary_key
                found = connection.execute(select(table)).all()
        finally:
            table.drop(world.engine)

        assert key == (3,)
        assert found == [(3, "NOTE")]

    def test_a_sharded_tables_default_cannot_run_before_the_statement(
        self, four_shards: World
    ) -> None:
        table = Table(
            "defaulted",
            MetaData(),
            Column("owner", Integer, primary_key=True, autoincrement=False),
            Column("id", Integer, primary_key=True, default=func.length("abc")),
            implicit_returning=False,
        )
        shard_table(table, key="owner")
        with (
            four_shards.engine.begin() as connection,
            pytest.raises(MissingShardKey, match="client-side default"),
        ):
            connection.execute(table.insert(), {"owner": 1})

    def test_defaults_within_the_statement(self, world: World) -> None:
        table = Table(
            "defaulted",
            MetaData(),
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("note", String, default=func.upper("note")),
            Column("changed", String, onupdate=func.lower("CHANGED")),
        )
        if world.is_spread:
            shard_table(table)
        table.create(world.engine)
        try:
            with world.engine.begin() as connection:
                connection.execute(table.insert(), [{"id": n} for n in CUSTOMERS])
                connection.execute(
                    table.update().where(table.c.id == bindparam("key")).values(note="x"),
                    [{"key": 1}, {"key": 5}],
                )
                found = connection.execute(select(table).order_by(table.c.id)).all()
        finally:
            table.drop(world.engine)

        assert found == [
            (n, "x", "changed") if n in (1, 5) else (n, "NOTE", None) for n in CUSTOMERS
        ]


class TestStatementCache:
    def test_statements_are_compiled_once(self, spread_shop: World) -> None:
        m = spread_shop.models
        hits = []

        def note(
            connection: Any, cursor: Any, sql: str, values: Any, context: Any, many: Any
        ) -> None:
            hits.append(context.cache_hit.name)

        with spread_shop.engine.connect() as connection:
            event.listen(spread_shop.engine, "before_cursor_execute", note)
            for number in CUSTOMERS:
                connection.execute(select(m.Order).where(m.Order.customer_id == number)).all()
            for limit in (1, 2, 3):
                connection.execute(select(m.Order).order_by(m.Order.id).limit(limit)).all()

        assert hits == ["CACHE_MISS", *["CACHE_HIT"] * 11, "CACHE_MISS", *["CACHE_HIT"] * 2]

    def test_one_compiled_statement_serves_one_shard_and_all(self, spread_shop: World) -> None:
        """The description of the first execution is cached: hidden columns must not show."""
        m = spread_shop.models
        query = select(m.Customer.name).order_by(m.Customer.id.desc())
        assert spread_shop.cluster is not None
        shard = spread_shop.cluster.shard_for(m.Customer, 5)
        with spread_shop.engine.connect() as connection:
            first = connection.execute(query).all()
            single = connection.execute(query, execution_options={"shard": shard}).all()
            again = connection.execute(query).all()

        assert [len(row) for row in first + single + again] == [1] * (24 + len(single))
        assert first == again == [(f"customer {n}",) for n in reversed(CUSTOMERS)]
        assert ("customer 5",) in single
        assert len(single) < 12

    def test_one_shard_first_and_all_later(self, spread_shop: World) -> None:
        m = spread_shop.models
        query = select(m.Customer.name).order_by(m.Customer.id).limit(20)
        with spread_shop.engine.connect() as connection:
            single = connection.execute(query, execution_options={"shard": "s0"}).all()
            everyone = connection.execute(query).all()

        assert set(single) < set(everyone)
        assert everyone == [(f"customer {n}",) for n in CUSTOMERS]


class TestParameters:
    """Values in every way that SQLAlchemy passes them."""

    def test_lists_empty_lists_and_tuples(self, shop: World) -> None:
        m = shop.models
        pairs = tuple_(m.Order.customer_id, m.Order.id)
        with shop.engine.connect() as connection:
            found = [
                connection.execute(query.order_by(m.Order.id)).scalars().all()
                for query in (
                    select(m.Order.id).where(m.Order.customer_id.in_([1, 5, 9])),
                    select(m.Order.id).where(m.Order.customer_id.in_([])),
                    select(m.Order.id).where(pairs.in_([(2, 21), (3, 32), (4, 99)])),
                    select(m.Order.id).where(m.Order.customer_id.not_in(range(1, 12))),
                )
            ]

        assert found == [[11, 12, 51, 52, 91, 92], [], [21, 32], [121, 122]]

    def test_a_users_own_expanding_parameter(self, shop: World) -> None:
        m = shop.models
        keys = bindparam("keys", expanding=True)
        query = select(m.Order.id).where(m.Order.customer_id.in_(keys)).order_by(m.Order.id)
        with shop.engine.connect() as connection:
            found = [
                connection.execute(query, {"keys": keys}).scalars().all()
                for keys in ([1], [1, 2], [], [12])
            ]

        assert found == [[11, 12], [11, 12, 21, 22], [], [121, 122]]

    def test_literal_execute_parameters(self, shop: World) -> None:
        m = shop.models
        number = bindparam("number", literal_execute=True)
        query = select(m.Order.id).where(m.Order.customer_id == number)
        with shop.engine.connect() as connection:
            found = [
                sorted(connection.execute(query, {"number": each}).scalars().all())
                for each in CUSTOMERS
            ]

        assert found == [[n * 10 + 1, n * 10 + 2] for n in CUSTOMERS]

    def test_callable_and_named_parameters(self, shop: World) -> None:
        m = shop.models
        with shop.engine.connect() as connection:
            by_callable = connection.execute(
                select(m.Order.id)
                .where(m.Order.customer_id == bindparam("odd name(%):", callable_=lambda: 7))
                .order_by(m.Order.id)
            )
            found = by_callable.scalars().all()
            by_name = connection.execute(
                select(m.Order.id).where(m.Order.customer_id == bindparam("a.b")).order_by("id"),
                {"a.b": 8},
            )
            named = by_name.scalars().all()

        assert (found, named) == ([71, 72], [81, 82])

    def test_lambda_statements(self, shop: World) -> None:
        m = shop.models
        order = m.Order
        found = []
        with shop.session() as session:
            for number in (1, 6, 11):
                statement = lambda_stmt(lambda: select(order.id))
                statement += lambda s: s.where(order.customer_id == number).order_by(order.id)  # noqa: B023
                found.append(session.execute(statement).scalars().all())

        assert found == [[11, 12], [61, 62], [111, 112]]

    def test_types_are_processed_in_derived_statements_too(self, world: World) -> None:
        """ORDER BY with a limit runs a derived statement: its values must be processed alike."""

        class Shouted(types.TypeDecorator[str]):
            impl = String
            cache_ok = True

            def process_bind_param(self, value: Any, dialect: Any) -> Any:
                return value.upper()

            def process_result_value(self, value: Any, dialect: Any) -> Any:
                return value.lower()

        table = Table(
            "typed",
            MetaData(),
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("word", Shouted),
            Column("data", JSON),
            Column("more", JSONB),
            Column("kind", Enum("x", "y", name="kind_of_typed")),
            Column("many", ARRAY(Integer)),
        )
        if world.is_spread:
            shard_table(table)
        rows = [
            {"id": n, "word": "abc", "data": {"n": n}, "more": [n], "kind": "x", "many": [n, n]}
            for n in CUSTOMERS
        ]
        table.metadata.create_all(world.engine)
        try:
            with world.engine.begin() as connection:
                connection.execute(table.insert(), rows)
                query = (
                    select(table)
                    .where(
                        table.c.word == "abc",
                        table.c.kind.in_(["x"]),
                        table.c.more == [5],
                        table.c.many == [5, 5],
                    )
                    .order_by(table.c.id)
                    .limit(3)
                )
                found = connection.execute(query).all()
                stored = connection.execute(
                    select(table.c.word, table.c.data).order_by(table.c.id).limit(2)
                ).all()
        finally:
            table.metadata.drop_all(world.engine)

        assert found == [(5, "abc", {"n": 5}, [5], "x", [5, 5])]
        assert stored == [("abc", {"n": 1}), ("abc", {"n": 2})]


class TestDefinitions:
    def test_create_all_of_the_engine_makes_tables_where_they_belong(
        self, empty_cluster: Cluster, clean_shards: dict[str, str]
    ) -> None:
        metadata = MetaData()
        shard_table(
            Table("things", metadata, Column("id", Integer, primary_key=True, autoincrement=False))
        )
        reference_table(Table("kinds", metadata, Column("code", String, primary_key=True)))
        global_table(Table("settings", metadata, Column("name", String, primary_key=True)))
        empty_cluster.bootstrap()
        metadata.create_all(empty_cluster.engine)
        created = tables_of(clean_shards)
        metadata.drop_all(empty_cluster.engine)

        assert created == {
            "s0": {"things", "kinds", "settings"},
            **{name: {"things", "kinds"} for name in SHARDS[1:]},
        }
        assert tables_of(clean_shards) == {name: set() for name in SHARDS}

    def test_definitions_run_on_every_shard_and_roll_back_together(
        self, spread_shop: World
    ) -> None:
        index = Index("orders_by_amount", spread_shop.models.Order.__table__.c.amount)
        try:
            with spread_shop.engine.connect() as connection:
                connection.execute(CreateIndex(index))
                connection.execute(DDL("ALTER TABLE orders ADD COLUMN extra int DEFAULT 7"))
                during = connection.execute(
                    text("SELECT DISTINCT extra FROM orders"), execution_options=EVERYWHERE
                ).all()
                connection.rollback()
        finally:
            spread_shop.models.Order.__table__.indexes.discard(index)
        after = spread_shop.rows(
            "SELECT indexname FROM pg_indexes WHERE indexname = 'orders_by_amount'"
        )

        assert during == [(7,)] * 4
        assert after == []

    def test_definitions_can_be_sent_to_one_shard(
        self, empty_cluster: Cluster, clean_shards: dict[str, str]
    ) -> None:
        with empty_cluster.engine.begin() as connection:
            connection.execute(DDL("CREATE TABLE here (id int)"), execution_options={"shard": "s2"})

        assert tables_of(clean_shards) == {
            name: {"here"} if name == "s2" else set() for name in SHARDS
        }

    def test_reflection_reads_the_shards_tables(self, shop: World) -> None:
        inspector = inspect(shop.engine)
        columns = {each["name"]: each for each in inspector.get_columns("orders")}
        key = inspector.get_pk_constraint("orders")["constrained_columns"]
        reflected = Table("customers", MetaData(), autoload_with=shop.engine)

        assert set(columns) == {"customer_id", "id", "amount", "doubled", "status"}
        assert key == ["customer_id", "id"]
        assert {"customers", "orders", "labels"} <= set(inspector.get_table_names())
        assert inspector.has_table("regions")
        assert reflected.c.name.nullable is False

    def test_a_reflected_table_can_be_declared_and_used(self, spread_shop: World) -> None:
        table = shard_table(Table("customers", MetaData(), autoload_with=spread_shop.engine))
        with spread_shop.engine.connect() as connection:
            found = connection.execute(select(table.c.name).where(table.c.id == 7)).scalar_one()
            where = enlisted(connection)

        assert found == "customer 7"
        assert len(where) == 1


class TestText:
    def test_text_needs_a_shard(self, spread_shop: World) -> None:
        with spread_shop.engine.connect() as connection:
            for run in (
                lambda: connection.execute(text("SELECT 1")),
                lambda: connection.exec_driver_sql("SELECT 1"),
            ):
                with pytest.raises(MissingShardKey, match="raw SQL names no shard"):
                    run()

    def test_text_runs_on_the_shard_that_is_named(self, spread_shop: World) -> None:
        m = spread_shop.models
        query = text("SELECT current_database()")
        with spread_shop.session() as session:
            by_name = session.scalar(query, execution_options={"shard": "s2"})
            by_key = session.scalar(query, execution_options={"shard_key": (m.Customer, 7)})
            driver = session.connection().exec_driver_sql(
                "SELECT %s::int", (7,), execution_options={"shard": "s2"}
            )
            by_driver = driver.scalar()

        assert by_name == "shop_s2"
        assert by_key == f"shop_{spread_shop.cluster.shard_for(m.Customer, 7)}"  # type: ignore[union-attr]
        assert by_driver == 7

    @pytest.mark.parametrize("shards", ["*", ("s0", "s1", "s2", "s3")])
    def test_text_on_several_shards_gives_all_their_rows(
        self, spread_shop: World, shards: Any
    ) -> None:
        with spread_shop.engine.begin() as connection:
            found = connection.execute(
                text("SELECT id FROM customers WHERE id > :low"),
                {"low": 6},
                execution_options={"shard": shards},
            )
            keys = found.keys()
            rows = sorted(found.all())
            counted = connection.execute(
                text("UPDATE customers SET name = 'x'"), execution_options={"shard": shards}
            ).rowcount

        assert list(keys) == ["id"]
        assert rows == [(n,) for n in range(7, 13)]
        assert counted == 12

    def test_text_with_columns_fills_objects(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = text("SELECT id, name, version FROM customers").columns(
            m.Customer.id, m.Customer.name, m.Customer.version
        )
        with spread_shop.session() as session:
            found = session.scalars(
                select(m.Customer).from_statement(statement), execution_options=EVERYWHERE
            ).all()

        assert sorted(each.name for each in found) == sorted(f"customer {n}" for n in CUSTOMERS)

    def test_many_parameter_sets_run_where_they_are_sent(self, spread_shop: World) -> None:
        statement = text("UPDATE customers SET name = :name WHERE id = :id")
        rows = [{"id": n, "name": f"n{n}"} for n in CUSTOMERS]
        with spread_shop.engine.begin() as connection:
            connection.execute(statement, rows, execution_options=EVERYWHERE)

        assert spread_shop.rows("SELECT id, name FROM customers") == [
            (n, f"n{n}") for n in CUSTOMERS
        ]


class TestCreating:
    def test_an_engine_from_a_url_that_names_a_file(
        self, tmp_path: Path, shop_urls: dict[str, str], four_shards: World
    ) -> None:
        four_shards.fill()
        m = four_shards.models
        shards = "\n".join(f"{name} = {json.dumps(url)}" for name, url in shop_urls.items())
        path = tmp_path / "shards.toml"
        path.write_text(f'[cluster]\nname = "shop"\n\n[shards]\n{shards}\n')
        engine = create_engine(f"postgresql+shards:///{path}")
        with Session(engine) as session:
            found = session.scalars(select(m.Customer.id).order_by(m.Customer.id)).all()
        engine.dispose()

        assert found == list(CUSTOMERS)

    def test_the_dialect_knows_what_its_servers_are(self, four_shards: World, servers: Any) -> None:
        with four_shards.engine.connect() as connection:
            version = connection.dialect.server_version_info
            schema = connection.dialect.default_schema_name

        assert version is not None
        assert version[0] == servers.version
        assert schema == "public"

    def test_hstore_and_json_arguments_reach_the_shards_engines(
        self, clean_shards: dict[str, str]
    ) -> None:
        available = "SELECT 1 FROM pg_available_extensions WHERE name = 'hstore'"
        if not ask(clean_shards["s0"], available):
            pytest.skip("these servers have no hstore")
        for url in clean_shards.values():
            ask(url, "CREATE EXTENSION hstore")
        cluster = create_cluster(
            clean_shards,
            name="shop",
            json_deserializer=lambda data: ("by hand", json.loads(data)),
        )
        table = Table(
            "bags",
            MetaData(),
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("bag", HSTORE),
            Column("data", JSON),
        )
        shard_table(table)
        cluster.create_all(table.metadata)
        rows = [{"id": n, "bag": {"n": str(n)}, "data": {"n": n}} for n in CUSTOMERS]
        with cluster.engine.begin() as connection:
            connection.execute(table.insert(), rows)
            found = connection.execute(select(table).order_by(table.c.id)).all()
        cluster.dispose()

        assert found == [(n, {"n": str(n)}, ("by hand", {"n": n})) for n in CUSTOMERS]

    def test_pool_arguments_are_the_shards(self, shop_urls: dict[str, str]) -> None:
        cluster = create_cluster(shop_urls, name="shop", poolclass=NullPool)
        pools = {type(each.engine.pool) for each in cluster.shards.values()}
        with cluster.engine.connect() as connection:
            found = connection.execute(text("SELECT 1"), execution_options=EVERYWHERE).all()
        cluster.dispose()

        assert pools == {NullPool}
        assert found == [(1,)] * 4

    def test_pools_that_reset_nothing_get_connections_without_a_transaction(
        self, shop_urls: dict[str, str]
    ) -> None:
        cluster = create_cluster(shop_urls, name="shop", pool_reset_on_return=None)
        insert = text("INSERT INTO customers (id, name, version) VALUES (900, 'left', 1)")
        for end in ("rollback", "close"):
            connection = cluster.engine.connect()
            connection.execute(insert, execution_options={"shard": "s1"})
            getattr(connection, end)()
            connection.close()
        with cluster.shards["s1"].engine.connect() as own:
            state = own.connection.driver_connection.info.transaction_status  # type: ignore[union-attr]
            left = own.execute(text("SELECT count(*) FROM customers WHERE id = 900")).scalar()
            own.rollback()
        cluster.dispose()

        assert (state, left) == (TransactionStatus.IDLE, 0)

    def test_more_sessions_than_a_shards_pool_holds_are_told(
        self, shop_urls: dict[str, str]
    ) -> None:
        cluster = create_cluster(
            shop_urls, name="shop", pool_size=1, max_overflow=0, pool_timeout=0.1
        )
        with cluster.engine.connect() as first, cluster.engine.connect() as second:
            first.execute(text("SELECT 1"), execution_options={"shard": "s1"})
            with pytest.raises(Exception, match="shard: s1"):
                second.execute(text("SELECT 1"), execution_options={"shard": "s1"})
            elsewhere = second.execute(text("SELECT 1"), execution_options={"shard": "s2"}).scalar()
        cluster.dispose()

        assert elsewhere == 1
