"""A copy that is slow, is interrupted or loses a server: stopped everywhere, all or none."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError

from sqlalchemy_shards import ShardedSession
from sqlalchemy_shards.cluster.copying.sending import BACKLOG_BYTES
from sqlalchemy_shards.connections.copying_in import CopyIn
from tests.databases import ask, libpq_url
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy_shards.connections.hub import ShardConnection
    from tests.shards.shop import World

PROGRAM = textwrap.dedent(
    """
    import json, sys
    from sqlalchemy import func, select, text
    from sqlalchemy_shards import ShardedSession, create_cluster
    from tests.shards.shop import DECLARED as m

    def rows():
        yield from ({"id": n, "name": "x" * 1000, "version": 1} for n in range(1, 10**9))

    cluster = create_cluster(json.loads(sys.argv[1]), name="shop")
    with ShardedSession(cluster) as session:
        try:
            session.copy_from(m.Customer, rows())
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        session.rollback()
        print("then", session.scalar(select(func.count()).select_from(m.Customer)), flush=True)
    """
)

COPYING = (
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY customers%'"
    " AND state = 'active' AND datname = current_database()"
)

WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


def big_rows(count: int, payload: str = "x" * 1000) -> Iterator[dict[str, Any]]:
    return ({"id": n, "name": payload, "version": 1} for n in range(1, count + 1))


def test_ctrl_c_stops_the_copy_everywhere_and_leaves_a_usable_session(
    shop_urls: Mapping[str, str],
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(dict(shop_urls))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: _copying(shop_urls) == 4, "a COPY on every shard", seconds=60)

    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)

    assert output.split("\n")[:2] == ["interrupted", "then 0"], errors
    assert process.returncode == 0, errors
    assert _copying(shop_urls) == 0


def test_a_shard_that_waits_holds_up_all_and_no_rows_pile_up(four_shards: World) -> None:
    m = four_shards.models
    assert four_shards.cluster is not None
    shard = four_shards.cluster.shard_for(m.Customer, 1)
    given = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal given
        for row in big_rows(60_000, "x" * 2000):
            given += 1
            yield row

    blocker = psycopg.connect(libpq_url(four_shards.urls[shard]))
    blocker.execute("INSERT INTO customers (id, name, version) VALUES (1, 'first', 1)")
    done: list[int] = []

    def copy() -> None:
        with ShardedSession(four_shards.cluster) as session:
            done.append(session.copy_from(m.Customer, counted()).rows)

    tracemalloc.start()
    thread = threading.Thread(target=copy)
    thread.start()
    try:
        eventually(lambda: ask(four_shards.urls[shard], WAITING) == [(1,)], "a lock")
        eventually(lambda: _is_steady(lambda: given), "that no more rows are read")
        held, _ = tracemalloc.get_traced_memory()
        at_once = given
    finally:
        blocker.rollback()
        blocker.close()
        thread.join(timeout=60)
        tracemalloc.stop()

    assert at_once < 60_000
    assert held < 12 * BACKLOG_BYTES
    assert done == [60_000]


def test_a_lost_server_ends_the_copy_and_nothing_is_stored(four_shards: World) -> None:
    m = four_shards.models
    assert four_shards.cluster is not None
    lost = four_shards.cluster.shard_for(m.Customer, 1)
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY customers%'"
        " AND datname = current_database()"
    )

    def rows() -> Iterator[dict[str, Any]]:
        yield from big_rows(3000)
        ask(four_shards.urls[lost], end)
        yield from ({**row, "id": row["id"] + 3000} for row in big_rows(30_000))

    with ShardedSession(four_shards.cluster) as session:
        with pytest.raises(OperationalError, match=f"shard: {lost}"):
            session.copy_from(m.Customer, rows())
        session.rollback()
        session.copy_from(m.Customer, big_rows(10))
        session.commit()

    assert len(four_shards.rows("SELECT id FROM customers")) == 10


def test_a_copy_of_reference_rows_and_an_insert_meet_on_the_first_shard(
    four_shards: World,
) -> None:
    m = four_shards.models
    assert four_shards.cluster is not None
    begun, ended = threading.Event(), threading.Event()

    def sent(_: int) -> None:
        if not begun.is_set():
            begun.set()
            eventually(lambda: ask(four_shards.urls["s0"], WAITING) == [(1,)], "the insert")

    def copy() -> None:
        with ShardedSession(four_shards.cluster) as session:
            session.copy_from(m.Region, [(f"r{n}", "copied") for n in range(100)], progress=sent)
            session.commit()
        ended.set()

    thread = threading.Thread(target=copy)
    thread.start()
    begun.wait(60)
    with ShardedSession(four_shards.cluster) as session:
        session.execute(insert(m.Region), [{"code": "c", "name": "inserted"}])
        assert ended.wait(60)
        session.commit()
    thread.join()

    stored = four_shards.rows_by_shard("SELECT code FROM regions")
    assert [len(codes) for codes in stored.values()] == [101] * 4


class TestOneConnection:
    """The COPY of one connection, without a cluster."""

    def test_pieces_are_sent_and_counted(self, connections: dict[str, ShardConnection]) -> None:
        connection = next(iter(connections.values()))
        connection.execute("CREATE TEMP TABLE t (a int)")
        copy = CopyIn(connection)
        copy.begin(b"COPY t FROM STDIN")
        for number in range(1000):
            copy.add(b"%d\n" % number)
        copy.push()
        stored = copy.end()

        assert stored == 1000
        assert connection.execute("SELECT sum(a) FROM t").fetchone() == (499_500,)

    def test_what_the_server_refuses_is_raised_at_the_beginning_or_the_end(
        self, connections: dict[str, ShardConnection]
    ) -> None:
        connection = next(iter(connections.values()))
        with pytest.raises(psycopg.errors.UndefinedTable):
            CopyIn(connection).begin(b"COPY missing FROM STDIN")
        connection.rollback()
        connection.execute("CREATE TEMP TABLE t (a int)")
        copy = CopyIn(connection)
        copy.begin(b"COPY t FROM STDIN")
        copy.add(b"no number\n")
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            copy.end()

        assert not copy.is_open
        connection.rollback()

    def test_a_refusal_is_known_before_the_end(
        self, connections: dict[str, ShardConnection]
    ) -> None:
        connection = next(iter(connections.values()))
        connection.execute("CREATE TEMP TABLE t (a int)")
        copy = CopyIn(connection)
        copy.begin(b"COPY t FROM STDIN")
        copy.add(b"1\n")
        copy.push()
        known_too_early = copy.has_failed()
        copy.add(b"no number\n" * 100)
        copy.push()
        eventually(copy.has_failed, "that it is known")
        copy.add(b"1\n" * 1000)
        copy.push()

        assert not known_too_early
        assert copy.backlog == 0
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            copy.end()
        connection.rollback()

    def test_notices_do_not_stop_the_rows(self, connections: dict[str, ShardConnection]) -> None:
        connection = next(iter(connections.values()))
        connection.execute(
            "CREATE TEMP TABLE t (a text);"
            " CREATE FUNCTION pg_temp.tell() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE NOTICE '%', repeat('x', 1000); RETURN NEW; END $$;"
            " CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.tell()"
        )
        told: list[Any] = []
        connection.add_notice_handler(told.append)
        copy = CopyIn(connection)
        copy.begin(b"COPY t FROM STDIN")
        for _ in range(100):
            copy.add(b"some text\n" * 200)
            copy.push()
            copy.drain(0)
        stored = copy.end()

        assert stored == len(told) == 20_000

    def test_a_copy_that_is_given_up_leaves_the_connection_usable(
        self, connections: dict[str, ShardConnection]
    ) -> None:
        connection = next(iter(connections.values()))
        connection.execute("CREATE TEMP TABLE t (a int)")
        connection.commit()
        copy = CopyIn(connection)
        connection.execute("SELECT 1")
        copy.begin(b"COPY t FROM STDIN")
        copy.add(b"1\n" * 100_000)
        copy.abort()
        connection.rollback()

        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


def _copying(urls: Mapping[str, str]) -> int:
    return sum(ask(url, COPYING)[0][0] for url in urls.values())


def _is_steady(value: Any) -> bool:
    before, pause = value(), threading.Event()
    pause.wait(0.3)
    return before > 0 and before == value()
