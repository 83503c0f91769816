"""Bad input gets a clear error, and nothing is lost."""

from __future__ import annotations

import copy
import datetime
import multiprocessing
import os
import pickle
import uuid
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, func, insert, make_url, select, update
from sqlalchemy.exc import ProgrammingError, StatementError

from sqlalchemy_shards import (
    Cluster,
    HashPartitioner,
    Keyspace,
    ShardedSession,
    create_cluster,
    errors,
)
from sqlalchemy_shards.errors import (
    ConfigurationError,
    MissingShardKey,
    RoutingError,
    ScatterNotAllowed,
    ShardsError,
    ShardUnavailable,
)
from sqlalchemy_shards.testing.servers import PostgresServers
from tests.databases import ask
from tests.shards.shop import CUSTOMERS, DECLARED, SHARDS, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@contextmanager
def cluster_of(urls: Mapping[str, str], **arguments: Any) -> Iterator[Cluster]:
    cluster = create_cluster(urls, **{"name": "shop", **arguments})
    try:
        yield cluster
    finally:
        cluster.dispose()


def count(cluster: Cluster) -> Any:
    with ShardedSession(cluster) as session:
        return session.scalar(select(func.count()).select_from(DECLARED.Customer))


class TestShards:
    def test_an_unreachable_shard_is_named_with_a_masked_url(self, spread_shop: World) -> None:
        wrong = make_url(spread_shop.urls["s1"]).set(
            username="nobody_known", password="very-secret", host="127.0.0.1", port=1
        )
        urls = {**spread_shop.urls, "s1": wrong.render_as_string(hide_password=False)}
        with cluster_of(urls) as cluster, ShardedSession(cluster) as session:
            with pytest.raises(ShardUnavailable) as caught:
                session.scalars(select(DECLARED.Customer)).all()
            session.rollback()
            elsewhere = next(
                n for n in CUSTOMERS if cluster.shard_for(DECLARED.Customer, n) != "s1"
            )
            found = session.get(DECLARED.Customer, elsewhere).name

        assert caught.value.shard == "s1"
        assert caught.value.is_retryable
        assert "very-secret" not in str(caught.value)
        assert "***" in str(caught.value)
        assert found == f"customer {elsewhere}"

    @pytest.mark.parametrize(
        "action",
        [
            lambda session, _: session.scalars(select(DECLARED.Customer.name).order_by("name")),
            lambda session, _: session.scalars(select(func.md5(DECLARED.Customer.name)).distinct()),
            lambda _, cluster: cluster.explain(
                select(DECLARED.Customer.name).order_by(DECLARED.Customer.name)
            ),
            lambda _, cluster: cluster.create_all(DECLARED.metadata),
            lambda _, cluster: cluster.bootstrap(),
        ],
        ids=["order", "gather", "explain", "create_all", "bootstrap"],
    )
    def test_an_unreachable_shard_is_named_by_what_asks_its_catalog(
        self, spread_shop: World, action: Callable[[ShardedSession, Cluster], Any]
    ) -> None:
        nowhere = "postgresql+psycopg://app:very-secret@127.0.0.1:1/x"
        with (
            cluster_of({**spread_shop.urls, "s2": nowhere}) as cluster,
            ShardedSession(cluster) as session,
            pytest.raises(ShardUnavailable) as caught,
        ):
            action(session, cluster)

        assert caught.value.shard == "s2"
        assert "very-secret" not in str(caught.value)

    def test_a_shard_without_the_tables_is_told(self, clean_shards: dict[str, str]) -> None:
        with cluster_of(clean_shards) as cluster:
            cluster.bootstrap()
            with pytest.raises(ProgrammingError, match=r"shard: s\d") as caught:
                count(cluster)

        assert 'relation "customers" does not exist' in str(caught.value)

    def test_one_shard_without_the_tables_stores_nothing_on_the_others(
        self, clean_shards: dict[str, str]
    ) -> None:
        m = DECLARED
        with cluster_of(clean_shards) as cluster:
            cluster.create_all(m.metadata)
            ask(clean_shards["s2"], "DROP TABLE customers CASCADE")
            with ShardedSession(cluster) as session:
                session.add_all([m.Customer(id=n, name="x") for n in CUSTOMERS])
                with pytest.raises(ProgrammingError, match="shard: s2"):
                    session.commit()

        for name in ("s0", "s1", "s3"):
            assert ask(clean_shards[name], "SELECT * FROM customers") == []

    def test_without_the_schema_shards_one_shard_can_be_written_and_several_not(
        self, clean_shards: dict[str, str]
    ) -> None:
        m = DECLARED
        for url in clean_shards.values():
            engine = create_engine(url)
            m.metadata.create_all(engine)
            engine.dispose()
        with cluster_of(clean_shards) as cluster:
            with ShardedSession(cluster) as session:
                session.add(m.Customer(id=1, name="one shard"))
                session.commit()
            with ShardedSession(cluster) as session:
                session.add_all([m.Customer(id=n + 10, name="several") for n in CUSTOMERS])
                with pytest.raises(ConfigurationError, match=r"cluster\.bootstrap\(\)"):
                    session.commit()
            counted = count(cluster)
            cluster.bootstrap()
            with ShardedSession(cluster) as session:
                session.add_all([m.Customer(id=n + 10, name="several") for n in CUSTOMERS])
                session.commit()
            after = count(cluster)

        assert counted == 1
        assert after == 13

    @pytest.mark.parametrize("action", ["bootstrap", "create_all", "read", "check"])
    def test_two_shards_that_are_one_database(self, shop_urls: dict[str, str], action: str) -> None:
        with cluster_of({**shop_urls, "s3": shop_urls["s2"]}) as cluster:
            if action == "check":
                report = cluster.check()
                assert not report.is_healthy
                assert "s3" in str(report)
                return
            with pytest.raises(ConfigurationError, match=r"'s2' and 's3'|'s3' and 's2'"):
                _do(cluster, action)

    def test_two_new_shards_that_are_one_database(self, clean_shards: dict[str, str]) -> None:
        urls = {"a": clean_shards["s0"], "b": clean_shards["s0"]}
        with cluster_of(urls) as cluster, pytest.raises(ConfigurationError, match="one database"):
            cluster.create_all(DECLARED.metadata)

        assert ask(clean_shards["s0"], "SELECT to_regclass('customers')") == [(None,)]

    def test_two_shards_that_are_one_database_without_the_schema_shards(
        self, clean_shards: dict[str, str]
    ) -> None:
        """They would answer with every row twice."""
        m = DECLARED
        engine = create_engine(clean_shards["s0"])
        m.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(
                m.Customer.__table__.insert(),
                [{"id": n, "name": "x", "version": 1} for n in CUSTOMERS],
            )
        engine.dispose()
        urls = {"a": clean_shards["s0"], "b": clean_shards["s0"]}
        with cluster_of(urls) as cluster, pytest.raises(ConfigurationError, match="one database"):
            count(cluster)

    @pytest.mark.parametrize("action", ["bootstrap", "create_all", "read", "write", "check"])
    def test_swapped_urls(self, spread_shop: World, action: str) -> None:
        before = spread_shop.rows_by_shard("SELECT id FROM customers")
        urls = spread_shop.urls
        swapped = {**urls, "s1": urls["s2"], "s2": urls["s1"]}
        with cluster_of(swapped) as cluster:
            if action == "check":
                assert not cluster.check().is_healthy
                return
            with pytest.raises(ConfigurationError, match="swapped"):
                _do(cluster, action)

        assert spread_shop.rows_by_shard("SELECT id FROM customers") == before

    def test_shards_of_another_cluster(self, spread_shop: World) -> None:
        with (
            cluster_of(spread_shop.urls, name="other") as cluster,
            pytest.raises(ConfigurationError, match="'shop'"),
        ):
            count(cluster)

    @pytest.mark.parametrize("action", ["bootstrap", "create_all", "read", "write", "check"])
    def test_a_missing_shard_in_the_configuration_of_another_process(
        self, spread_shop: World, action: str
    ) -> None:
        urls = {name: spread_shop.urls[name] for name in SHARDS[:3]}

        _is_refused_for_its_placement(urls, action, "recorded on s3, not on")

    @pytest.mark.parametrize("action", ["bootstrap", "create_all", "read", "write", "check"])
    def test_a_further_shard_that_would_take_buckets(
        self, clean_shards: dict[str, str], action: str
    ) -> None:
        with cluster_of({name: clean_shards[name] for name in SHARDS[:2]}) as cluster:
            cluster.create_all(DECLARED.metadata)
            _do(cluster, "write")

        _is_refused_for_its_placement(clean_shards, action, "recorded on s0, not on")


