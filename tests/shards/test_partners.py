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
    exists,
    func,
    insert,
    not_,
    select,
    true,
)

from sqlalchemy_shards import (
    global_table,
    reference_table,
    shard_table,
)
from sqlalchemy_shards.plan import Gather, KeyChoice
from sqlalchemy_shards.planning.asked_keys import KEYS_MAX
from tests.databases import own_urls
from tests.shards.shipped import answers, check_ships, count, filled_cluster, filled_engine

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
    with filled_cluster(databases, "partners", METADATA, fill) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def one(databases: Mapping[str, str]) -> Iterator[Engine]:
    with filled_engine(databases, METADATA, fill) as engine:
        yield engine


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

    def test_rows_whose_absence_the_shard_has_seen_come_alone(
        self, cluster: Cluster, one: Engine
    ) -> None:
        statement = (
            select(U.id, func.row_number().over(order_by=U.id))
            .where(U.score == 3)
            .where(not_(exists().where(R.user_id == U.id, R.amount > 3)))
        )

        with one.connect() as connection:
            few = select(R.user_id).where(R.amount > 3)
            users = select(func.count()).where(U.score == 3, U.id.not_in(few))
            rows = connection.scalar(users) or 0
        check_ships(cluster, one, statement, rows)

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


class TestSubqueriesBeside:
    """Conditions that the shard of a row answers choose what it ships."""

    BIG = select(R.user_id).group_by(R.user_id).having(func.sum(R.amount) > 12)
    USERS_IN_ORDER = select(U.id, func.row_number().over(order_by=U.id))

    @pytest.mark.parametrize("is_in", [True, False])
    def test_groups_of_one_key_each(self, cluster: Cluster, one: Engine, is_in: bool) -> None:
        among = U.id.in_(self.BIG) if is_in else U.id.not_in(self.BIG)

        big = len(answers(one, self.BIG))
        check_ships(cluster, one, self.USERS_IN_ORDER.where(among), big + count(one, among, USERS))

    def test_what_is_joined_with_the_rows_that_are_left(
        self, cluster: Cluster, one: Engine
    ) -> None:
        joined = USERS.join(ORDERS, U.id == R.user_id)
        statement = BOUGHT.select_from(joined).where(U.id.in_(self.BIG))

        big = len(answers(one, self.BIG))
        check_ships(cluster, one, statement, big + big + 2 * big)

    def test_an_aggregate_of_the_rows_beside(self, cluster: Cluster, one: Engine) -> None:
        mean = select(func.avg(R.amount)).where(R.user_id == U.id).scalar_subquery()
        users = count(one, U.score > mean, USERS)

        check_ships(cluster, one, self.USERS_IN_ORDER.where(U.score > mean), users + 2 * users)

    def test_an_alias_of_a_table(self, cluster: Cluster, one: Engine) -> None:
        user = USERS.alias().c
        statement = select(user.id, func.row_number().over(order_by=user.id))

        big = len(answers(one, self.BIG))
        check_ships(cluster, one, statement.where(user.id.in_(self.BIG)), big + big)

    def test_an_alias_within_is_no_column_of_the_table_outside(
        self, cluster: Cluster, one: Engine
    ) -> None:
        other = ORDERS.alias().c
        beside = select(func.max(R.amount)).where(R.user_id == other.user_id, R.id < other.id)
        statement = select(other.id, other.user_id, func.count().over(order_by=other.user_id))

        statement = statement.where(other.amount > beside.scalar_subquery())

        assert answers(cluster.engine, statement) == answers(one, statement)

    def test_a_condition_on_two_tables_is_left_to_the_workspace(
        self, cluster: Cluster, one: Engine
    ) -> None:
        mean = select(func.avg(R.amount)).where(R.user_id == U.id, R.amount > P.price)
        statement = select(U.id, P.id).join_from(USERS, PRODUCTS, U.score == P.id)
        statement = statement.where(P.price < mean.scalar_subquery())

        assert answers(cluster.engine, statement) == answers(one, statement)

    def test_a_choice_among_rows_is_made_once(self, cluster: Cluster, one: Engine) -> None:
        """Twice it could be another one, where the order has ties."""
        place = func.row_number().over(partition_by=R.user_id, order_by=R.user_id).label("place")
        first = select(R.user_id, R.id, place).subquery()
        own = ORDERS.alias("own").c
        chosen = select(first.c.id).where(first.c.place == 1, first.c.user_id == own.user_id)
        statement = select(own.user_id, func.count().over(order_by=own.user_id))
        statement = statement.where(own.id == chosen.scalar_subquery())

        check_ships(cluster, one, statement, 120)

    def test_rows_whose_condition_fails_do_not_meet_it_for_want_of_others(
        self, cluster: Cluster, one: Engine
    ) -> None:
        """Orders come in two places, so those that fail the condition come, too."""
        own, other = ORDERS.alias(), ORDERS.alias()
        ranked = exists().where(C.code == U.country, C.rank > 0)
        beside = exists().where(U.id == own.c.user_id, ranked, other.c.user_id == U.id)
        statement = select(own.c.user_id, func.count().over()).where(not_(beside))

        assert answers(cluster.engine, statement) == answers(one, statement)

    def test_changes_of_the_session_count(self, cluster: Cluster) -> None:
        statement = self.USERS_IN_ORDER.where(U.id.in_(self.BIG))

        with cluster.engine.connect() as connection:
            before = connection.execute(statement).all()
            connection.execute(insert(ORDERS).values(user_id=1, id=9, amount=100))
            found = {user for user, _ in connection.execute(statement)}

        assert found - {user for user, _ in before} == {1}


