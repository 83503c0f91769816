"""A gather of too much is stopped while its rows arrive, and the transaction goes on."""

from __future__ import annotations

import re
import signal
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Interval,
    MetaData,
    Table,
    Text,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.exc import OperationalError

from sqlalchemy_shards import GatherLimit, Timeouts, create_cluster, shard_table
from sqlalchemy_shards.connections.copying import CopyOut
from sqlalchemy_shards.errors import GatherLimitExceeded, UnsupportedStatement
from tests.databases import own_urls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

METADATA = MetaData()
VIEWS_METADATA = MetaData()


def _table(name: str, metadata: MetaData, *columns: Column[Any]) -> Table:
    return shard_table(
        Table(
            name,
            metadata,
            Column("k", BigInteger, primary_key=True, autoincrement=False),
            Column("word", Text),
            *columns,
        ),
        key="k",
    )


FEW = _table("few", METADATA, Column("lasts", Interval))
ENDLESS = _table("endless", VIEWS_METADATA)
SILENT = _table("silent", VIEWS_METADATA)

VIEWS = """
CREATE VIEW endless AS
SELECT generate_series(1, 2000000000) AS k, repeat('x', 1000) AS word;
CREATE VIEW silent AS
SELECT n AS k, 'x' AS word FROM generate_series(1, {last}) AS s (n)
WHERE n < 100 OR pg_sleep(300) IS NULL;
"""
SECONDS_MAX = 60
"""Much less than the statements would take, and enough for a slow machine."""


@pytest.fixture(scope="module")
def urls(servers: PostgresServers) -> Iterator[dict[str, str]]:
    """Four databases of this module alone, in one server."""
    with own_urls(servers, "limits", ("s0", "s1", "s2", "s3")) as urls:
        yield urls


@pytest.fixture(scope="module")
def cluster(urls: dict[str, str]) -> Iterator[Cluster]:
    cluster = create_cluster(urls, name="limited")
    cluster.create_all(METADATA)
    for number, shard in enumerate(cluster.shards):
        with cluster.connect(shard) as driver:
            driver.execute(VIEWS.format(last=100 if number else 99).encode())
    with cluster.engine.begin() as connection:
        connection.execute(
            insert(FEW),
            [{"k": k, "word": f"w{k % 3}", "lasts": timedelta(seconds=k)} for k in range(40)],
        )
    yield cluster
    cluster.dispose()


def number_told(error: BaseException, table: str) -> int:
    found = re.search(rf"(\d+) rows \(\d+ bytes\) of '{table}'", str(error))
    assert found is not None
    return int(found[1])


def ranked(table: Table) -> Any:
    return select(func.rank().over(order_by=table.c.word), table.c.k)


def test_what_arrived_is_told_for_each_table(cluster: Cluster) -> None:
    statement = select(func.rank().over(order_by=FEW.c.word), ENDLESS.c.k).where(
        FEW.c.k < ENDLESS.c.k, FEW.c.k < 5
    )
    limit = GatherLimit(rows=1000)
    with cluster.engine.connect() as connection, pytest.raises(GatherLimitExceeded) as caught:
        connection.execute(statement, execution_options={"gather_limit": limit})

    told = str(caught.value)
    assert "more than 1000 rows or 268435456 bytes would have to be brought together" in told
    assert number_told(caught.value, "endless") > 900
    assert number_told(caught.value, "few") <= 5
    assert told.index("'endless'") < told.index("'few'")


@pytest.mark.parametrize("limit", [GatherLimit(bytes=3_000_000), GatherLimit(rows=3_000)])
def test_rows_are_counted_while_they_arrive(cluster: Cluster, limit: GatherLimit) -> None:
    began = monotonic()
    with cluster.engine.connect() as connection:
        with pytest.raises(GatherLimitExceeded) as caught:
            connection.execute(ranked(ENDLESS), execution_options={"gather_limit": limit})
        count = connection.scalar(select(func.count()).select_from(FEW))

    assert count == 40
    assert 2_900 < number_told(caught.value, "endless") < 20_000
    assert monotonic() - began < SECONDS_MAX


