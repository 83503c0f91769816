"""Statements whose key is one parameter: seen again, they take a shorter way to the same shard."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

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
    func,
    insert,
    select,
    update,
)

from sqlalchemy_shards import create_cluster, shard_table
from sqlalchemy_shards.errors import MissingShardKey, RoutingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy_shards import Cluster

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