class TestBlocks:
    """What the shards make of a block has partners as rows of a table have."""

    TOP = select(U.id, U.score).order_by(U.score.desc().nulls_last(), U.id).limit(5).subquery()

    @pytest.mark.parametrize("is_outer", [True, False])
    def test_rows_beside_first_rows(self, cluster: Cluster, one: Engine, is_outer: bool) -> None:
        joined = self.TOP.join(ORDERS, R.user_id == self.TOP.c.id, isouter=is_outer)
        statement = select(self.TOP, R.id, R.amount).select_from(joined)

        first = SHARDS * 5
        check_ships(cluster, one, statement, first + 2 * first)

    def test_rows_that_need_no_partner_all_come(self, cluster: Cluster, one: Engine) -> None:
        joined = ORDERS.outerjoin(self.TOP, R.user_id == self.TOP.c.id)
        statement = select(self.TOP, R.id, R.amount).select_from(joined)

        check_ships(cluster, one, statement, SHARDS * 5 + 120)

    def test_latest_rows_of_each_key(self, cluster: Cluster, one: Engine) -> None:
        last = select(R.user_id, func.max(R.id).label("id")).group_by(R.user_id)
        last = last.having(func.sum(R.amount) > 12).subquery()
        tie = and_(R.user_id == last.c.user_id, R.id == last.c.id)
        statement = select(R.user_id, R.amount, func.count().over()).join_from(ORDERS, last, tie)

        big = len(answers(one, select(last)))
        check_ships(cluster, one, statement, big + big)

    def test_groups_give_keys_to_rows_elsewhere(self, cluster: Cluster, one: Engine) -> None:
        sold = select(R.product).group_by(R.product).having(func.sum(R.amount) > 60)
        statement = select(U.id, U.score).where(U.score.in_(sold))
        before, cluster.rows_worth_waiting = cluster.rows_worth_waiting, -KEYS_MAX
        try:
            found, told = answers(cluster.engine, statement), cluster.explain(statement).merge
        finally:
            cluster.rows_worth_waiting = before

        assert found == answers(one, statement)
        assert isinstance(told, Gather)
        assert {each.choice for each in told.key_lists} == {KeyChoice.ASKED_FIRST}