def test_a_shard_that_sends_nothing_is_stopped_too(cluster: Cluster) -> None:
    began = monotonic()
    limit = GatherLimit(rows=98)
    with cluster.engine.connect() as connection:
        with pytest.raises(GatherLimitExceeded):
            connection.execute(ranked(SILENT), execution_options={"gather_limit": limit})
        count = connection.scalar(select(func.count()).select_from(FEW))
    running = [
        cluster_running for shard in cluster.shards for cluster_running in _running(cluster, shard)
    ]

    assert count == 40
    assert running == []
    assert monotonic() - began < SECONDS_MAX


def _running(cluster: Cluster, shard: str) -> list[Any]:
    with cluster.connect(shard) as driver:
        return driver.execute(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database()"
            " AND state = 'active' AND pid <> pg_backend_pid()"
        ).fetchall()


def test_the_transaction_goes_on_with_what_it_has_written(cluster: Cluster) -> None:
    with cluster.engine.connect() as connection:
        connection.execute(insert(FEW), [{"k": 100 + k, "word": "new"} for k in range(8)])
        with connection.begin_nested() as savepoint:
            connection.execute(insert(FEW), [{"k": 200 + k, "word": "new"} for k in range(8)])
            with pytest.raises(GatherLimitExceeded):
                connection.execute(
                    ranked(ENDLESS), execution_options={"gather_limit": GatherLimit(rows=100)}
                )
            inner = connection.scalar(select(func.count()).where(FEW.c.word == "new"))
            savepoint.rollback()
        outer = connection.scalar(select(func.count()).where(FEW.c.word == "new"))
        ranks = connection.execute(ranked(FEW)).all()
        connection.rollback()

    assert (inner, outer, len(ranks)) == (16, 8, 48)


def test_a_limit_that_is_reached_and_not_exceeded_lets_the_statement_be(cluster: Cluster) -> None:
    with cluster.engine.connect() as connection:
        exact = connection.execute(
            ranked(FEW), execution_options={"gather_limit": GatherLimit(rows=40)}
        ).all()
        with pytest.raises(GatherLimitExceeded) as caught:
            connection.execute(
                ranked(FEW), execution_options={"gather_limit": GatherLimit(rows=39)}
            )

    assert len(exact) == 40
    assert number_told(caught.value, "few") == 40


def test_statements_are_stopped_in_autocommit_mode_too(cluster: Cluster) -> None:
    with cluster.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        with pytest.raises(GatherLimitExceeded):
            connection.execute(
                ranked(ENDLESS), execution_options={"gather_limit": GatherLimit(rows=100)}
            )
        rows = connection.execute(ranked(FEW)).all()

    assert len(rows) == 40


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE", "READ COMMITTED"])
def test_a_transaction_that_begins_with_a_gather_is_what_was_asked_for(
    cluster: Cluster, level: str
) -> None:
    asked = {
        "isolation_level": level,
        "postgresql_readonly": True,
        "postgresql_deferrable": True,
    }
    with cluster.engine.connect().execution_options(**asked) as connection:
        connection.execute(ranked(FEW)).all()
        found = {
            tuple(
                connection.execute(
                    text(f"SHOW transaction_{name}"), execution_options={"shard": shard}
                ).scalar()
                for name in ("isolation", "read_only", "deferrable")
            )
            for shard in cluster.shards
        }

    assert found == {(level.lower(), "on", "on")}


def test_a_gather_begins_the_transaction_of_each_shard(cluster: Cluster) -> None:
    with cluster.engine.connect() as connection:
        connection.execute(ranked(FEW)).all()
        enlisted: Any = connection.connection.driver_connection
        before = {each.driver.info.transaction_status for each in enlisted.enlisted.values()}
        connection.rollback()

    assert before == {psycopg.pq.TransactionStatus.INTRANS}


@pytest.mark.usefixtures("cluster")
def test_the_deadline_holds_while_rows_arrive(urls: dict[str, str]) -> None:
    hasty = create_cluster(urls, name="limited", timeouts=Timeouts(statement_seconds=0.5))
    try:
        with hasty.engine.connect() as connection:
            with pytest.raises(OperationalError, match=r"the deadline of 0\.5 s passed"):
                connection.execute(ranked(SILENT))
            connection.rollback()
            count = connection.scalar(select(func.count()).select_from(FEW))
    finally:
        hasty.dispose()

    assert count == 40


