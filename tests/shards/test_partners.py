"""Rows that cannot have a partner in a join are not shipped, and the answer is the same.

How many rows came is told by the limit: so many are allowed, one less is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    CHAR,
    BigInteger,
    Column,
    Engine,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    and_,
    create_engine,
    exists,
    func,
    insert,
    not_,
    select,
    true,
)

from sqlalchemy_shards import (
    GatherLimit,
    create_cluster,
    global_table,
    reference_table,
    shard_table,
)
from sqlalchemy_shards.errors import GatherLimitExceeded
from tests.databases import own_urls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

METADATA = MetaData()
USERS = shard_table(
    Table(
        "users",
        METADATA,
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("score", Integer),
        Column("country", Text),
    ),
    key="id",
)
ORDERS = shard_table(
    Table(
        "orders",
        METADATA,
        Column("user_id", Integer, primary_key=True, autoincrement=False),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("amount", Integer),
        Column("product", Integer),
    ),
    key="user_id",
)
COUNTRIES = reference_table(
    Table(
        "countries",
        METADATA,
        Column("code", Text, primary_key=True),
        Column("rank", Integer),
    )
)
PRODUCTS = global_table(
    Table(
        "products",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("price", Numeric),
        Column("code", CHAR(3)),
    )
)
TREE = reference_table(
    Table(
        "tree",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("parent", Integer),
    )
)
U, R, C, P = USERS.c, ORDERS.c, COUNTRIES.c, PRODUCTS.c
SHARDS = 3


@pytest.fixture(scope="module")
def databases(servers: PostgresServers) -> Iterator[Mapping[str, str]]:
    """Three shards, and one database with the rows of all, in one server."""
    names = [*(f"s{number}" for number in range(SHARDS)), "one"]
    with own_urls(servers, "partners", names) as urls:
        yield urls


@pytest.fixture(scope="module")
def cluster(databases: Mapping[str, str]) -> Iterator[Cluster]:
    urls = {name: url for name, url in databases.items() if name != "one"}
    cluster = create_cluster(urls, name="partners")
    cluster.create_all(METADATA)
    with cluster.engine.begin() as connection:
        fill(connection)
    yield cluster
    cluster.dispose()


@pytest.fixture(scope="module")
def one(databases: Mapping[str, str]) -> Iterator[Engine]:
    engine = create_engine(databases["one"])
    METADATA.create_all(engine)
    with engine.begin() as connection:
        fill(connection)
    yield engine
    engine.dispose()


def fill(connection: Any) -> None:
    """60 users with two orders each; 10 products, 4 countries; NULLs and ties."""
    users = range(1, 61)
    connection.execute(
        insert(USERS),
        [
            {"id": i, "score": None if i % 10 == 0 else i % 7, "country": (None, "in", "de")[i % 3]}
            for i in users
        ],
    )
    connection.execute(
        insert(ORDERS),
        [
            {
                "user_id": i,
                "id": n,
                "amount": None if (i + n) % 9 == 0 else (i * n) % 11,
                "product": None if i % 5 == 0 else (i + n) % 14,
            }
            for i in users
            for n in (1, 2)
        ],
    )
    connection.execute(
        insert(COUNTRIES),
        [
            {"code": code, "rank": rank}
            for code, rank in (("in", 1), ("de", 2), ("fr", None), ("xx", 1))
        ],
    )
    connection.execute(
        insert(TREE), [{"id": i, "parent": None if i == 1 else i // 2} for i in range(1, 14)]
    )
    connection.execute(
        insert(PRODUCTS), [{"id": i, "price": i / 4, "code": "ab"[: i % 3]} for i in range(10)]
    )


def answers(bind: Any, statement: Any, **options: Any) -> list[Any]:
    with bind.connect() as connection:
        rows = connection.execute(statement, execution_options=options).all()
    return sorted(map(tuple, rows), key=repr)


def check_ships(cluster: Cluster, one: Engine, statement: Any, rows: int) -> None:
    """Compare the answer with that of one database, and see that so many rows were shipped."""
    expected = answers(one, statement)
    assert answers(cluster.engine, statement, gather_limit=GatherLimit(rows=rows)) == expected
    if rows > 1:
        with pytest.raises(GatherLimitExceeded):
            answers(cluster.engine, statement, gather_limit=GatherLimit(rows=rows - 1))


OTHER = ORDERS.alias("other")
NUMBER = func.row_number().over(order_by=(U.id, R.id)).label("number")
"""A window over all rows, which no shard can open by itself."""

BOUGHT = select(NUMBER, R.user_id, R.amount, R.product)


class TestBesideEachOther:
    def test_orders_of_users_that_do_not_matter_stay(self, cluster: Cluster, one: Engine) -> None:
        statement = BOUGHT.select_from(USERS.join(ORDERS, U.id == R.user_id)).where(U.score == 3)

        users = len([i for i in range(1, 61) if i % 10 and i % 7 == 3])
        check_ships(cluster, one, statement, users + 2 * users)

    def test_the_kept_side_of_an_outer_join_is_whole(self, cluster: Cluster, one: Engine) -> None:
        joined = USERS.outerjoin(ORDERS, and_(U.id == R.user_id, R.amount > 9))
        statement = BOUGHT.add_columns(U.id).select_from(joined)

        with one.connect() as connection:
            few = connection.scalar(select(func.count()).where(R.amount > 9))
        check_ships(cluster, one, statement, 60 + (few or 0))

    def test_absent_rows_are_looked_for_beside_few(self, cluster: Cluster, one: Engine) -> None:
        statement = (
            select(U.id, func.row_number().over(order_by=U.id))
            .where(U.score == 3)
            .where(not_(exists().where(R.user_id == U.id, R.amount > 3)))
        )

        with one.connect() as connection:
            users = connection.scalar(select(func.count()).where(U.score == 3)) or 0
            few = select(func.count()).where(R.user_id == U.id, U.score == 3, R.amount > 3)
            orders = connection.scalar(few) or 0
        check_ships(cluster, one, statement, users + orders)

    def test_a_copy_on_every_shard_tells_its_rows(self, cluster: Cluster, one: Engine) -> None:
        statement = (
            select(C.code, func.row_number().over(order_by=U.id))
            .join_from(COUNTRIES, USERS, U.country == C.code)
            .where(C.rank == 2)
        )

        check_ships(cluster, one, statement, 20 + 1)

    def test_a_copy_two_steps_away(self, cluster: Cluster, one: Engine) -> None:
        joined = COUNTRIES.join(USERS, U.country == C.code).join(ORDERS, R.user_id == U.id)
        statement = BOUGHT.select_from(joined).where(C.rank == 2)

        check_ships(cluster, one, statement, 40 + 20 + 1)

    def test_two_occurrences_of_a_table(self, cluster: Cluster, one: Engine) -> None:
        joined = USERS.join(ORDERS, U.id == R.user_id).join(OTHER, OTHER.c.product == R.product)
        statement = BOUGHT.select_from(joined).where(U.score == 3, OTHER.c.amount == 5)

        with one.connect() as connection:
            users = connection.scalar(select(func.count()).where(U.score == 3)) or 0
            beside = exists().where(U.id == R.user_id, U.score == 3)
            orders = select(func.count()).where(beside | (R.amount == 5))
            found = connection.scalar(orders) or 0
        check_ships(cluster, one, statement, users + found)

    def test_changes_of_the_session_are_seen(self, cluster: Cluster) -> None:
        statement = BOUGHT.select_from(USERS.join(ORDERS, U.id == R.user_id)).where(U.score == 77)
        with cluster.engine.connect() as connection:
            connection.execute(insert(USERS), [{"id": 100 + i, "score": 77} for i in range(5)])
            connection.execute(
                insert(ORDERS),
                [{"user_id": 100 + i, "id": 1, "amount": i, "product": i} for i in range(5)],
            )
            seen = connection.execute(statement).all()
            connection.rollback()
            left = connection.execute(statement).all()

        assert sorted(row.amount for row in seen) == [0, 1, 2, 3, 4]
        assert left == []

    def test_a_kept_plan_takes_other_values(self, cluster: Cluster, one: Engine) -> None:
        joined = USERS.join(ORDERS, U.id == R.user_id)
        for score in (3, 4, None, 9):
            statement = BOUGHT.select_from(joined).where(U.score == score)

            assert answers(cluster.engine, statement) == answers(one, statement)

    def test_a_subquery_beside_its_row(self, cluster: Cluster, one: Engine) -> None:
        last = (
            select(R.amount).where(R.user_id == U.id).order_by(R.id.desc()).limit(1).lateral("last")
        )
        statement = (
            select(U.id, last.c.amount, func.row_number().over(order_by=U.id))
            .join_from(USERS, last, true())
            .where(U.score == 3)
        )

        users = len([i for i in range(1, 61) if i % 10 and i % 7 == 3])
        check_ships(cluster, one, statement, 3 * users)


def down(start: int) -> Any:
    """Numbers of the nodes below one, and itself."""
    walk = select(TREE.c.id).where(TREE.c.id == start).cte("walk", recursive=True)
    child = TREE.alias("child")
    return walk.union_all(select(child.c.id).join(walk, child.c.parent == walk.c.id))


def up(start: int) -> Any:
    """Numbers of the nodes above one, and itself."""
    walk = select(TREE.c.id, TREE.c.parent).where(TREE.c.id == start).cte("walk", recursive=True)
    above = TREE.alias("above")
    step = select(above.c.id, above.c.parent).where(above.c.id == walk.c.parent)
    return walk.union(step)


class TestRecursion:
    """What is named inside of a recursive CTE shows more rows than those that it begins with."""

    @pytest.mark.parametrize("start", [1, 2, 13])
    @pytest.mark.parametrize("walked", [down, up])
    def test_every_step_of_a_walk_is_shipped(
        self, cluster: Cluster, one: Engine, walked: Any, start: int
    ) -> None:
        walk = walked(start)
        counted = select(func.count()).where(R.product.in_(select(walk.c.id)))
        joined = select(NUMBER, walk.c.id, R.user_id).join_from(
            USERS.join(ORDERS, U.id == R.user_id), walk, walk.c.id == R.product
        )

        for statement in (counted, joined, select(func.count()).select_from(walk)):
            assert answers(cluster.engine, statement) == answers(one, statement)
