"""Execution options and tables: where statements may go, and where copies are read and written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import selectinload

from sqlalchemy_shards import HashPartitioner, Keyspace, ListPartitioner, create_cluster
from sqlalchemy_shards.errors import (
    ConfigurationError,
    MissingShardKey,
    RoutingError,
    ScatterNotAllowed,
    UnknownShard,
    UnsupportedStatement,
)
from tests.shards.shop import (
    CUSTOMERS,
    DECLARED,
    SHARDS,
    UNDECLARED,
    World,
    ask,
    enlisted,
    make_customer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards import Cluster


def on(world: World, number: int) -> str:
    assert world.cluster is not None
    return world.cluster.shard_for(world.models.Customer, number)


class TestShard:
    def test_a_named_shard_answers_with_its_own_rows(self, spread_shop: World) -> None:
        m = spread_shop.models
        query = select(m.Customer.id).order_by(m.Customer.id)
        with spread_shop.engine.connect() as connection:
            found = {
                name: connection.execute(query, execution_options={"shard": name}).scalars().all()
                for name in SHARDS
            }

        assert found == {
            name: [n for n in CUSTOMERS if on(spread_shop, n) == name] for name in SHARDS
        }

    def test_several_named_shards_are_merged(self, spread_shop: World) -> None:
        m = spread_shop.models
        query = select(m.Customer.id).order_by(m.Customer.id)
        with spread_shop.engine.connect() as connection:
            result = connection.execute(query, execution_options={"shard": ("s3", "s1")})
            found = result.scalars().all()
            used = enlisted(connection)

        assert found == [n for n in CUSTOMERS if on(spread_shop, n) in ("s1", "s3")]
        assert used == {"s1", "s3"}

    @pytest.mark.parametrize("level", ["statement", "call", "connection", "engine", "query"])
    def test_the_option_is_read_at_every_level(self, spread_shop: World, level: str) -> None:
        m = spread_shop.models
        option = {"shard": "s2"}
        query = select(m.Customer.id)
        engine = spread_shop.engine
        if level == "statement":
            query = query.execution_options(**option)
        elif level == "engine":
            engine = engine.execution_options(**option)
        with spread_shop.session(bind=engine) as session:
            if level == "connection":
                session.connection(execution_options=option)
            if level == "query":
                found = [row.id for row in session.query(m.Customer.id).on_shard("s2")]  # type: ignore[attr-defined]
            else:
                found = session.scalars(
                    query, execution_options=option if level == "call" else {}
                ).all()

        assert sorted(found) == [n for n in CUSTOMERS if on(spread_shop, n) == "s2"]

    def test_the_option_reaches_eager_loads(self, spread_shop: World) -> None:
        m = spread_shop.models
        query = select(m.Customer).options(selectinload(m.Customer.orders))
        with spread_shop.session() as session:
            found = session.scalars(query, execution_options={"shard": "s2"}).all()
            orders = {order.id for customer in found for order in customer.orders}

        assert orders == {
            n * 10 + each for n in CUSTOMERS if on(spread_shop, n) == "s2" for each in (1, 2)
        }

    @pytest.mark.parametrize("shard", ["s9", ("s0", "s9"), ()])
    def test_an_unknown_shard_is_told(self, spread_shop: World, shard: Any) -> None:
        m = spread_shop.models
        with spread_shop.session() as session, pytest.raises(UnknownShard):
            session.execute(select(m.Customer), execution_options={"shard": shard})

    def test_a_row_cannot_be_sent_to_a_shard_that_is_not_its_own(self, spread_shop: World) -> None:
        m = spread_shop.models
        wrong = next(name for name in SHARDS if name != on(spread_shop, 100))
        row = {"id": 100, "name": "x", "version": 1}
        with spread_shop.session() as session:
            with pytest.raises(RoutingError, match="belongs to shard"):
                session.execute(
                    insert(m.Customer).values(**row), execution_options={"shard": wrong}
                )
            right = {"shard": on(spread_shop, 100)}
            session.execute(insert(m.Customer).values(**row), execution_options=right)
            session.commit()

        assert ask(spread_shop.urls[wrong], "SELECT * FROM customers WHERE id = 100") == []

    def test_explain_reads_the_options(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            found = session.explain(select(m.Customer), shard="s2")  # type: ignore[attr-defined]

        assert "s2" in str(found)
        assert "s1" not in str(found)


class TestShardKey:
    def test_a_key_leads_to_its_shard(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            session.execute(select(func.count()), execution_options={"shard_key": (m.Order, 7)})
            used = enlisted(session)
            found = session.query(m.Customer.id).on_key(m.Customer, 7).all()  # type: ignore[attr-defined]

        assert used == {on(spread_shop, 7)}
        assert (7,) in found
        assert len(found) < len(CUSTOMERS)

    @pytest.mark.parametrize(
        ("key", "error"),
        [
            ("seven", MissingShardKey),
            (None, MissingShardKey),
            ((1, 2), MissingShardKey),
            (1.5, MissingShardKey),
        ],
    )
    def test_what_is_no_key_is_told(self, spread_shop: World, key: Any, error: Any) -> None:
        m = spread_shop.models
        with spread_shop.session() as session, pytest.raises(error):
            session.execute(select(m.Customer), execution_options={"shard_key": (m.Customer, key)})

    @pytest.mark.parametrize("value", [7, ("no model", 7), "ab"])
    def test_what_is_no_model_is_told(self, spread_shop: World, value: Any) -> None:
        m = spread_shop.models
        with spread_shop.session() as session, pytest.raises(MissingShardKey):
            session.execute(select(m.Customer), execution_options={"shard_key": value})

    def test_a_reference_table_has_no_key(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session, pytest.raises(MissingShardKey, match="not sharded"):
            session.execute(select(m.Region), execution_options={"shard_key": (m.Region, "n")})


class TestScatter:
    @pytest.fixture
    def strict(self, spread_shop: World) -> Iterator[World]:
        """A cluster that refuses to scatter."""
        cluster = create_cluster(spread_shop.urls, name="shop", scatter="refuse")
        yield World("strict", spread_shop.models, cluster.engine, spread_shop.urls, cluster)
        cluster.dispose()

    def test_it_can_be_refused_for_a_statement(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            with pytest.raises(ScatterNotAllowed, match="scatter"):
                session.execute(select(m.Customer), execution_options={"scatter": "refuse"})
            keyed = select(m.Customer).where(m.Customer.id.in_([1, 2, 3]))
            found = session.scalars(keyed, execution_options={"scatter": "refuse"}).all()

        assert len(found) == 3

    def test_it_can_be_refused_by_the_cluster_and_allowed_again(self, strict: World) -> None:
        m = strict.models
        query = select(m.Customer.id).order_by(m.Customer.id)
        with strict.session() as session:
            with pytest.raises(ScatterNotAllowed):
                session.scalars(query)
            allowed = session.scalars(query, execution_options={"scatter": "allow"}).all()
            by_shard = session.scalars(query, execution_options={"shard": "*"}).all()
            by_key = session.get(m.Customer, 5).id

        assert allowed == by_shard == list(CUSTOMERS)
        assert by_key == 5

    def test_another_value_is_told(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session, pytest.raises(ConfigurationError, match="perhaps"):
            session.execute(select(m.Customer), execution_options={"scatter": "perhaps"})

    def test_an_unknown_choice_for_a_write_is_refused(self, spread_shop: World) -> None:
        m = spread_shop.models
        raised = update(m.Customer).values(version=2)

        with spread_shop.session() as session, pytest.raises(ConfigurationError, match="'alow'"):
            session.execute(raised, execution_options={"scatter": "alow"})


class TestReferenceTables:
    def test_they_are_read_from_a_shard_that_is_enlisted(self, spread_shop: World) -> None:
        m = spread_shop.models
        for number in (n for n in CUSTOMERS if on(spread_shop, n) != "s0"):
            with spread_shop.session() as session:
                session.get(m.Customer, number)
                found = session.scalars(select(m.Region).order_by(m.Region.code)).all()
                used = enlisted(session)

            assert [region.code for region in found] == ["n", "s"]
            assert used == {on(spread_shop, number)}

    def test_they_are_read_from_one_shard_where_none_is(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            found = session.scalar(select(func.count()).select_from(m.Region))
            used = enlisted(session)

        assert found == 2
        assert len(used) == 1

    def test_they_are_written_on_all_shards(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            session.add(m.Region(code="e", name="East"))
            session.get(m.Region, "n").name = "changed"
            session.flush()
            session.delete(session.get(m.Region, "s", with_for_update=None))
            for customer in session.scalars(select(m.Customer)):
                customer.region_code = "n"
            session.commit()

        found = spread_shop.rows_by_shard("SELECT code, name FROM regions")
        assert set(map(tuple, found.values())) == {(("e", "East"), ("n", "changed"))}

    def test_counts_are_those_of_one_copy(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.engine.begin() as connection:
            counted = connection.execute(update(m.Region).values(name="x")).rowcount
            returned = connection.execute(
                update(m.Region).values(name="y").returning(m.Region.code)
            ).all()

        assert counted == 2
        assert sorted(returned) == [("n",), ("s",)]

    def test_many_rows_come_back_in_the_order_of_their_parameters(self, shop: World) -> None:
        m = shop.models
        rows = [{"code": f"r{n}", "name": str(n)} for n in (3, 1, 2)]
        with shop.session() as session:
            found = session.scalars(
                insert(m.Region).returning(m.Region.code, sort_by_parameter_order=True), rows
            ).all()
            session.commit()

        assert found == ["r3", "r1", "r2"]
        assert len(shop.rows("SELECT * FROM regions")) == 5 * len(shop.urls)

    @pytest.mark.parametrize("shard", ["s1", ("s0", "s1")])
    def test_some_copies_alone_cannot_be_written(self, spread_shop: World, shard: Any) -> None:
        m = spread_shop.models
        with spread_shop.session() as session, pytest.raises(RoutingError, match="some shards"):
            session.execute(update(m.Region).values(name="x"), execution_options={"shard": shard})

    def test_what_would_make_copies_differ_is_refused(self, spread_shop: World) -> None:
        m = spread_shop.models
        for value in (func.random(), select(func.max(m.Customer.name)).scalar_subquery()):
            with spread_shop.session() as session, pytest.raises(UnsupportedStatement):
                session.execute(update(m.Region).values(name=value))

    def test_a_join_with_a_sharded_table_runs_on_each_shard(self, shop: World) -> None:
        m = shop.models
        query = (
            select(m.Customer.id, m.Region.name)
            .join(m.Customer.region)
            .where(m.Region.name == "North")
            .order_by(m.Customer.id)
        )
        with shop.session() as session:
            found = session.execute(query).all()

        assert found == [(n, "North") for n in CUSTOMERS if n % 2 == 0]


class TestGlobalTables:
    def test_they_live_on_the_global_shard(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            flags = [m.Flag(name=f"flag {n}") for n in range(10)]
            session.add_all(flags)
            session.flush()
            used = enlisted(session)
            keys = [flag.id for flag in flags]
            session.commit()

        assert used == {"s0"}
        assert len(set(keys)) == 10
        assert len(ask(spread_shop.urls["s0"], "SELECT * FROM flags")) == 10

    def test_another_shard_can_be_the_global_one(self, clean_shards: dict[str, str]) -> None:
        m = DECLARED
        cluster = create_cluster(clean_shards, name="shop", global_shard="s2")
        cluster.create_all(m.metadata)
        with World("", m, cluster.engine, clean_shards, cluster).session() as session:
            session.add(m.Flag(name="x"))
            session.commit()
            found = session.scalars(select(m.Flag.name)).all()
        cluster.dispose()

        assert found == ["x"]
        assert ask(clean_shards["s2"], "SELECT name FROM flags") == [("x",)]
        assert ask(clean_shards["s0"], "SELECT to_regclass('flags')") == [(None,)]

    def test_they_take_part_in_transactions_with_sharded_tables(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            session.add_all([m.Flag(name="x"), m.Customer(id=100, name="new")])
            session.rollback()
            session.add_all([m.Flag(name="y"), m.Customer(id=101, name="new")])
            session.commit()

        first = next(iter(shop.urls.values()))
        assert ask(first, "SELECT name FROM flags") == [("y",)]
        assert shop.rows("SELECT id FROM customers WHERE id >= 100") == [(101,)]


class TestUndeclaredTables:
    @pytest.fixture
    def moving(self, clean_shards: dict[str, str]) -> Iterator[Cluster]:
        """Four shards to which an application moves over, table by table."""
        cluster = create_cluster(clean_shards, name="shop", undeclared="global")
        yield cluster
        cluster.dispose()

    def test_undeclared_tables_live_on_the_global_shard(
        self, moving: Cluster, clean_shards: dict[str, str]
    ) -> None:
        m = UNDECLARED
        moving.create_all(m.metadata)
        world = World("", m, moving.engine, clean_shards, moving)
        world.fill()
        with world.session() as session:
            grouped = session.execute(
                select(m.Customer.region_code, func.count())
                .group_by(m.Customer.region_code)
                .order_by(m.Customer.region_code)
            ).all()

        assert grouped == [("n", 6), ("s", 6)]
        assert len(ask(clean_shards["s0"], "SELECT * FROM customers")) == 12
        assert ask(clean_shards["s1"], "SELECT to_regclass('customers')") == [(None,)]

    def test_undeclared_tables_are_refused_otherwise(self, four_shards: World) -> None:
        m = UNDECLARED
        with (
            four_shards.session() as session,
            pytest.raises(ConfigurationError, match="ShardKeyMixin"),
        ):
            session.scalars(select(m.Customer)).all()


class TestKeyspaces:
    def test_list_keyspaces_place_rows_by_their_value(self, clean_shards: dict[str, str]) -> None:
        m = DECLARED
        partitioner = ListPartitioner({"low": [1, 2, 3], "high": [10, 11]})
        keyspace = Keyspace(partitioner, placement={"low": "s3", "high": "s1"})
        cluster = create_cluster(clean_shards, name="shop", keyspaces={"default": keyspace})
        cluster.create_all(m.metadata)
        world = World("", m, cluster.engine, clean_shards, cluster)
        with world.session() as session:
            session.add_all([m.Region(code="n", name="N"), m.Region(code="s", name="S")])
            session.flush()
            session.add_all([make_customer(m, n) for n in (1, 2, 3, 10)])
            session.commit()
            with pytest.raises(UnknownShard):
                session.execute(insert(m.Customer).values(id=5, name="x", version=1))
            session.rollback()
            nobody = session.get(m.Customer, 5)
        found = world.rows_by_shard("SELECT id FROM customers")
        cluster.dispose()

        assert nobody is None
        assert found == {"s0": [], "s1": [(10,)], "s2": [], "s3": [(1,), (2,), (3,)]}

    def test_pinned_keys_live_where_they_are_pinned(self, clean_shards: dict[str, str]) -> None:
        m = DECLARED
        keyspace = Keyspace(HashPartitioner(), pins=dict.fromkeys(range(1, 5), "s2"))
        cluster = create_cluster(clean_shards, name="shop", keyspaces={"default": keyspace})
        cluster.create_all(m.metadata)
        world = World("", m, cluster.engine, clean_shards, cluster)
        world.fill()
        with world.session() as session:
            names = [session.get(m.Customer, n).name for n in CUSTOMERS]
        found = world.rows_by_shard("SELECT id FROM customers")
        cluster.dispose()

        assert names == [f"customer {n}" for n in CUSTOMERS]
        assert {(1,), (2,), (3,), (4,)} <= set(found["s2"])
