"""Statements that PostgreSQL answers over shipped rows: the workspace, its limits, its errors."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    ARRAY,
    CHAR,
    BigInteger,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Uuid,
    func,
    insert,
    select,
    text,
    union,
)
from sqlalchemy.dialects.postgresql import INT4RANGE, JSONB, OID
from sqlalchemy.exc import DataError, InternalError, OperationalError

from sqlalchemy_shards import GatherLimit, Timeouts, create_cluster, reference_table, shard_table
from sqlalchemy_shards.errors import (
    ConfigurationError,
    GatherLimitExceeded,
    ScatterNotAllowed,
    UnsupportedStatement,
)
from sqlalchemy_shards.plan import ForeignOrder
from tests.databases import own_urls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

METADATA = MetaData()
ITEMS = shard_table(
    Table(
        "items",
        METADATA,
        Column("k", BigInteger, primary_key=True, autoincrement=False),
        Column("kind", Text),
        Column("price", Numeric(10, 2)),
        Column("weight", Float),
        Column("code", CHAR(5)),
        Column("raw", LargeBinary),
        Column("extra", JSONB),
        Column("numbers", ARRAY(Integer)),
        Column("mood", Enum("bad", "good", name="mood")),
        Column("lasts", Interval),
        Column("made", DateTime(timezone=True)),
        Column("born", Date),
        Column("token", Uuid),
        Column("span", INT4RANGE),
    ),
    key="k",
)
KINDS = reference_table(
    Table("kinds", METADATA, Column("name", String, primary_key=True), Column("title", String))
)
APART = shard_table(
    Table(
        "apart",
        METADATA,
        Column("k", BigInteger, primary_key=True, autoincrement=False),
        Column("item", BigInteger),
        schema="away",
    ),
    key="k",
)
ROWS = range(1, 41)


@pytest.fixture(scope="module")
def urls(servers: PostgresServers) -> Iterator[dict[str, str]]:
    """Four databases of this module alone, in one server."""
    with own_urls(servers, "gather", ("s0", "s1", "s2", "s3")) as urls:
        yield urls


@pytest.fixture(scope="module")
def cluster(urls: dict[str, str]) -> Iterator[Cluster]:
    cluster = create_cluster(urls, name="gathered")
    for shard in cluster.shards:
        with cluster.connect(shard) as connection:
            connection.execute("CREATE SCHEMA away")
    cluster.create_all(METADATA)
    with cluster.engine.begin() as connection:
        connection.execute(
            insert(ITEMS),
            [
                {
                    "k": k,
                    "kind": ["a", "b", None][k % 3],
                    "price": Decimal(k) / 4,
                    "weight": k / 3,
                    "code": "x" * (k % 4),
                    "raw": bytes([k, 0, 9, 10, 92]),
                    "extra": {"k": k, "t": "tab\there"},
                    "numbers": [k, None],
                    "mood": ["bad", "good"][k % 2],
                }
                for k in ROWS
            ],
        )
        connection.execute(
            insert(KINDS), [{"name": "a", "title": "A"}, {"name": "b", "title": None}]
        )
        connection.execute(insert(APART), [{"k": k, "item": k + 1} for k in ROWS])
    yield cluster
    cluster.dispose()


def test_groups_of_all_shards_are_one(cluster: Cluster) -> None:
    statement = select(ITEMS.c.kind, func.count(), func.avg(ITEMS.c.price)).group_by(ITEMS.c.kind)
    with cluster.engine.connect() as connection:
        rows = connection.execute(statement.order_by(ITEMS.c.kind)).all()

    assert [(row[0], row[1]) for row in rows] == [("a", 13), ("b", 14), (None, 13)]
    assert rows[1][2] == sum(Decimal(k) / 4 for k in ROWS if k % 3 == 1) / 14


def test_every_type_comes_back_as_it_was(cluster: Cluster) -> None:
    with cluster.engine.connect() as connection:
        plain = {
            row.k: tuple(row)
            for k in ROWS
            for row in connection.execute(select(ITEMS).where(ITEMS.c.k == k))
        }
        gathered = connection.execute(
            select(ITEMS, func.row_number().over(order_by=ITEMS.c.k)).order_by(ITEMS.c.k)
        ).all()

    assert {row.k: tuple(row)[:-1] for row in gathered} == plain
    assert [row[-1] for row in gathered] == list(range(1, 41))


def test_a_large_gather_goes_through_temporary_tables(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = select(ITEMS, func.row_number().over(order_by=ITEMS.c.k)).order_by(ITEMS.c.k)
    with cluster.engine.connect() as connection:
        through_ctes = connection.execute(statement).all()
        monkeypatch.setattr(cluster.workspace, "cte_rows_max", 0)
        through_tables = connection.execute(statement).all()

    assert through_tables == through_ctes


def test_rows_are_looked_up_in_a_large_table(cluster: Cluster) -> None:
    """A correlated average, which PostgreSQL asks for once for each row outside."""
    other = ITEMS.alias()
    average = select(func.avg(other.c.k)).where(other.c.kind == ITEMS.c.kind).scalar_subquery()
    added = [{"k": 1000 + n, "kind": f"new {n % 500}"} for n in range(1500)]
    with cluster.engine.connect() as connection:
        connection.execute(insert(ITEMS), added)
        below = connection.scalars(
            select(ITEMS.c.k).where(ITEMS.c.k >= 1000, ITEMS.c.k < average).order_by(ITEMS.c.k)
        ).all()
        connection.rollback()

    assert below == list(range(1000, 1500))


def test_padded_text_is_put_in_order_by_postgresql_each_time(cluster: Cluster) -> None:
    statement = select(ITEMS.c.k).order_by(ITEMS.c.code, ITEMS.c.k)
    with cluster.engine.connect() as connection:
        found = connection.scalars(statement).all()

    assert sorted(found) == list(ROWS)
    assert isinstance(cluster.explain(statement).merge, ForeignOrder)


def test_changes_of_the_session_are_seen(cluster: Cluster) -> None:
    statement = select(func.count(ITEMS.c.kind.distinct()))
    with cluster.engine.connect() as connection:
        connection.execute(insert(ITEMS), [{"k": 1000 + k, "kind": f"new {k}"} for k in range(8)])
        seen = connection.scalar(statement)
        connection.rollback()
        left = connection.scalar(statement)

    assert (seen, left) == (10, 2)


def test_only_the_columns_and_rows_that_matter_are_shipped(cluster: Cluster) -> None:
    statement = select(func.stddev(ITEMS.c.k)).where(ITEMS.c.price > 3)

    explained = cluster.explain(statement)

    assert explained.tier.value == "gather"
    assert {" ".join(step.sql.split()) for step in explained.steps} == {
        "SELECT 0 AS part, CAST(items.k AS TEXT) AS c0, CAST(items.price AS TEXT) AS c1 "
        "FROM items WHERE items.price > %(price_1)s::INTEGER"
    }


def test_tables_of_one_shard_are_read_by_one_statement(cluster: Cluster) -> None:
    statement = select(ITEMS.c.k, APART.c.k, KINDS.c.title).where(
        ITEMS.c.k == APART.c.item, ITEMS.c.kind == KINDS.c.name
    )

    explained = cluster.explain(statement)

    assert len(explained.steps) == 4
    assert sum("UNION ALL" in step.sql for step in explained.steps) == 4
    assert sum("kinds" in step.sql for step in explained.steps) == 1


def test_tables_with_a_schema_are_joined(cluster: Cluster) -> None:
    statement = select(func.count()).select_from(
        ITEMS.join(APART, ITEMS.c.k == APART.c.item).join(KINDS, KINDS.c.name == ITEMS.c.kind)
    )
    with cluster.engine.connect() as connection:
        count = connection.scalar(statement)

    assert count == len([k for k in range(2, 41) if k % 3 != 2])


def test_a_cte_that_is_named_like_a_table_hides_it_only_where_it_is_named(cluster: Cluster) -> None:
    inner = select(ITEMS.c.k, ITEMS.c.kind).where(ITEMS.c.k < 4).cte("kinds")
    statement = select(func.count(), func.count(inner.c.kind.distinct())).select_from(inner)
    with cluster.engine.connect() as connection:
        found = connection.execute(statement).one()

    assert tuple(found) == (3, 2)


def test_columns_that_depend_on_a_grouped_primary_key_may_be_shown(cluster: Cluster) -> None:
    statement = (
        select(ITEMS.c.k, ITEMS.c.mood, func.count())
        .join(APART, APART.c.item == ITEMS.c.k)
        .group_by(ITEMS.c.k)
        .order_by(ITEMS.c.k)
    )
    with cluster.engine.connect() as connection:
        rows = connection.execute(statement).all()

    assert [tuple(row) for row in rows[:2]] == [(2, "bad", 1), (3, "good", 1)]


def test_now_is_the_same_all_through_a_transaction(cluster: Cluster) -> None:
    statement = select(func.now(), func.current_date(), ITEMS.c.kind).where(
        ITEMS.c.made.is_(None) | (ITEMS.c.made < func.now())
    )
    with cluster.engine.connect() as connection:
        first = {row[0] for row in connection.execute(statement.distinct())}
        second = {row[0] for row in connection.execute(statement.distinct())}

    assert first == second
    assert len(first) == 1


def test_the_time_zone_of_the_session_holds(cluster: Cluster) -> None:
    hour = func.to_char(func.max(ITEMS.c.made), "HH24:MI")
    statement = select(hour, ITEMS.c.kind).group_by(ITEMS.c.kind)
    with cluster.engine.connect() as connection:
        connection.execute(text("SET LOCAL TimeZone = 'Asia/Kolkata'"))
        connection.execute(
            ITEMS.update().values(made=datetime(2026, 1, 1, tzinfo=timezone.utc)),
            execution_options={"shard": "*"},
        )
        hours = {row[0] for row in connection.execute(statement)}
        connection.rollback()

    assert hours == {"05:30"}


def test_an_error_of_the_workspace_fails_the_transaction(cluster: Cluster) -> None:
    statement = select(func.sum(1 / (ITEMS.c.k - ITEMS.c.k)), ITEMS.c.kind).group_by(ITEMS.c.kind)
    with cluster.engine.connect() as connection:
        connection.execute(select(ITEMS.c.k).where(ITEMS.c.k == 1))
        with pytest.raises(DataError, match="division by zero"):
            connection.execute(statement)
        with pytest.raises(InternalError, match="current transaction is aborted"):
            connection.execute(select(ITEMS.c.k).where(ITEMS.c.k == 1))
        connection.rollback()
        again = connection.scalar(select(func.count(ITEMS.c.kind.distinct())))

    assert again == 2


def test_the_workspace_takes_no_part_in_the_transaction(cluster: Cluster) -> None:
    with cluster.engine.connect() as connection:
        connection.execute(select(ITEMS.c.kind).distinct())
        enlisted: Any = connection.connection.driver_connection
        statuses = {
            name: each.driver.info.transaction_status for name, each in enlisted.enlisted.items()
        }
    with cluster.connect(cluster.global_shard) as connection:
        idle = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state = 'idle in transaction'"
        ).fetchone()

    assert set(statuses) == set(cluster.shards)
    assert idle == (0,)


class TestLimits:
    def test_too_many_rows_are_refused_with_the_numbers(self, cluster: Cluster) -> None:
        statement = select(func.stddev(ITEMS.c.k)).group_by(ITEMS.c.kind)
        narrow = statement.execution_options(gather_limit=GatherLimit(rows=20))
        wide = statement.execution_options(gather_limit=GatherLimit(rows=40))
        with cluster.engine.connect() as connection:
            with pytest.raises(GatherLimitExceeded, match=r"more than 20 rows .*'items'"):
                connection.execute(narrow)
            kinds = connection.execute(wide).all()

        assert len(kinds) == 3

    def test_too_many_bytes_are_refused(self, urls: dict[str, str], cluster: Cluster) -> None:
        other = create_cluster(urls, name="gathered", gather_limit=GatherLimit(bytes=30))
        with other.engine.connect() as connection, pytest.raises(GatherLimitExceeded):
            connection.execute(select(ITEMS.c.raw, func.stddev(ITEMS.c.k)).group_by(ITEMS.c.raw))
        other.dispose()

    def test_what_is_no_limit_is_refused(self, cluster: Cluster) -> None:
        with pytest.raises(ConfigurationError, match="rows=0"):
            GatherLimit(rows=0)
        statement = select(func.stddev(ITEMS.c.k)).execution_options(gather_limit=5)
        with (
            cluster.engine.connect() as connection,
            pytest.raises(ConfigurationError, match="gather_limit=5"),
        ):
            connection.execute(statement)

    def test_scatter_that_is_refused_is_refused_here_too(self, cluster: Cluster) -> None:
        with cluster.engine.connect() as connection, pytest.raises(ScatterNotAllowed):
            connection.execute(
                select(ITEMS.c.kind).distinct(), execution_options={"scatter": "refuse"}
            )


class TestRefusals:
    @pytest.mark.parametrize(
        ("statement", "reason"),
        [
            (
                select(ITEMS.c.kind).distinct().with_for_update(),
                r"FOR UPDATE cannot lock .*; add the shard key .* by a second SELECT$",
            ),
            (
                select(func.row_number().over(order_by=ITEMS.c.k)).with_for_update(),
                r"FOR UPDATE would lock copies of the rows, not the rows of the shards \(rows are "
                r"brought together: .*window.*\); .* by a second SELECT$",
            ),
            (
                select(ITEMS.c.k).limit(1).with_for_update(skip_locked=True),
                r"FOR UPDATE with LIMIT .*; ask one shard after the other .* still missing$",
            ),
            (select(func.pg_backend_pid(), ITEMS.c.kind).distinct(), r"pg_backend_pid\(\)"),
            (select(func.statement_timestamp(), ITEMS.c.kind).distinct(), "statement_timestamp"),
            (select(func.count(ITEMS.tablesample(10).c.kind.distinct())), "TABLESAMPLE"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_another_server_would_not_give_alike(
        self, cluster: Cluster, statement: Any, reason: str
    ) -> None:
        with (
            cluster.engine.connect() as connection,
            pytest.raises(UnsupportedStatement, match=reason),
        ):
            connection.execute(statement)

    def test_a_function_that_reads_a_table(self, cluster: Cluster) -> None:
        for shard in cluster.shards:
            with cluster.connect(shard) as connection:
                connection.execute(
                    "CREATE OR REPLACE FUNCTION lying_count() RETURNS bigint IMMUTABLE"
                    " LANGUAGE sql AS 'SELECT count(*) FROM items'"
                )
        statement = select(func.lying_count(), ITEMS.c.kind).distinct()

        with (
            cluster.engine.connect() as connection,
            pytest.raises(UnsupportedStatement, match="reads items"),
        ):
            connection.execute(statement)

    def test_a_function_that_reads_a_table_where_engines_are_in_autocommit_mode(
        self, urls: dict[str, str], cluster: Cluster
    ) -> None:
        other = create_cluster(urls, name="gathered", isolation_level="AUTOCOMMIT")
        with other.connect(other.global_shard) as connection:
            connection.execute(
                "CREATE OR REPLACE FUNCTION another_lying_count() RETURNS bigint IMMUTABLE"
                " LANGUAGE sql AS 'SELECT count(*) FROM items'"
            )
        lying = select(func.another_lying_count(), ITEMS.c.kind).distinct()
        with other.engine.connect() as connection:
            with pytest.raises(UnsupportedStatement, match="reads items"):
                connection.execute(lying)
            other.workspace.cte_rows_max = 0
            kinds = connection.execute(select(ITEMS.c.kind).distinct()).all()
        other.dispose()

        assert len(kinds) == 3

    def test_types_whose_text_means_something_else_elsewhere(self, cluster: Cluster) -> None:
        table = shard_table(
            Table(
                "of_oids",
                MetaData(),
                Column("k", BigInteger, primary_key=True, autoincrement=False),
                Column("relation", OID),
            ),
            key="k",
        )
        cluster.create_all(table.metadata)

        with (
            cluster.engine.connect() as connection,
            pytest.raises(UnsupportedStatement, match="type oid"),
        ):
            connection.execute(select(table.c.relation).distinct())


def test_another_server_can_be_the_workspace(urls: dict[str, str], cluster: Cluster) -> None:
    *_, last = urls.values()
    other = create_cluster(urls, name="gathered", workspace=last)
    with other.engine.connect() as connection:
        database = connection.scalar(
            select(func.max(ITEMS.c.k), func.count(ITEMS.c.kind.distinct())).with_only_columns(
                func.count(ITEMS.c.kind.distinct())
            )
        )
    other.dispose()

    assert database == 2


def test_set_operations_compare_rows_of_all_shards(cluster: Cluster) -> None:
    low = select(ITEMS.c.kind).where(ITEMS.c.k < 3)
    high = select(ITEMS.c.kind).where(ITEMS.c.k > 38)
    with cluster.engine.connect() as connection:
        rows = connection.execute(union(low, high)).all()

    assert {row[0] for row in rows} == {"a", "b", None}


def test_a_closed_workspace_connection_is_replaced(cluster: Cluster) -> None:
    statement = select(func.count(ITEMS.c.kind.distinct()))
    with cluster.engine.connect() as connection:
        connection.execute(statement)
    with cluster.connect(cluster.global_shard) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    for shard in cluster.shards.values():
        shard.engine.dispose()
    with cluster.engine.connect() as connection:
        count = connection.scalar(statement)

    assert count == 2


def test_a_shard_that_is_lost_while_it_ships_is_the_one_that_is_named(cluster: Cluster) -> None:
    statement = select(func.count(ITEMS.c.kind.distinct()))
    (key,) = [k for k in ROWS if cluster.shard_for(ITEMS, k) == "s2"][:1]
    backend = select(func.pg_backend_pid()).execution_options(shard="s2")
    with cluster.engine.connect() as connection:
        connection.execute(select(ITEMS.c.k).where(ITEMS.c.k == key))
        pid = connection.scalar(backend)
        with cluster.connect("s2") as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(OperationalError, match="shard: s2") as caught:
            connection.execute(statement)
    with cluster.engine.connect() as connection:
        count = connection.scalar(statement)

    assert caught.value.connection_invalidated
    assert count == 2


def test_a_deadline_cancels_the_workspace(urls: dict[str, str], cluster: Cluster) -> None:
    other = create_cluster(urls, name="gathered", timeouts=Timeouts(statement_seconds=0.5))
    aliases = [ITEMS.alias() for _ in range(6)]
    keys = [each.c.k for each in aliases]
    statement = select(func.count()).where(*(keys[0] + keys[1] > key for key in keys))
    with other.engine.connect() as connection:
        with pytest.raises(OperationalError, match="workspace"):
            connection.execute(statement)
        connection.rollback()
        count = connection.scalar(select(func.count(ITEMS.c.kind.distinct())))
    other.dispose()

    assert count == 2
