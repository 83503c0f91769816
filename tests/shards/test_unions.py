"""UNION ALL of rows of several shards: each shard gives its own, and no more than LIMIT takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import desc, func, insert, literal, null, select, union, union_all

from sqlalchemy_shards import GatherLimit
from sqlalchemy_shards.plan import Concatenate, Gather, OrderedMerge
from tests.databases import own_urls
from tests.shards.shipped import answers, filled_cluster, filled_engine
from tests.shards.test_partners import METADATA, C, P, R, U, fill

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

USERS = select(U.id, U.score).where(U.score > 1)
ORDERS = select(R.id, R.amount).where(R.amount > 0)
BOTH = union_all(USERS, ORDERS)
FEW = GatherLimit(rows=1)

IN_ORDER = {
    "by a name": union_all(select(R.user_id, R.id), select(R.id, R.product)).order_by(
        "id", "user_id"
    ),
    "descending": union_all(ORDERS, ORDERS).order_by(R.amount.desc(), R.id),
    "nulls first": union_all(select(R.product, R.id), ORDERS).order_by(
        desc("product").nulls_first(), "id"
    ),
    "of three": union_all(ORDERS, ORDERS, ORDERS).order_by("amount", "id"),
}
GATHERED = {
    "other types": union_all(select(U.id), select(R.id)).order_by("id"),
    "text": union_all(select(U.country), select(U.country)).order_by("country"),
    "an expression": union_all(select((R.id + 1).label("n")), select(null())).order_by("n"),
    "a copy on every shard": union_all(select(U.score), select(C.rank)),
    "one server's rows": union_all(select(U.score), select(P.id)),
    "a constant": union_all(select(U.score), select(literal(1))),
    "totals": union_all(select(func.count(U.id)), select(R.id)),
    "first rows of a member": union_all(USERS.order_by(U.id).limit(2), ORDERS),
    "within another": union_all(ORDERS, union_all(ORDERS, USERS)),
    "one name twice": union_all(
        select(U.id, R.id).join_from(U.id.table, R.id.table, U.id == R.user_id),
        select(R.user_id, R.id),
    ).order_by(R.id),
    "distinct": union(USERS, ORDERS),
    "distinct members": union_all(union(USERS, ORDERS), ORDERS),
}


@pytest.fixture(scope="module")
def databases(servers: PostgresServers) -> Iterator[Mapping[str, str]]:
    """Three shards, and one database with the rows of all, in one server."""
    with own_urls(servers, "unions", ["s0", "s1", "s2", "one"]) as urls:
        yield urls


@pytest.fixture(scope="module")
def cluster(databases: Mapping[str, str]) -> Iterator[Cluster]:
    with filled_cluster(databases, "unions", METADATA, fill) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def one(databases: Mapping[str, str]) -> Iterator[Engine]:
    with filled_engine(databases, METADATA, fill) as engine:
        yield engine


def in_order(bind: Any, statement: Any, **options: Any) -> list[Any]:
    with bind.connect() as connection:
        return list(connection.execute(statement, execution_options=options).all())


def test_all_rows_of_all_members(cluster: Cluster, one: Engine) -> None:
    found = answers(cluster.engine, BOTH, gather_limit=FEW)

    assert found == answers(one, BOTH)
    assert isinstance(cluster.explain(BOTH).merge, Concatenate)


@pytest.mark.parametrize("name", IN_ORDER)
@pytest.mark.parametrize(("limit", "offset"), [(None, None), (7, None), (7, 5), (None, 9), (0, 3)])
def test_rows_in_order(
    cluster: Cluster, one: Engine, name: str, limit: int | None, offset: int | None
) -> None:
    statement = IN_ORDER[name].limit(limit).offset(offset)

    assert in_order(cluster.engine, statement, gather_limit=FEW) == in_order(one, statement)
    assert isinstance(cluster.explain(statement).merge, OrderedMerge)


def test_each_shard_gives_as_many_rows_as_are_taken(cluster: Cluster, one: Engine) -> None:
    measured = cluster.explain(BOTH.limit(4).offset(2), analyze=True).measured

    assert measured is not None
    assert {step.rows for step in measured.steps if step.shard in cluster.shards and step.rows} == {
        6
    }
    found = answers(cluster.engine, BOTH.limit(4).offset(2))
    assert len(found) == 4
    assert set(found) <= set(answers(one, BOTH))


@pytest.mark.parametrize("name", GATHERED)
def test_what_does_not_add_up_is_gathered(cluster: Cluster, one: Engine, name: str) -> None:
    statement = GATHERED[name]

    assert answers(cluster.engine, statement) == answers(one, statement)
    assert isinstance(cluster.explain(statement).merge, Gather)


def test_members_on_single_shards(cluster: Cluster, one: Engine) -> None:
    statement = union_all(USERS.where(U.id == 3), ORDERS.where(R.user_id == 4))

    assert answers(cluster.engine, statement) == answers(one, statement)


def test_changes_of_the_session_are_in_it(cluster: Cluster) -> None:
    with cluster.engine.connect() as connection:
        before = len(connection.execute(BOTH).all())
        connection.execute(insert(R.id.table).values(user_id=1, id=9, amount=100))

        assert len(connection.execute(BOTH).all()) == before + 1
        assert (9, 100) in connection.execute(IN_ORDER["descending"].limit(2)).all()