def _is_refused_for_its_placement(urls: dict[str, str], action: str, told: str) -> None:
    with cluster_of(urls) as cluster:
        if action == "check":
            report = cluster.check()
            assert not report.is_healthy
            assert any(told in finding.found for finding in report.findings)
            return
        with pytest.raises(ConfigurationError, match=told) as caught:
            _do(cluster, action)

    assert caught.value.faults


def _do(cluster: Cluster, action: str) -> None:
    if action == "bootstrap":
        cluster.bootstrap()
    elif action == "create_all":
        cluster.create_all(DECLARED.metadata)
    elif action == "read":
        count(cluster)
    else:
        with ShardedSession(cluster) as session:
            session.add_all([DECLARED.Customer(id=n + 100, name="x") for n in CUSTOMERS])
            session.commit()


class TestShardKeys:
    @pytest.mark.parametrize(
        "key", ["seven", "7", 7.5, b"7", uuid.UUID(int=7), datetime.date(2024, 1, 1)]
    )
    def test_a_key_of_another_type_is_refused_for_a_new_row(
        self, four_shards: World, key: Any
    ) -> None:
        m = four_shards.models
        with four_shards.session() as session:
            session.add(m.Customer(id=key, name="x"))
            with pytest.raises((RoutingError, StatementError)) as caught:
                session.flush()

        assert "customers.id" in str(caught.value)
        assert four_shards.rows("SELECT * FROM customers") == []

    @pytest.mark.parametrize("key", ["seven", 7.5, uuid.UUID(int=7)])
    def test_a_key_of_another_type_finds_what_one_postgresql_would(
        self, shop: World, key: Any
    ) -> None:
        """Whatever PostgreSQL says of the comparison, nothing is silently left out."""
        m = shop.models
        with shop.session() as session:
            try:
                found: Any = session.scalars(select(m.Customer).where(m.Customer.id == key)).all()
            except (StatementError, ShardsError) as error:
                found = type(error).__name__

        assert found == [] or isinstance(found, str)

    def test_a_number_that_equals_a_key_finds_its_row(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = select(m.Customer.name).where(m.Customer.id == 7.0)
            found = session.scalars(query).all()

        assert found == ["customer 7"]

    def test_a_missing_key_is_refused_at_the_flush(self, four_shards: World) -> None:
        m = four_shards.models
        with four_shards.session() as session:
            session.add(m.Document(title="nobody's"))
            with pytest.raises(MissingShardKey, match="owner_id"):
                session.flush()
            session.rollback()
            session.add(m.Document(title="somebody's", owner_id=1))
            session.commit()

        assert four_shards.rows("SELECT title FROM documents") == [("somebody's",)]

    def test_a_missing_key_of_one_row_among_many(self, four_shards: World) -> None:
        table = four_shards.models.Document.__table__
        rows: list[dict[str, Any]] = [{"id": uuid.uuid4(), "owner_id": n} for n in CUSTOMERS]
        rows[5]["owner_id"] = None
        with four_shards.engine.begin() as connection, pytest.raises(MissingShardKey):
            connection.execute(insert(table), rows)

        assert four_shards.rows("SELECT * FROM documents") == []

    def test_a_null_key_matches_nothing(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            found = session.scalars(
                select(m.Customer).where(m.Customer.id == None)  # noqa: E711
            ).all()

        assert found == []

    def test_a_changed_key_is_refused_and_nothing_is_lost(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            document = m.Document(owner_id=1, title="mine")
            session.add(document)
            session.commit()
            document.owner_id = 2
            with pytest.raises(errors.ShardKeyChanged):
                session.commit()
            session.rollback()
            owner = document.owner_id

        assert owner == 1
        assert spread_shop.rows("SELECT owner_id, title FROM documents") == [(1, "mine")]

    def test_shard_for_refuses_what_is_no_key(self, four_shards: World) -> None:
        assert four_shards.cluster is not None
        m = four_shards.models
        for model, key in ((m.Customer, "x"), (m.Customer, None), (m.Region, "n"), (object, 1)):
            with pytest.raises(RoutingError):
                four_shards.cluster.shard_for(model, key)

    def test_an_update_without_a_key_is_refused(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session, pytest.raises(ScatterNotAllowed):
            session.execute(
                update(m.Customer).where(m.Customer.name == "customer 5").values(name="x")
            )


class TestLifetimes:
    def test_a_disposed_cluster_refuses_every_use(self, shop_urls: dict[str, str]) -> None:
        m = DECLARED
        cluster = create_cluster(shop_urls, name="shop")
        session = ShardedSession(cluster)
        session.get(m.Customer, 1)
        cluster.dispose()
        with pytest.raises(ConfigurationError, match="disposed"):
            session.scalars(select(m.Customer)).all()
        with pytest.raises(ConfigurationError, match="disposed"):
            session.commit()
        session.close()
        for use in (
            lambda: ShardedSession(cluster).get(m.Customer, 1),
            cluster.bootstrap,
            lambda: cluster.create_all(m.metadata),
            cluster.recover,
            cluster.in_doubt,
            lambda: cluster.outcome("x"),
        ):
            with pytest.raises(ConfigurationError, match="disposed"):
                use()

    def test_disposing_twice_is_disposing_once(self, shop_urls: dict[str, str]) -> None:
        cluster = create_cluster(shop_urls, name="shop")
        cluster.dispose()
        cluster.dispose()

    def test_a_disposed_engine_opens_new_connections(self, spread_shop: World) -> None:
        """As SQLAlchemy's engines do: only the cluster's own dispose() is the end."""
        assert spread_shop.cluster is not None
        before = count(spread_shop.cluster)
        spread_shop.engine.dispose()
        after = count(spread_shop.cluster)

        assert (before, after) == (12, 12)

    def test_a_cluster_cannot_be_pickled_or_copied(self, four_shards: World) -> None:
        for use in (pickle.dumps, copy.deepcopy):
            with pytest.raises(ConfigurationError, match="cannot be pickled"):
                use(four_shards.cluster)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_cluster_opens_connections_of_its_own(self, spread_shop: World) -> None:
        assert spread_shop.cluster is not None
        with spread_shop.session() as session:
            session.scalars(select(spread_shop.models.Customer)).all()
            pids = _pids(session)
            answers = multiprocessing.get_context("fork").SimpleQueue()
            process = multiprocessing.get_context("fork").Process(
                target=_in_child, args=(spread_shop, answers)
            )
            process.start()
            counted, child_pids = answers.get()
            process.join()
            still = session.scalar(select(func.count()).select_from(spread_shop.models.Customer))
            after = _pids(session)

        assert process.exitcode == 0
        assert counted == 12
        assert not pids & child_pids
        assert still == 12
        assert after == pids

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_transaction_that_was_begun_before_the_fork_stays_with_the_parent(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            session.add_all([m.Customer(id=n + 100, name="parent's") for n in CUSTOMERS])
            session.flush()
            answers = multiprocessing.get_context("fork").SimpleQueue()
            process = multiprocessing.get_context("fork").Process(
                target=_use_parents_session, args=(session, m, answers)
            )
            process.start()
            told = answers.get()
            process.join()
            session.commit()

        assert "forked" in told[0]
        assert "forked" in told[1]
        assert told[2] == 12
        assert len(spread_shop.rows("SELECT * FROM customers WHERE name = 'parent''s'")) == 12


def _use_parents_session(session: Any, models: Any, answers: Any) -> None:
    told: list[Any] = []
    for use in (lambda: session.get(models.Customer, 1), session.commit):
        try:
            use()
        except ConfigurationError as error:
            told.append(str(error))
    session.rollback()
    told.append(session.scalar(select(func.count()).select_from(models.Customer)))
    session.close()
    answers.put(told)


def _pids(session: Any) -> set[int]:
    driver = session.connection().connection.driver_connection
    return {each.driver.info.backend_pid for each in driver.enlisted.values()}


def _in_child(world: World, answers: Any) -> None:
    with world.session() as session:
        counted = len(session.scalars(select(world.models.Customer)).all())
        answers.put((counted, _pids(session)))


@pytest.fixture(scope="module")
def poor_urls() -> Iterator[dict[str, str]]:
    """Two servers that prepare no transactions."""
    backend = os.environ.get("SHARDS_TEST_BACKEND", "auto")
    settings = {"max_prepared_transactions": 0}
    with PostgresServers(2, backend=backend, settings=settings) as poor:
        yield {"s0": poor.url(0), "s1": poor.url(1)}


class TestServersWithoutPreparedTransactions:
    def test_writes_to_several_shards_are_refused_before_anything_is_stored(
        self, poor_urls: dict[str, str]
    ) -> None:
        m = DECLARED
        with cluster_of(poor_urls) as cluster:
            cluster.create_all(m.metadata)
            with ShardedSession(cluster) as session:
                session.add_all([m.Customer(id=n, name="x") for n in CUSTOMERS])
                with pytest.raises(ShardsError, match="max_prepared_transactions"):
                    session.commit()
                session.rollback()
                left = session.scalar(select(func.count()).select_from(m.Customer))
            for number in CUSTOMERS:
                with ShardedSession(cluster) as session:
                    session.add(m.Customer(id=number, name="alone"))
                    session.commit()
            counted = count(cluster)
            report = cluster.check()

        assert left == 0
        assert counted == 12
        assert "max_prepared_transactions" in str(report)


class TestConfiguration:
    @pytest.mark.parametrize(
        "arguments",
        [
            {"undeclared": "perhaps"},
            {"scatter": "perhaps"},
            {"multi_shard_writes": "perhaps"},
            {"multi_shard_writes": "non_atomic"},
            {"on_unfinished": "perhaps"},
            {"global_shard": "s9"},
            {"workspace": "mysql://x/y"},
            {"gather_limit": 5},
            {"timeouts": 5},
            {"decision_retention": timedelta(seconds=5)},
            {"decision_retention": 3600},
            {"keyspaces": {"default": HashPartitioner(8)}},
            {"keyspaces": Keyspace(HashPartitioner(8))},
            {"pool_sise": 3},
        ],
        ids=str,
    )
    def test_what_is_no_choice_is_told(
        self, shop_urls: dict[str, str], arguments: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigurationError, match=next(iter(arguments))):
            create_cluster(shop_urls, name="shop", **arguments)

    @pytest.mark.parametrize(
        "url", ["sqlite://", "postgresql+psycopg2://x/y", "not a url", "postgresql+asyncpg://x/y"]
    )
    def test_what_is_no_shard_is_told(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="s0"):
            create_cluster({"s0": url})

    def test_no_shards_at_all_are_told(self) -> None:
        with pytest.raises(ConfigurationError):
            create_cluster({})

    @pytest.mark.parametrize("shards", [None, ["postgresql+psycopg://x/y"]], ids=str)
    def test_shards_without_names_are_told(self, shards: Any) -> None:
        with pytest.raises(ConfigurationError, match="name them"):
            create_cluster(shards)

    def test_writes_to_several_shards_can_be_refused(self, four_shards: World) -> None:
        m = DECLARED
        with (
            cluster_of(four_shards.urls, multi_shard_writes="refuse") as cluster,
            ShardedSession(cluster) as session,
        ):
            session.add_all([m.Customer(id=n, name="x") for n in CUSTOMERS])
            with pytest.raises(ScatterNotAllowed):
                session.flush()
            session.rollback()
            session.add(m.Customer(id=1, name="alone"))
            session.commit()

        assert four_shards.rows("SELECT name FROM customers") == [("alone",)]
