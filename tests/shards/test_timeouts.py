"""Bounds on waiting that the servers keep, on every connection of a cluster."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert, text, update
from sqlalchemy.exc import OperationalError

from sqlalchemy_shards import Cluster, Timeouts, create_cluster, shard_table
from sqlalchemy_shards.catalog.schema import BOOTSTRAP_LOCK
from sqlalchemy_shards.errors import ConfigurationError
from tests.databases import libpq_url
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ALL = Timeouts(lock_timeout=1.5, statement_timeout=7, idle_in_transaction_session_timeout=0)
ASK = text(
    "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'),"
    " current_setting('idle_in_transaction_session_timeout')"
)
LOCK_TIMEOUT = text("SHOW lock_timeout")
ON_S1 = {"shard": "s1"}

METADATA = MetaData()
ITEMS = shard_table(
    Table(
        "items",
        METADATA,
        Column("k", Integer, primary_key=True, autoincrement=False),
        Column("n", Integer, default=0),
    ),
    key="k",
)


@contextmanager
def cluster_of(urls: Mapping[str, str], **arguments: Any) -> Iterator[Cluster]:
    cluster = create_cluster(urls, name="shop", **arguments)
    try:
        yield cluster
    finally:
        cluster.dispose()


def lock_timeout(cluster: Cluster, shard: str = "s1") -> str:
    with cluster.engine.connect() as connection:
        found: str = connection.execute(LOCK_TIMEOUT, execution_options={"shard": shard}).scalar()
    return found


def with_options(url: str, options: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}options={options}"


@contextmanager
def of_the_database(url: str, setting: str, value: str) -> Iterator[None]:
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        alter = f'ALTER DATABASE "{connection.info.dbname}"'
        connection.execute(f"{alter} SET {setting} = '{value}'".encode())
        try:
            yield
        finally:
            connection.execute(f"{alter} RESET {setting}".encode())


class TestWhoHasThem:
    def test_statements_of_the_cluster_have_them(self, clean_shards: dict[str, str]) -> None:
        with cluster_of(clean_shards, timeouts=ALL) as cluster, cluster.engine.connect() as c:
            found = c.execute(ASK, execution_options=ON_S1).one()

        assert tuple(found) == ("1500ms", "7s", "0")

    def test_a_shards_own_engine_has_them(self, clean_shards: dict[str, str]) -> None:
        with (
            cluster_of(clean_shards, timeouts=ALL) as cluster,
            cluster.shards["s1"].engine.connect() as connection,
        ):
            found = connection.execute(ASK).one()

        assert tuple(found) == ("1500ms", "7s", "0")

    def test_connections_beside_the_pool_have_them(self, clean_shards: dict[str, str]) -> None:
        with cluster_of(clean_shards, timeouts=ALL) as cluster, cluster.connect("s1") as c:
            found = c.execute("SHOW lock_timeout").fetchone()

        assert found == ("1500ms",)

    def test_engines_that_exist_already_give_them_to_new_connections(
        self, clean_shards: dict[str, str]
    ) -> None:
        engines = {
            name: create_engine(url, isolation_level="AUTOCOMMIT")
            for name, url in clean_shards.items()
        }
        cluster = Cluster(engines, timeouts=ALL)
        found = lock_timeout(cluster)
        cluster.dispose()

        assert found == "1500ms"

    def test_a_workspace_of_its_own_has_them(
        self, clean_shards: dict[str, str], one_database_url: str
    ) -> None:
        workspace = create_engine(one_database_url)
        with (
            cluster_of(clean_shards, timeouts=ALL, workspace=workspace),
            workspace.connect() as connection,
        ):
            found = connection.execute(LOCK_TIMEOUT).scalar()
        workspace.dispose()

        assert found == "1500ms"

    def test_they_stay_for_the_life_of_the_connection(self, clean_shards: dict[str, str]) -> None:
        with cluster_of(clean_shards, timeouts=ALL, pool_size=1, max_overflow=0) as cluster:
            with cluster.engine.connect() as connection:
                connection.execute(text("SELECT 1"), execution_options=ON_S1)
                connection.rollback()
            found = [lock_timeout(cluster), lock_timeout(cluster)]

        assert found == ["1500ms", "1500ms"]

    def test_they_may_stand_in_the_file(self, clean_shards: dict[str, str], tmp_path: Path) -> None:
        urls = "".join(f'{name} = "{url}"\n' for name, url in clean_shards.items())
        file = tmp_path / "shards.toml"
        file.write_text(f"[timeouts]\nlock_timeout = 1.5\nfinish_seconds = 2\n[shards]\n{urls}")

        cluster = Cluster.from_file(file)
        found = lock_timeout(cluster)
        cluster.dispose()

        assert (found, cluster.timeouts.finish_seconds) == ("1500ms", 2)


class TestWhoWins:
    def test_a_lock_is_waited_for_a_minute_where_nobody_says_anything(
        self, clean_shards: dict[str, str]
    ) -> None:
        with cluster_of(clean_shards) as cluster:
            found = lock_timeout(cluster)

        assert found == "1min"

    def test_a_cluster_of_one_shard_is_as_one_postgresql(
        self, clean_shards: dict[str, str]
    ) -> None:
        with cluster_of({"s1": clean_shards["s1"]}, undeclared="global") as cluster:
            found = lock_timeout(cluster)

        assert found == "0"

    def test_the_default_gives_way_to_what_the_database_has(
        self, clean_shards: dict[str, str]
    ) -> None:
        with (
            of_the_database(clean_shards["s1"], "lock_timeout", "5min"),
            cluster_of(clean_shards) as cluster,
        ):
            found = lock_timeout(cluster, "s1"), lock_timeout(cluster, "s2")

        assert found == ("5min", "1min")

    def test_what_is_given_wins_over_what_the_database_has(
        self, clean_shards: dict[str, str]
    ) -> None:
        with (
            of_the_database(clean_shards["s1"], "lock_timeout", "5min"),
            cluster_of(clean_shards, timeouts=ALL) as cluster,
        ):
            found = lock_timeout(cluster)

        assert found == "1500ms"

    @pytest.mark.parametrize("timeouts", [None, ALL], ids=["default", "given"])
    def test_the_options_of_a_shards_url_win_over_both(
        self, clean_shards: dict[str, str], timeouts: Timeouts | None
    ) -> None:
        own = "-c%20lock_timeout%3D0%20-c%20work_mem%3D7MB"
        urls = {**clean_shards, "s1": with_options(clean_shards["s1"], own)}
        with cluster_of(urls, timeouts=timeouts) as cluster, cluster.engine.connect() as c:
            found = c.execute(LOCK_TIMEOUT, execution_options=ON_S1).scalar()
            also = c.execute(text("SHOW work_mem"), execution_options=ON_S1).scalar()

        assert (found, also) == ("0", "7MB")

    def test_zero_is_no_bound(self, clean_shards: dict[str, str]) -> None:
        with cluster_of(clean_shards, timeouts=Timeouts(lock_timeout=0)) as cluster:
            found = lock_timeout(cluster)

        assert found == "0"

    def test_set_local_wins_until_the_transaction_ends(self, clean_shards: dict[str, str]) -> None:
        with (
            cluster_of(clean_shards, timeouts=ALL, pool_size=1, max_overflow=0) as cluster,
            cluster.engine.connect() as connection,
        ):
            connection.execute(text("SET LOCAL lock_timeout = '9s'"))
            within = connection.execute(LOCK_TIMEOUT, execution_options=ON_S1).scalar()
            connection.rollback()
            after = connection.execute(LOCK_TIMEOUT, execution_options=ON_S1).scalar()

        assert (within, after) == ("9s", "1500ms")


def test_a_deadlock_over_two_shards_ends_and_one_transaction_is_committed(
    clean_shards: dict[str, str],
) -> None:
    with cluster_of(clean_shards, timeouts=Timeouts(lock_timeout=1)) as cluster:
        cluster.create_all(METADATA)
        first, second = (
            next(k for k in range(100) if cluster.shard_for(ITEMS, k) == name)
            for name in ("s1", "s2")
        )
        with cluster.engine.begin() as connection:
            connection.execute(insert(ITEMS), [{"k": first}, {"k": second}])
        both_hold_one = threading.Barrier(2)

        def transfer(keys: tuple[int, int], pause: float) -> str:
            try:
                with cluster.engine.begin() as connection:
                    # One of them waits a little longer, so that they do not both give up.
                    connection.execute(text(f"SET LOCAL lock_timeout = '{1 + pause}s'"))
                    for number, key in enumerate(keys):
                        connection.execute(
                            update(ITEMS).where(ITEMS.c.k == key).values(n=ITEMS.c.n + 1)
                        )
                        if number == 0:
                            both_hold_one.wait(30)
            except OperationalError as error:
                return f"{error}; retryable: {error.is_retryable}"  # type: ignore[attr-defined]
            return "committed"

        with ThreadPoolExecutor(2) as pool:
            ends = list(pool.map(transfer, [(first, second), (second, first)], [0, 20]))
        with cluster.engine.connect() as connection:
            amounts = connection.execute(text("SELECT n FROM items"), execution_options=ON_S1).all()

    assert "lock timeout" in ends[0]
    assert "retryable: True" in ends[0]
    assert "shard: s2" in ends[0]
    assert ends[1] == "committed"
    assert amounts == [(1,)]


def test_a_bootstrap_waits_for_another_however_short_the_timeout_is(
    clean_shards: dict[str, str],
) -> None:
    with (
        cluster_of(clean_shards, timeouts=Timeouts(lock_timeout=0.05)) as cluster,
        psycopg.connect(libpq_url(clean_shards["s0"])) as other,
        psycopg.connect(libpq_url(clean_shards["s0"]), autocommit=True) as watching,
    ):
        other.execute("SELECT pg_advisory_xact_lock(%s)", (BOOTSTRAP_LOCK,))
        thread = threading.Thread(target=cluster.bootstrap)
        thread.start()
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'"
            " AND query_start < clock_timestamp() - interval '0.1 s'"
        )
        eventually(lambda: watching.execute(waiting).fetchone(), "it waits beyond its lock_timeout")
        other.rollback()
        thread.join(30)

        assert cluster.identities.of("s0") is not None


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"lock_timeout": -1}, "lock_timeout=-1: it must be 0 or more"),
        ({"lock_timeout": "5s"}, "lock_timeout='5s': it is a str, not a number of seconds"),
        ({"statement_timeout": True}, "it is a bool"),
        ({"statement_timeout": float("nan")}, "must be 0 or more"),
        ({"statement_timeout": 3_000_000}, "must be at most 2147483"),
        ({"statement_seconds": 0}, "statement_seconds=0: it must be above 0"),
        ({"round_seconds": None}, "it is a NoneType"),
    ],
    ids=str,
)
def test_what_is_no_time_is_told(wrong: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Timeouts(**wrong)

    assert fault in str(caught.value)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Timeouts(lock_timeout=-1, finish_seconds=-1)

    assert len(caught.value.faults) == 2