def test_an_error_among_the_rows_fails_the_transaction(cluster: Cluster) -> None:
    statement = select(func.rank().over(order_by=FEW.c.word)).where(1 / (FEW.c.k - 30) < 5)
    with cluster.engine.connect() as connection:
        with pytest.raises(Exception, match="division by zero"):
            connection.execute(statement)
        with pytest.raises(Exception, match="current transaction is aborted"):
            connection.execute(select(FEW.c.k).where(FEW.c.k == 1))
        connection.rollback()
        count = connection.scalar(select(func.count()).select_from(FEW))

    assert count == 40


def test_text_in_an_encoding_that_cannot_be_told_apart_is_refused(cluster: Cluster) -> None:
    with cluster.engine.connect() as connection:
        connection.execute(text("SET LOCAL client_encoding = 'SJIS'"))
        with pytest.raises(UnsupportedStatement, match="a character may hold a backslash"):
            connection.execute(ranked(FEW))


@pytest.mark.sync_only("Ctrl-C ends an event loop, or cancels its task")
def test_ctrl_c_while_rows_arrive_leaves_nothing_running(cluster: Cluster) -> None:
    wide = {"gather_limit": GatherLimit(rows=10**9, bytes=2**30)}
    with cluster.engine.connect() as connection:
        press_until_it_is_noticed(
            lambda: connection.execute(ranked(ENDLESS), execution_options=wide)
        )
        connection.rollback()
        count = connection.scalar(select(func.count()).select_from(FEW))

    assert count == 40
    assert [_running(cluster, shard) for shard in cluster.shards] == [[], [], [], []]


def test_ctrl_c_outside_of_a_fan_out_leaves_a_connection_that_is_usable_or_closed(
    urls: dict[str, str],
) -> None:
    lines: list[bytes] = []
    endless = b"COPY (SELECT generate_series(1, 2000000000)) TO STDOUT"
    with psycopg.connect(urls["s0"].replace("+psycopg", ""), autocommit=True) as driver:
        press_until_it_is_noticed(
            lambda: CopyOut(driver, lines.extend, lambda: len(lines) > 10_000_000).run(endless)
        )
        status = driver.info.transaction_status

    assert lines
    assert status in (psycopg.pq.TransactionStatus.IDLE, psycopg.pq.TransactionStatus.UNKNOWN)


def press_until_it_is_noticed(work: Callable[[], object]) -> None:
    """Press Ctrl-C while something works.

    Python drops an exception that is raised while it tidies up an object; then what works comes
    to an end of its own.
    """
    for _ in range(5):
        try:
            with interrupted(0.2):
                work()
        except KeyboardInterrupt:
            return
        except GatherLimitExceeded:
            continue
    pytest.fail("Ctrl-C was not noticed")


@contextmanager
def interrupted(seconds: float) -> Iterator[None]:
    """Press Ctrl-C after a time."""
    previous = signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class TestRowsThatAreOnlyPutInOrder:
    """The workspace is shown their sort keys, as Python does not know the order of these."""

    @pytest.mark.parametrize("options", [{}, {"yield_per": 10}])
    def test_too_many_are_refused(self, cluster: Cluster, options: dict[str, int]) -> None:
        ordered = select(FEW.c.k).order_by(FEW.c.lasts)
        narrow = {**options, "gather_limit": GatherLimit(rows=39)}
        wide = {**options, "gather_limit": GatherLimit(rows=40)}
        with cluster.engine.connect() as connection:
            with pytest.raises(GatherLimitExceeded, match="would have to be put in order") as found:
                connection.execute(ordered, execution_options=narrow)
            keys = connection.execute(ordered, execution_options=wide).scalars().all()

        told = [int(count) for count in re.findall(r"(\d+) rows of s", str(found.value))]
        assert sum(told) == 40
        assert keys == list(range(40))

    def test_keys_that_are_too_large_are_refused(self, cluster: Cluster) -> None:
        ordered = select(FEW.c.k).order_by(FEW.c.lasts)
        limit = GatherLimit(bytes=319)
        with (
            cluster.engine.connect() as connection,
            pytest.raises(GatherLimitExceeded, match="40 rows with 320 bytes of sort keys"),
        ):
            connection.execute(ordered, execution_options={"gather_limit": limit})
