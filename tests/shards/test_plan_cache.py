"""Plans are kept beside SQLAlchemy's compiled statements, and hold nothing of one execution."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Integer, TypeDecorator, event, func, lambda_stmt, select, type_coerce
from sqlalchemy.engine.interfaces import CacheStats

from sqlalchemy_shards import GatherLimit, HashPartitioner, Keyspace, create_cluster
from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.cluster.plans import PlanCache
from sqlalchemy_shards.errors import (
    ConfigurationError,
    GatherLimitExceeded,
    ScatterNotAllowed,
    UnknownShard,
)
from tests.shards.shop import CUSTOMERS, SHARDS, UNDECLARED, World, enlisted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

THREADS = 8


def by_key(m: Any, key: int) -> Any:
    return select(m.Customer.name).where(m.Customer.id == key)


def of_keys(m: Any, key: int) -> Any:
    return select(m.Customer.id).where(m.Customer.id.in_([key, key + 1])).order_by(m.Customer.id)


def ordered(m: Any, key: int) -> Any:
    return select(m.Order.id).where(m.Order.id > key * 10).order_by(m.Order.id.desc()).limit(key)


def grouped(m: Any, key: int) -> Any:
    kinds = select(m.Customer.region_code, func.count(m.Customer.name.distinct()))
    return (
        kinds.where(m.Customer.id >= key)
        .group_by(m.Customer.region_code)
        .order_by(m.Customer.region_code)
    )


def joined_over_shards(m: Any, key: int) -> Any:
    pairs = select(m.Customer.id, m.Order.id).join(m.Order, m.Order.amount == m.Customer.id)
    return pairs.where(m.Order.id > key).order_by(m.Customer.id, m.Order.id)


STATEMENTS = (by_key, of_keys, ordered, grouped, joined_over_shards)
of_every_kind = pytest.mark.parametrize("make", STATEMENTS, ids=lambda make: make.__name__)


class Executed:
    """The compiled statements of an engine, as they are executed."""

    def __init__(self) -> None:
        self.compiled: list[Any] = []
        self.identities: list[int] = []
        self.hits: list[CacheStats] = []

    def note(self, *arguments: Any) -> None:
        context = arguments[4]
        self.compiled.append(weakref.ref(context.compiled))
        self.identities.append(id(context.compiled))
        self.hits.append(context.cache_hit)

    def alive(self) -> int:
        gc.collect()
        return sum(each() is not None for each in self.compiled)


@contextmanager
def executed(engine: Engine) -> Iterator[Executed]:
    found = Executed()
    event.listen(engine, "after_cursor_execute", found.note)
    try:
        yield found
    finally:
        event.remove(engine, "after_cursor_execute", found.note)


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class TestThreads:
    @of_every_kind
    @pytest.mark.usefixtures("impatient")
    def test_who_meet_a_statement_at_once_get_their_own_answers(
        self, spread_shop: World, plain: World, make: Callable[..., Any]
    ) -> None:
        plain.fill()
        met = threading.Barrier(THREADS)
        keys = CUSTOMERS[:THREADS]

        def answer(key: int) -> Any:
            with spread_shop.session() as session:
                session.connection()
                met.wait(60)
                return [session.execute(make(spread_shop.models, key)).all() for _ in range(3)]

        with ThreadPoolExecutor(THREADS) as pool:
            found = dict(zip(keys, pool.map(answer, keys), strict=True))

        with plain.session() as session:
            expected = {key: [session.execute(make(plain.models, key)).all()] * 3 for key in keys}
        assert found == expected


class TestOtherClusters:
    def test_one_statement_on_two_clusters_in_turns(
        self, spread_shop: World, clean_shards: dict[str, str]
    ) -> None:
        m = spread_shop.models
        keyspace = Keyspace(HashPartitioner(buckets=4))
        other = create_cluster(clean_shards, name="other", keyspaces={"default": keyspace})
        other.create_all(m.metadata)
        assert spread_shop.cluster is not None
        clusters = (spread_shop.cluster, other)
        went = []
        try:
            for key, cluster in product(CUSTOMERS, clusters * 2):
                with cluster.engine.connect() as connection:
                    connection.execute(by_key(m, key)).all()
                    went.append((enlisted(connection), {cluster.shard_for(m.Customer, key)}))
        finally:
            other.dispose()

        assert [shards for shards, _ in went] == [expected for _, expected in went]
        assert any(shards != others for (shards, _), (others, _) in pairwise(went))

    def test_a_compiled_statement_is_analysed_for_each_cluster(self) -> None:
        """What an undeclared table is, is for each cluster to say."""
        dialect = ShardsDialect()
        compiled: Any = select(UNDECLARED.Customer.__table__).compile(dialect=dialect)
        lenient = PlanCache(dialect, undeclared_is_global=True)
        strict = PlanCache(dialect, undeclared_is_global=False)

        for _ in range(2):
            assert lenient.plan_of(compiled).sources.reads_global
            with pytest.raises(ConfigurationError, match="does not say how it spreads"):
                strict.plan_of(compiled)
        assert lenient.plan_of(compiled) is lenient.plan_of(compiled)


class TestOptionsAndShardMaps:
    def test_a_plan_that_is_kept_serves_every_option(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = select(m.Customer.id).order_by(m.Customer.id)
        assert spread_shop.cluster is not None
        home = spread_shop.cluster.shard_for(m.Customer, 5)
        options: list[tuple[dict[str, Any], set[str]]] = [
            ({}, set(SHARDS)),
            ({"shard": "s2"}, {"s2"}),
            ({"shard": ("s1", "s3")}, {"s1", "s3"}),
            ({"shard_key": (m.Customer, 5)}, {home}),
            ({}, set(SHARDS)),
        ]
        for given, shards in options:
            with spread_shop.engine.connect() as connection:
                connection.execute(statement, execution_options=given).all()
                assert enlisted(connection) == shards

        with spread_shop.engine.connect() as connection:
            with pytest.raises(ScatterNotAllowed):
                connection.execute(statement, execution_options={"scatter": "refuse"})
            with pytest.raises(UnknownShard):
                connection.execute(statement, execution_options={"shard": "s9"})

    def test_a_limit_of_a_gather_is_that_of_the_execution(self, spread_shop: World) -> None:
        statement = joined_over_shards(spread_shop.models, 1)
        limits = [{}, {"gather_limit": GatherLimit(rows=1)}, {}]
        with spread_shop.engine.connect() as connection:
            answers = [_number_of_rows(connection, statement, given) for given in limits]

        assert answers[0] == answers[2] > 0 > answers[1]

    @pytest.mark.parametrize("make", [by_key, of_keys], ids=lambda make: make.__name__)
    def test_a_new_shard_map_is_looked_at_by_the_next_execution(
        self, spread_shop: World, make: Callable[..., Any]
    ) -> None:
        m, cluster = spread_shop.models, spread_shop.cluster
        assert cluster is not None
        key = next(key for key in CUSTOMERS if cluster.shard_for(m.Customer, key) != "s3")
        statement = make(m, key)
        shard_map = cluster.shard_map
        for each in (key, key + 1):
            shard_map = shard_map.moved("default", cluster.bucket_for(m.Customer, each), "s3")

        with executed(spread_shop.engine) as seen:
            with spread_shop.engine.connect() as connection:
                connection.execute(statement).all()
                before = enlisted(connection)
            cluster.territory = replace(cluster.territory, shard_map=shard_map)
            with spread_shop.engine.connect() as connection:
                connection.execute(statement).all()
                after = enlisted(connection)

        assert before != after == {"s3"}
        assert len(set(seen.identities)) == 1

    def test_a_lambda_goes_where_its_values_say(self, spread_shop: World) -> None:
        m, cluster = spread_shop.models, spread_shop.cluster
        assert cluster is not None
        customer = m.Customer

        def named(key: int) -> Any:
            return lambda_stmt(lambda: select(customer.name).where(customer.id == key))

        for key in (*CUSTOMERS, *CUSTOMERS):
            with spread_shop.engine.connect() as connection:
                found = connection.execute(named(key)).scalars().all()

                assert found == [f"customer {key}"]
                assert enlisted(connection) == {cluster.shard_for(m.Customer, key)}

    @of_every_kind
    def test_a_second_execution_takes_its_own_values(
        self, spread_shop: World, plain: World, make: Callable[..., Any]
    ) -> None:
        plain.fill()
        keys = (*CUSTOMERS[:5], *reversed(CUSTOMERS[:5]))
        answers = []
        for world in (spread_shop, plain):
            with world.session() as session:
                answers.append([session.execute(make(world.models, key)).all() for key in keys])

        assert answers[0] == answers[1]


class Uncached(TypeDecorator[int]):
    """Has no place in a cache key."""

    impl = Integer
    cache_ok = False


class TestMemory:
    STATEMENTS = ("key", "scatter", "gather")

    def statement(self, name: str, m: Any, value: int) -> Any:
        amount = type_coerce(m.Order.amount, Uncached())
        statements = {
            "key": select(m.Order.id, amount).where(m.Order.customer_id == 5),
            "scatter": select(m.Order.id, amount).order_by(m.Order.id),
            "gather": select(amount, func.avg(m.Order.id)).group_by(m.Order.amount),
        }
        return statements[name].where(m.Order.amount > value)

    @pytest.mark.parametrize("name", STATEMENTS)
    def test_a_statement_without_a_cache_key_is_planned_each_time_and_forgotten(
        self, spread_shop: World, name: str
    ) -> None:
        m = spread_shop.models
        with executed(spread_shop.engine) as seen, spread_shop.engine.connect() as connection:
            answers = [
                len(connection.execute(self.statement(name, m, value)).all()) for value in (0, 1, 2)
            ]

        assert answers == {"key": [2, 1, 0], "scatter": [24, 12, 0], "gather": [2, 1, 0]}[name]
        assert set(seen.hits) == {CacheStats.NO_CACHE_KEY}
        assert seen.alive() == 0

    @of_every_kind
    def test_a_plan_goes_with_its_compiled_statement(
        self, spread_shop: World, make: Callable[..., Any]
    ) -> None:
        cache: dict[Any, Any] = {}
        engine = spread_shop.engine.execution_options(compiled_cache=cache)
        with executed(engine) as seen, engine.connect() as connection:
            for key in CUSTOMERS[:3]:
                connection.execute(make(spread_shop.models, key)).all()
            kept = seen.alive()
            cache.clear()

        assert kept == len(seen.compiled) == 3
        assert len(set(seen.identities)) == 1
        assert seen.alive() == 0


def _number_of_rows(connection: Connection, statement: Any, options: dict[str, Any]) -> int:
    """-1: more than the limit would be gathered."""
    try:
        return len(connection.execute(statement, execution_options=options).all())
    except GatherLimitExceeded:
        return -1
