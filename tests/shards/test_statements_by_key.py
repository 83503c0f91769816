"""Statements whose key is one parameter: seen again, they take a shorter way to the same shard."""

from __future__ import annotations

import datetime
import uuid
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    MetaData,
    Numeric,
    String,
    Table,
    Uuid,
    bindparam,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DataError, DBAPIError, ResourceClosedError

from sqlalchemy_shards import create_cluster, shard_table
from sqlalchemy_shards.errors import MissingShardKey, RoutingError
from tests.databases import ask
from tests.shards.shop import CUSTOMERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy_shards import Cluster
    from tests.shards.shop import World

KEYS: dict[str, tuple[Any, Sequence[Any]]] = {
    "integer": (BigInteger(), [-1, 0, 1, 7, 2**40]),
    "text": (String(), ["", "a", "ä", "long" * 20]),
    "limited_text": (String(5), ["", "abc", "abcde"]),
    "uuid": (Uuid(), [uuid.UUID(int=number) for number in (0, 1, 2**100)]),
    "date": (Date(), [datetime.date(2024, 2, 29), datetime.date(1, 1, 1)]),
    "boolean": (Boolean(), [True, False]),
    "numeric": (Numeric(10, 2), [1, -5]),
}


@pytest.fixture(params=KEYS)
def table(request: pytest.FixtureRequest) -> Table:
    type_, _ = KEYS[request.param]
    made = Table(
        "things",
        MetaData(),
        Column("key", type_, primary_key=True, autoincrement=False),
        Column("n", BigInteger),
    )
    shard_table(made, key="key")
    return made


@pytest.fixture
def cluster(clean_shards: dict[str, str], table: Table) -> Iterator[Cluster]:
    cluster = create_cluster(clean_shards, name="things")
    cluster.create_all(table.metadata)
    yield cluster
    cluster.dispose()


@pytest.fixture
def keys(request: pytest.FixtureRequest, table: Table) -> Sequence[Any]:
    return next(keys for type_, keys in KEYS.values() if type_ is table.c.key.type)


def test_a_statement_seen_again_goes_where_explain_says(
    cluster: Cluster, table: Table, keys: Sequence[Any]
) -> None:
    statement = (
        select(func.current_database())
        .select_from(table)
        .where(table.c.key == bindparam("k", type_=table.c.key.type))
    )
    with cluster.engine.begin() as connection:
        connection.execute(insert(table), [{"key": key, "n": 0} for key in keys])
        for key in (*keys, *keys):
            went = connection.execute(statement, {"k": key}).scalar_one()

            explained = cluster.explain(statement, {"k": key})
            assert (went,) == explained.shards == (cluster.shard_for(table, key),)


def test_changes_of_single_rows_and_of_many_find_their_shards(
    cluster: Cluster, table: Table, keys: Sequence[Any]
) -> None:
    by_key = table.c.key == bindparam("k", type_=table.c.key.type)
    change = update(table).where(by_key).values(n=table.c.n + 1)
    removal = delete(table).where(by_key)

    with cluster.engine.begin() as connection:
        connection.execute(insert(table), [{"key": key, "n": 0} for key in keys])
        one_by_one = [connection.execute(change, {"k": key}).rowcount for key in keys]
        at_once = connection.execute(change, [{"k": key} for key in keys]).rowcount
        numbers = connection.scalars(select(table.c.n)).all()
        removed = [connection.execute(removal, {"k": key}).rowcount for key in keys]

    assert one_by_one == removed == [1] * len(keys)
    assert at_once == len(keys)
    assert numbers == [2] * len(keys)


@pytest.mark.parametrize("table", ["integer"], indirect=True)
def test_a_value_of_another_type_is_not_taken_the_short_way(cluster: Cluster, table: Table) -> None:
    statement = select(table.c.key).where(table.c.key == bindparam("k", type_=table.c.key.type))
    with cluster.engine.begin() as connection:
        connection.execute(insert(table), [{"key": 1, "n": 0}])
        connection.execute(statement, {"k": 1})

        # PostgreSQL casts it to 1, which its Python value does not tell.
        assert connection.execute(statement, {"k": Decimal("1.2")}).all() == [(1,)]
        assert connection.execute(statement, {"k": None}).all() == []
        with pytest.raises(MissingShardKey):
            connection.execute(insert(table), [{"key": 2, "n": 0}, {"key": None, "n": 0}])
        with pytest.raises(RoutingError):
            connection.execute(insert(table), [{"key": 2, "n": 0}, {"key": 2.5, "n": 0}])


