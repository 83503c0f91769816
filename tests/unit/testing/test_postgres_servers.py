"""Throwaway servers: they start, can be stopped and killed, and leave nothing."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.testing.binaries import find_binaries
from sqlalchemy_shards.testing.processes import processes_of
from sqlalchemy_shards.testing.servers import PostgresServers

NORMAL_USER = """
import os, sys
import psycopg
from sqlalchemy_shards.testing.servers import PostgresServers

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.chdir("/")
with PostgresServers(2, backend=sys.argv[1]) as servers:
    for number in range(2):
        with psycopg.connect(servers.url(number, driver="postgresql")) as connection:
            connection.execute("SELECT 1")
            (directory,) = connection.execute("SHOW data_directory").fetchone()
        print(os.stat(directory).st_uid, os.getuid())
"""

FORKING = """
import os, sys
from sqlalchemy_shards.testing.servers import PostgresServers

with PostgresServers(1) as servers:
    child = os.fork()
    if child == 0:
        sys.exit(0)
    os.waitpid(child, 0)
    print(servers.is_running(0))
"""


def ask(servers: PostgresServers, number: int, question: str) -> object:
    with psycopg.connect(servers.url(number, driver="postgresql")) as connection:
        return connection.execute(question).fetchone()[0]


def base_of(servers: PostgresServers) -> Path:
    return Path(make_url(servers.url(0)).query["host"]).parent


@pytest.fixture
def server(servers):
    """Number of a server that the test may end."""
    yield 3
    servers.start(3)


def test_four_servers_start_and_leave_nothing(temporary_root, backend, record_property):
    began = time.perf_counter()
    with PostgresServers(4, backend=backend) as servers:
        record_property("start_seconds", round(time.perf_counter() - began, 2))
        versions = [ask(servers, number, "SHOW server_version_num") for number in range(4)]
        assert {int(version) // 10_000 for version in versions} == {servers.version}
        (base,) = temporary_root.glob("pg-shards-*")

    assert processes_of(base) == []
    assert list(temporary_root.glob("pg-shards-*")) == []


def test_urls_serve_sqlalchemy_and_libpq(servers):
    engine = sqlalchemy.create_engine(servers.url(0))
    with engine.connect() as connection:
        answer = connection.exec_driver_sql("SELECT 1").scalar()
    engine.dispose()

    assert answer == 1
    assert ask(servers, 0, "SELECT current_database()") == "postgres"


def test_only_our_user_can_reach_the_sockets(servers):
    sockets = base_of(servers) / "s"

    assert sockets.stat().st_mode & 0o777 == 0o700
    assert ask(servers, 0, "SHOW listen_addresses") == ""


def test_servers_suit_tests_of_two_phase_commit(servers):
    assert ask(servers, 0, "SHOW max_prepared_transactions") == "64"
    assert ask(servers, 0, "SHOW synchronous_commit") == "on"
    assert ask(servers, 0, "SHOW wal_level") == "logical"


def test_databases_are_utf8_in_the_c_locale(servers):
    assert ask(servers, 0, "SHOW server_encoding") == "UTF8"
    locale = "SELECT datcollate FROM pg_database WHERE datname = current_database()"
    assert ask(servers, 0, locale) == "C"


def test_settings_of_the_caller_win(temporary_root):
    with PostgresServers(1, settings={"max_prepared_transactions": 0}) as servers:
        assert ask(servers, 0, "SHOW max_prepared_transactions") == "0"
        assert ask(servers, 0, "SHOW fsync") == "off"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_prepared_transactions_survive_the_end_of_a_server(servers, server, end):
    url = servers.url(server, driver="postgresql")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("BEGIN; CREATE TABLE t (i int); PREPARE TRANSACTION 'kept'")

    getattr(servers, end)(server)
    servers.start(server)

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ROLLBACK PREPARED 'kept'")


def test_killing_leaves_no_process_even_with_a_session_at_work(servers, server):
    data = base_of(servers) / f"d{server}"
    with psycopg.connect(servers.url(server, driver="postgresql")) as connection:
        connection.execute("SELECT 1")

        servers.kill(server)

        assert processes_of(data) == []
        assert not servers.is_running(server)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_stopping_and_starting_twice_is_once(servers, server):
    servers.start(server)
    servers.stop(server)
    servers.stop(server)
    assert not servers.is_running(server)

    servers.start(server)
    servers.start(server)

    assert ask(servers, server, "SELECT 1") == 1


@pytest.mark.skipif(not Path("/proc/sysvipc/shm").exists(), reason="Linux tells of segments")
def test_a_killed_server_leaves_no_shared_memory(temporary_root):
    with PostgresServers(1) as servers:
        (pid_file,) = temporary_root.glob("pg-shards-*/d0/postmaster.pid")
        segment = pid_file.read_text().splitlines()[6].split()[1]
        servers.kill(0)

    segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    assert segment not in [line.split()[1] for line in segments]


def test_a_server_that_does_not_start_shows_its_log(temporary_root):
    with (
        pytest.raises(ConfigurationError, match=r"(?s)its log ends in.*no_such_setting"),
        PostgresServers(2, settings={"no_such_setting": "on"}),
    ):
        pytest.fail("it started")

    assert list(temporary_root.glob("pg-shards-*")) == []


def test_servers_work_for_a_normal_user(temporary_root, backend, run_python):
    if os.geteuid() == 0:
        os.chown(temporary_root, 65534, 65534)
        if not all(parent.stat().st_mode & 0o001 for parent in find_binaries(backend).parents):
            pytest.skip("another user cannot enter the directory of the programs")

    output = run_python("-c", NORMAL_USER, backend).communicate()[0]

    users = {user for line in output.splitlines() for user in line.split()}
    assert users == {str(os.geteuid() or 65534)}, output
    assert list(temporary_root.glob("pg-shards-*")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers under another user")
def test_root_can_use_programs_that_the_other_user_cannot_read(temporary_root, monkeypatch):
    try:
        package = find_binaries("embedded").parents[1]
    except ConfigurationError as error:
        pytest.skip(str(error))
    hidden = temporary_root / "hidden"
    hidden.mkdir(mode=0o700)
    for part in (package, package.with_name(package.name + ".libs")):
        if part.exists():
            shutil.copytree(part, hidden / part.name, symlinks=True)
    programs = hidden / package.name / "pginstall" / "bin"
    monkeypatch.setenv("PG_POSTGRES", str(programs / "postgres"))

    with PostgresServers(1) as servers:
        assert ask(servers, 0, "SELECT 1") == 1

    assert (programs / "postgres").stat().st_nlink == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers under another user")
def test_root_can_have_a_temporary_directory_that_the_other_user_cannot_enter(temporary_root):
    temporary_root.chmod(0o700)

    with PostgresServers(1) as servers:
        assert ask(servers, 0, "SELECT 1") == 1


def test_a_forked_process_does_not_end_the_servers(temporary_root, run_python):
    assert run_python("-c", FORKING).communicate()[0] == "True\n"


def test_servers_outside_of_with_are_an_error():
    with pytest.raises(ConfigurationError, match="not started"):
        PostgresServers(1).url(0)
