"""The databases that tests get are empty, whatever the test before did to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy.engine import make_url

from sqlalchemy_shards.testing.databases import ScratchDatabase
from tests.databases import libpq_url

if TYPE_CHECKING:
    from sqlalchemy_shards.testing.servers import PostgresServers


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(libpq_url(url))


@pytest.fixture
def database(servers: PostgresServers):
    with ScratchDatabase(servers.url(0), "scratch") as database:
        yield database


def schemas(database: ScratchDatabase) -> set[str]:
    with connect(database.url) as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'")
        return {name for (name,) in rows} - {"information_schema"}


def test_emptying_drops_every_schema_and_leaves_an_empty_public(database):
    with connect(database.url) as connection:
        connection.execute('CREATE SCHEMA "Odd, one"; CREATE TABLE "Odd, one".t (i int)')
        connection.execute("CREATE SCHEMA shards; CREATE TABLE t (i int)")

    database.empty()

    assert schemas(database) == {"public"}
    with connect(database.url) as connection:
        assert connection.execute("SELECT to_regclass('public.t')").fetchone() == (None,)


def test_emptying_rolls_back_prepared_transactions_of_this_database_only(database, servers):
    with ScratchDatabase(servers.url(0), "neighbour") as neighbour:
        for url, gid in ((database.url, "mine"), (neighbour.url, "its")):
            with connect(url) as connection:
                connection.execute("CREATE TABLE t (i int)")
                connection.execute(f"PREPARE TRANSACTION '{gid}'")

        database.empty()

        with connect(neighbour.url) as connection:
            left = connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall()
        assert left == [("its",)]


def test_emptying_ends_a_session_that_was_left_open_with_locks(database):
    with connect(database.url) as connection:
        connection.execute("CREATE TABLE t (i int)")
    left_open = connect(database.url)
    left_open.execute("LOCK TABLE t")

    database.empty()

    assert schemas(database) == {"public"}
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    left_open.close()


def test_emptying_works_after_the_server_was_killed(database, servers):
    database.empty()
    servers.kill(0)
    servers.start(0)

    database.empty()

    assert schemas(database) == {"public"}


def test_a_database_with_sessions_and_prepared_transactions_is_dropped(servers):
    with ScratchDatabase(servers.url(1), "scratch") as database:
        left_open = connect(database.url)
        with connect(database.url) as connection:
            connection.execute("CREATE TABLE t (i int)")
            connection.execute("PREPARE TRANSACTION 'left'")

    left_open.close()
    with connect(servers.url(1)) as connection:
        names = connection.execute("SELECT datname FROM pg_database WHERE datname = 'scratch'")
        assert names.fetchall() == []


def test_shards_tell_where_a_statement_ran(clean_shards):
    answers = {}
    for name, url in clean_shards.items():
        with connect(url) as connection:
            answers[name] = connection.execute("SELECT current_database()").fetchone()[0]

    assert answers == {name: name for name in ("s0", "s1", "s2", "s3")}


def test_databases_of_one_server_are_on_one_server(one_server_urls, one_database_url):
    ports = {make_url(url).query["port"] for url in (*one_server_urls.values(), one_database_url)}

    assert len(one_server_urls) == 4
    assert ports == {"5432"}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_server_that_a_test_ended_runs_in_the_next_one(servers, clean_shards, end):
    getattr(servers, end)(2)
    assert not servers.is_running(2)

    servers.start(2)

    with connect(clean_shards["s2"]) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