def test_rows_of_one_shard_come_from_its_own_cursor(four_shards: World) -> None:
    """As many steps less as SQLAlchemy takes with a cursor."""
    m = four_shards.models
    statement = select(m.Customer.__table__.c.id).where(m.Customer.id == bindparam("k"))
    with four_shards.engine.connect() as connection:
        connection.execute(statement, {"k": 3}).all()
        found = connection.execute(statement, {"k": 3})

        assert type(found.cursor) is psycopg.Cursor
        assert found.all() == []


@pytest.mark.parametrize("times", [1, 2])
def test_an_error_in_a_row_names_its_shard(spread_shop: World, times: int) -> None:
    """Python has no such time; the second statement takes the short way."""
    m = spread_shop.models
    home = spread_shop.cluster.shard_for(m.Customer, 3)  # type: ignore[union-attr]
    ask(spread_shop.urls[home], "UPDATE customers SET created = 'infinity' WHERE id = 3")
    statement = select(m.Customer.created).where(m.Customer.id == bindparam("k"))
    with spread_shop.engine.connect() as connection:
        for key in range(1, times):
            connection.execute(statement, {"k": key}).all()
        with pytest.raises(DataError, match=f"shard: {home}"):
            connection.execute(statement, {"k": 3}).all()

        assert connection.execute(statement, {"k": 4}).one()


class TestInATransactionThatTheShardTakesPartIn:
    """SQLAlchemy has that shard's cursor from the beginning, where nothing speaks against it."""

    @pytest.fixture
    def names(self, spread_shop: World) -> Iterator[Callable[..., Sequence[Any]]]:
        m = spread_shop.models
        statement = select(m.Customer.__table__.c.name).where(m.Customer.id == bindparam("k"))
        with spread_shop.engine.connect() as connection:

            def read(given: Any, **options: Any) -> Sequence[Any]:
                found = connection.execute(statement, given, execution_options=options)
                return found.scalars().all()

            for _ in range(3):
                assert read({"k": 3}) == ["customer 3"]
            read.connection = connection  # type: ignore[attr-defined]
            yield read

    def test_another_key_goes_to_its_own_shard(self, names: Any) -> None:
        assert [names({"k": key}) for key in (*CUSTOMERS, *CUSTOMERS)] == [
            [f"customer {key}"] for key in (*CUSTOMERS, *CUSTOMERS)
        ]

    def test_an_option_is_followed(self, names: Any, spread_shop: World) -> None:
        cluster = spread_shop.cluster
        assert cluster is not None
        home = cluster.shard_for(spread_shop.models.Customer, 3)
        other = next(shard for shard in cluster.shards if shard != home)

        assert names({"k": 3}, shard=other) == []
        assert names({"k": 3}, shard=home) == ["customer 3"]

    def test_a_number_that_no_bigint_holds_is_answered_as_before(self, names: Any) -> None:
        with pytest.raises(DataError):
            names({"k": 2**70})

    def test_a_new_shard_map_is_looked_at(self, names: Any, spread_shop: World) -> None:
        m, cluster = spread_shop.models, spread_shop.cluster
        assert cluster is not None
        home = cluster.shard_for(m.Customer, 3)
        other = next(shard for shard in cluster.shards if shard != home)
        names({"k": 3}, shard=other)
        bucket = cluster.bucket_for(m.Customer, 3)
        moved = cluster.shard_map.moved("default", bucket, other)
        cluster.territory = replace(cluster.territory, shard_map=moved)

        assert [names({"k": 3}) for _ in range(3)] == [[], [], []]

    def test_a_failed_transaction_runs_nothing(self, names: Any) -> None:
        with pytest.raises(DataError):
            names.connection.exec_driver_sql("SELECT 1/0", execution_options={"shard": "s0"})
        with pytest.raises(DBAPIError, match="transaction is aborted"):
            names({"k": 3})

    def test_a_listener_that_ends_the_transaction_is_not_overtaken(
        self, names: Any, spread_shop: World
    ) -> None:
        """The shard's connection is back in its pool then, and may be another's."""
        listened = []

        def roll_back(connection: Any, cursor: Any, *_: Any) -> None:
            listened.append(type(cursor))
            connection.connection.rollback()

        event.listen(names.connection, "before_cursor_execute", roll_back, once=True)

        assert names({"k": 3}) == ["customer 3"]
        assert listened == [psycopg.Cursor]
        assert spread_shop.cluster is not None
        pools = [shard.engine.pool for shard in spread_shop.cluster.shards.values()]
        assert sum(pool.checkedout() for pool in pools) == 1  # type: ignore[attr-defined]

    def test_many_parameter_sets_give_no_rows(self, names: Any) -> None:
        with pytest.raises(ResourceClosedError):
            names([{"k": 3}, {"k": 4}])
