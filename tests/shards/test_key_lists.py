"""Keys that came from one shard choose the rows that others ship; the answer stays the same.

How many rows came is told by the limit: so many are allowed, one less is not.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import (
    ARRAY,
    CHAR,
    BigInteger,
    Column,
    DateTime,
    Engine,
    Enum,
    Float,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import INT4RANGE, Range
from sqlalchemy.exc import OperationalError

from sqlalchemy_shards import GatherLimit, global_table, shard_table
from sqlalchemy_shards.cluster.explain.observing import SHIP
from sqlalchemy_shards.errors import GatherLimitExceeded
from sqlalchemy_shards.plan import Gather
from tests.databases import own_urls
from tests.shards.shipped import (
    analyze,
    answers,
    check_ships,
    count,
    create_collations,
    filled_cluster,
    filled_engine,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

METADATA = MetaData()
SHARDS = ("s0", "s1", "s2")
SALES_COUNT = 6_000
BEGIN = datetime(2024, 3, 31, 1, 30, tzinfo=timezone.utc)


def alike() -> list[Column[Any]]:
    """Columns by which goods and sales are joined, of many types."""
    return [
        Column("name", Text),
        Column("label", Text(collation="any_case")),
        Column("code", CHAR(5)),
        Column("price", Numeric),
        Column("weight", Float),
        Column("token", Uuid),
        Column("made", DateTime(timezone=True)),
        Column("mood", Enum("bad", "good", name="mood")),
        Column("span", INT4RANGE),
        Column("numbers", ARRAY(Integer)),
    ]


GOODS = global_table(
    Table(
        "goods",
        METADATA,
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("size", SmallInteger),
        *alike(),
    )
)
SALES = shard_table(
    Table(
        "sales",
        METADATA,
        Column("user_id", Integer, primary_key=True, autoincrement=False),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("good", Integer),
        Column("amount", Numeric),
        *alike(),
    ),
    key="user_id",
)
WISHES = shard_table(
    Table(
        "wishes",
        METADATA,
        Column("user_id", Integer, primary_key=True, autoincrement=False),
        Column("good", Integer, primary_key=True, autoincrement=False),
    ),
    key="user_id",
)
TICKETS = global_table(
    Table(
        "tickets",
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("made", DateTime(timezone=True)),
    )
)
G, S, W, T = GOODS.c, SALES.c, WISHES.c, TICKETS.c


@pytest.fixture(scope="module")
def databases(servers: PostgresServers) -> Iterator[Mapping[str, str]]:
    """Three shards on servers of their own, and one database with the rows of all."""
    with own_urls(servers, "key_lists", [*SHARDS, "one"], spread=True) as urls:
        yield urls


@pytest.fixture(scope="module")
def cluster(databases: Mapping[str, str]) -> Iterator[Cluster]:
    create_collations(databases)
    with filled_cluster(databases, "key_lists", METADATA, fill) as cluster:
        analyze(databases)
        yield cluster


@pytest.fixture(scope="module")
def one(databases: Mapping[str, str], cluster: Cluster) -> Iterator[Engine]:
    with filled_engine(databases, METADATA, fill) as engine:
        yield engine


def values_of(number: int | None) -> dict[str, Any]:
    """Values that are the same for the same number; some numbers have none."""
    if number is None or number % 9 == 8:
        return dict.fromkeys(column.name for column in alike())
    return {
        "name": ("NULL", "", 'a"b\\', "a,b", "{}", "é ", "tab\t", "line\n")[number % 8]
        + str(number),
        "label": ("é", "É", "e", "E")[number % 4],
        "code": "abcde"[: number % 6],
        "price": (Decimal(number) / 4, Decimal("NaN"))[number % 7 == 6],
        "weight": (number / 3, float("inf"), -0.0)[min(number % 5, 2)],
        "token": UUID(int=number << 100),
        "made": BEGIN + timedelta(minutes=7 * number),
        "mood": ("bad", "good")[number % 2],
        "span": Range(number % 3, number),
        "numbers": [number, None],
    }


def fill(connection: Any) -> None:
    """50 goods; 6,000 sales of 120 goods by 200 users, some of none; 10 wishes of each user."""
    connection.execute(insert(GOODS), [{"id": i, "size": i % 4, **values_of(i)} for i in range(50)])
    sold = [None if i % 11 == 0 else i % 120 for i in range(SALES_COUNT)]
    connection.execute(
        insert(SALES),
        [
            {
                "user_id": i % 200,
                "id": i // 200,
                "good": good,
                "amount": None if i % 13 == 0 else Decimal(i % 17) / 4,
                **values_of(good),
            }
            for i, good in enumerate(sold)
        ],
    )
    connection.execute(
        insert(WISHES),
        [{"user_id": i, "good": (i * 7 + n * 3) % 120} for i in range(200) for n in range(10)],
    )

    at = {"shard": "s0"} if "shards" in connection.engine.url.drivername else {}
    connection.execute(
        text(
            "INSERT INTO tickets SELECT n, now() - n * interval '1 minute' "
            "FROM generate_series(1, 10001) AS n"
        ),
        execution_options=at,
    )


NUMBER = func.row_number().over(order_by=(S.user_id, S.id)).label("number")
OTHER = SALES.alias("other")
SOLD = select(NUMBER, S.user_id, S.id, G.id.label("good")).join_from(GOODS, SALES, G.id == S.good)


def expected(cluster: Cluster, statement: Any) -> Any:
    """What explain() tells of key lists."""
    merge = cluster.explain(statement).merge
    assert isinstance(merge, Gather)
    return merge.key_lists


class Between:
    """Calls a function once, when a shard has shipped its rows."""

    def __init__(self, shard: str, function: Callable[[], Any]) -> None:
        self._shard = shard
        self._function = function
        self.steps: list[str] = []

    def on_dispatch(self, decided: Any) -> None:
        pass

    def on_step(self, name: str, shard: str | None, seconds: float, answer: Any) -> None:
        self.steps.append(name)
        if (name, shard) == (SHIP, self._shard):
            self._function()


class TestAnswers:
    def test_only_sales_of_the_goods_that_came_are_shipped(
        self, cluster: Cluster, one: Engine
    ) -> None:
        statement = SOLD.where(G.size == 3)

        sales = count(one, S.good.in_(select(G.id).where(G.size == 3)), SALES)
        check_ships(cluster, one, statement, sales + count(one, G.size == 3, GOODS))

    @pytest.mark.parametrize(
        ("of_goods", "of_sales"),
        [
            ("size", "amount"),
            ("size", "good"),
            ("price", "weight"),
            ("id", "price"),
            ("code", "name"),
            ("weight", "good"),
        ],
    )
    def test_keys_of_another_type(
        self, cluster: Cluster, one: Engine, of_goods: str, of_sales: str
    ) -> None:
        number = func.row_number().over(order_by=(S.user_id, S.id, G.id))
        statement = (
            select(number, S.user_id, S.id, G.id)
            .join_from(GOODS, SALES, G[of_goods] == S[of_sales])
            .where(G.id < 12)
        )

        goods = count(one, G.id < 12, GOODS)
        of_these = exists().where(G[of_goods] == S[of_sales], G.id < 12)
        check_ships(cluster, one, statement, goods + count(one, of_these, SALES))

    @pytest.mark.parametrize(
        "column",
        ["name", "label", "code", "price", "weight", "token", "made", "mood", "span", "numbers"],
    )
    def test_keys_of_a_type(self, cluster: Cluster, one: Engine, column: str) -> None:
        statement = (
            select(func.row_number().over(order_by=(S.user_id, S.id, G.id)), S.user_id, S.id, G.id)
            .join_from(GOODS, SALES, G[column] == S[column])
            .where(G.size == 1, G.id < 12)
        )

        goods = count(one, (G.size == 1) & (G.id < 12), GOODS)
        of_these = S[column].in_(select(G[column]).where(G.size == 1, G.id < 12))
        sales = count(one, of_these, SALES) if column != "numbers" else SALES_COUNT
        check_ships(cluster, one, statement, sales + goods)

    @pytest.mark.parametrize(
        "statement",
        [
            pytest.param(
                select(NUMBER, S.id, G.id)
                .select_from(GOODS.outerjoin(SALES, and_(G.id == S.good, S.amount > 1)))
                .where(G.size == 2),
                id="the filled side of a left join",
            ),
            pytest.param(
                select(NUMBER, S.id, G.id)
                .select_from(SALES.outerjoin(GOODS, and_(G.id == S.good, G.size == 2)))
                .where(S.amount == 2),
                id="the kept side of a left join",
            ),
            pytest.param(
                select(NUMBER, S.id).where(S.good.in_(select(G.id).where(G.size == 2))), id="IN"
            ),
            pytest.param(
                select(NUMBER, S.id).where(
                    S.amount == 2, S.good.not_in(select(G.id).where(G.size == 2))
                ),
                id="NOT IN",
            ),
            pytest.param(
                select(NUMBER, S.id).where(
                    exists().where(G.id == S.good, G.size == 2, G.name == S.name)
                ),
                id="EXISTS",
            ),
            pytest.param(
                select(G.id, func.row_number().over(order_by=G.id)).where(
                    not_(exists().where(G.id == S.good, S.amount > 3)), G.size == 2
                ),
                id="what is absent",
            ),
            pytest.param(
                select(NUMBER, S.id).where(
                    or_(S.good.in_(select(G.id).where(G.size == 2)), S.amount == 4)
                ),
                id="an alternative",
            ),
            pytest.param(
                SOLD.join(OTHER, OTHER.c.id == S.id).where(
                    G.size == 2, G.id < 9, OTHER.c.user_id == 3
                ),
                id="two occurrences",
            ),
            pytest.param(SOLD.where(G.size == 77), id="no keys at all"),
            pytest.param(
                SOLD.where(G.size == 2, G.id + 1 > func.date_part("year", func.now()) - 3000),
                id="the time",
            ),
        ],
    )
    def test_it_is_that_of_one_database(
        self, cluster: Cluster, one: Engine, statement: Any
    ) -> None:
        assert answers(cluster.engine, statement) == answers(one, statement)

    def test_rows_of_one_shard_key_are_keys(self, cluster: Cluster, one: Engine) -> None:
        statement = select(NUMBER, S.user_id, S.id).where(W.user_id == 5, W.good == S.good)

        sales = count(one, S.good.in_(select(W.good).where(W.user_id == 5)), SALES)
        check_ships(cluster, one, statement, sales + 10)

    def test_a_kept_plan_takes_routes_as_they_come(self, cluster: Cluster, one: Engine) -> None:
        """Keys of one shard, then keys of several, which are not asked for; and back."""
        users = bindparam("users", expanding=True)
        number = func.row_number().over(order_by=(S.user_id, S.id, W.user_id))
        statement = select(number, S.user_id, S.id, W.user_id).where(
            W.user_id.in_(users), W.good == S.good
        )
        for given in ([5], [5, 6, 7, 8], [9], [], [5, 5]):
            values = {"users": given}

            assert answers(cluster.engine, statement, values) == answers(one, statement, values)

    def test_changes_of_the_session_are_seen(self, cluster: Cluster) -> None:
        statement = SOLD.where(G.size == 999)
        with cluster.engine.connect() as connection:
            connection.execute(insert(GOODS), [{"id": 1000, "size": 999}])
            connection.execute(
                insert(SALES), [{"user_id": i, "id": 1000, "good": 1000} for i in range(9)]
            )
            seen = connection.execute(statement).all()
            connection.rollback()
            left = connection.execute(statement).all()

        assert (len(seen), left) == (9, [])

    def test_statements_of_their_own_are_answered_alike(
        self, cluster: Cluster, one: Engine
    ) -> None:
        statement = SOLD.where(G.size == 2)
        engine = cluster.engine.execution_options(isolation_level="AUTOCOMMIT")

        assert answers(engine, statement) == answers(one, statement)


class TestChoice:
    def test_it_is_told(self, cluster: Cluster) -> None:
        (keys,) = expected(cluster, SOLD.where(G.size == 2))

        assert (keys.origin, keys.shards, keys.keys_origin, keys.keys_shards) == (
            "sales",
            ("s1", "s2"),
            "goods",
            ("s0",),
        )
        assert 1_000 <= keys.expected_rows <= SALES_COUNT
        as_data = cluster.explain(SOLD.where(G.size == 2)).as_dict()["key_lists"]
        assert [each["keys_shards"] for each in as_data] == [("s0",)]
        told = str(cluster.explain(SOLD.where(G.size == 2)))
        assert "keys of goods: those from s0 choose the rows of sales that s1, s2 ship" in told

    def test_few_rows_are_not_worth_a_second_round(self, cluster: Cluster, one: Engine) -> None:
        statement = select(W.user_id, G.id, func.row_number().over(order_by=W.user_id)).where(
            G.id == W.good, G.size == 2
        )

        assert expected(cluster, statement) == ()

    def test_a_shard_is_asked_once_for_what_it_expects(self, cluster: Cluster) -> None:
        statement = SOLD.where(G.size == 2, G.id > 3)
        observer = Between("none", lambda: None)
        with cluster.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.observer = observer
            connection.execute(statement).all()
            # One shard was asked about sales, another one about goods.
            before = observer.steps.count("estimate")
            connection.execute(statement).all()
            driver.observer = None

        assert observer.steps.count("estimate") == before == 2
        assert observer.steps.count("ship") == 6

    def test_too_many_keys_are_not_given(self, cluster: Cluster, one: Engine) -> None:
        statement = select(NUMBER, S.id, T.id).join_from(TICKETS, SALES, T.id == S.id)

        assert len(expected(cluster, statement)) == 1
        with one.connect() as connection:
            beside = connection.scalar(select(func.count()).select_from(SALES)) or 0
        assert beside == SALES_COUNT
        assert answers(cluster.engine, statement) == answers(one, statement)
        few = GatherLimit(rows=10_001 + SALES_COUNT // 2)
        with pytest.raises(GatherLimitExceeded):
            answers(cluster.engine, statement, gather_limit=few)


class TestBetweenTheStages:
    def test_what_changes_meanwhile(self, cluster: Cluster) -> None:
        """A shard's rows are those of one moment: the keys that came decide, not those of now."""

        def change() -> None:
            with cluster.connect("s0") as driver:
                driver.execute("UPDATE goods SET size = 5 WHERE id = 2")
                driver.commit()
            with cluster.connect("s1") as driver:
                driver.execute("UPDATE sales SET code = 'new' WHERE good = 2")
                driver.commit()

        statement = SOLD.add_columns(S.code).where(G.size == 2, G.id < 6)
        before = len(answers(cluster.engine, statement))
        with cluster.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.observer = Between("s0", change)
            rows = connection.execute(statement).all()
            driver.observer = None
            connection.execute(update(GOODS).where(G.id == 2).values(size=2))
            every = {"shard": "*"}
            connection.execute(
                update(SALES).where(S.good == 2).values(code="ab"), execution_options=every
            )
            connection.commit()

        assert {row.good for row in rows} == {2}
        assert len(rows) == before
        assert {row.code for row in rows} == {"ab   ", "new  "}

    def test_a_shard_that_dies(
        self, cluster: Cluster, one: Engine, servers: PostgresServers
    ) -> None:
        statement = SOLD.where(G.size == 2, G.id < 40)
        with cluster.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.observer = Between("s0", lambda: servers.kill(1))
            with pytest.raises(OperationalError):
                connection.execute(statement)
            driver.observer = None
            connection.rollback()
        servers.start(1)

        assert len(answers(cluster.engine, statement)) == len(answers(one, statement))
