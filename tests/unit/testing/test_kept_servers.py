"""Servers that keep their data: a second run goes on with them, and nobody loses any."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psycopg
import pytest

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.testing.binaries import find_binaries
from sqlalchemy_shards.testing.processes import processes_of
from sqlalchemy_shards.testing.servers import PostgresServers

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

KEEPING = """
import sys
from sqlalchemy_shards.testing.servers import PostgresServers

with PostgresServers(1, directory=sys.argv[1], keep=True) as servers:
    print(servers.url(0, driver="postgresql"), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def directory(temporary_root) -> Path:
    return temporary_root / "kept" / "here"


def write(url: str, value: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (i int)")
        connection.execute("INSERT INTO t VALUES (%s)", (value,))


def read(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        return [i for (i,) in connection.execute("SELECT i FROM t ORDER BY i")]


def test_a_second_run_finds_the_data_of_the_first(directory):
    for value in (1, 2):
        with PostgresServers(1, directory=directory, keep=True) as servers:
            url = servers.url(0, driver="postgresql")
            write(url, value)
            found = read(url)

    assert found == [1, 2]
    assert processes_of(directory) == []


def test_a_larger_second_run_adds_empty_servers(directory):
    with PostgresServers(1, directory=directory, keep=True) as servers:
        write(servers.url(0, driver="postgresql"), 1)

    with PostgresServers(2, directory=directory, keep=True) as servers:
        assert read(servers.url(0, driver="postgresql")) == [1]
        with pytest.raises(psycopg.errors.UndefinedTable):
            read(servers.url(1, driver="postgresql"))


def test_the_data_of_a_killed_run_are_taken_over(directory, run_python):
    first = run_python("-c", KEEPING, str(directory))
    write(first.stdout.readline().strip(), 1)
    first.kill()
    first.wait()

    with PostgresServers(1, directory=directory, keep=True) as servers:
        assert read(servers.url(0, driver="postgresql")) == [1]


def test_a_directory_in_use_is_refused_and_left_alone(directory, run_python):
    first = run_python("-c", KEEPING, str(directory))
    url = first.stdout.readline().strip()

    with (
        pytest.raises(ConfigurationError, match=f"process {first.pid} runs servers in"),
        PostgresServers(1, directory=directory, keep=True),
    ):
        pytest.fail("it started")

    write(url, 1)
    assert read(url) == [1]
    first.communicate("")


def test_without_keep_nothing_is_left_in_the_directory(directory):
    with PostgresServers(2, directory=directory):
        assert (directory / "d1").is_dir()

    assert list(directory.iterdir()) == []


def test_without_keep_data_that_were_there_are_not_removed(directory):
    with PostgresServers(1, directory=directory, keep=True) as servers:
        write(servers.url(0, driver="postgresql"), 1)

    with (
        pytest.raises(ConfigurationError, match="pass keep=True"),
        PostgresServers(1, directory=directory),
    ):
        pytest.fail("it started")

    assert (directory / "d0" / "PG_VERSION").exists()


def test_keeping_needs_a_directory():
    with pytest.raises(ConfigurationError, match="pass directory="):
        PostgresServers(1, keep=True)


def test_data_of_another_version_are_refused_and_left_alone(directory):
    versions = {}
    for backend in ("system", "embedded"):
        try:
            find_binaries(backend)
        except ConfigurationError as error:
            pytest.skip(str(error))
        versions[backend] = PostgresServers(1, backend=backend).version
    if len(set(versions.values())) == 1:
        pytest.skip("both backends have the same version")
    with PostgresServers(1, backend="system", directory=directory, keep=True):
        pass

    with (
        pytest.raises(ConfigurationError, match=f"holds data of PostgreSQL {versions['system']}"),
        PostgresServers(1, backend="embedded", directory=directory, keep=True),
    ):
        pytest.fail("it started")

    assert (directory / "d0" / "PG_VERSION").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers under another user")
def test_a_directory_that_the_servers_cannot_enter_is_an_error(temporary_root):
    (temporary_root / "closed").mkdir(mode=0o700)

    with (
        pytest.raises(ConfigurationError, match="cannot enter"),
        PostgresServers(1, directory=temporary_root / "closed", keep=True),
    ):
        pytest.fail("it started")
