"""Real PostgreSQL servers for the tests of this project.

`clean_shards` is what most tests want: four empty databases, each on a server of its own, called
like their shards, so that `SELECT current_database()` tells where a statement ran. Servers are
this process's own; a test may stop, kill and start them, and the next test finds them running.

`SHARDS_TEST_BACKEND` chooses the programs: `system` (Debian's), `embedded` (the wheel), or `auto`.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from sqlalchemy_shards.testing.databases import ScratchDatabase
from sqlalchemy_shards.testing.servers import PostgresServers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHARDS = ("s0", "s1", "s2", "s3")


def pytest_configure() -> None:
    """Let Ctrl-C interrupt: a run in the background is started with the signal ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin what takes longest first, so that the workers of pytest-xdist end together."""
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)


@pytest.fixture(scope="session")
def servers() -> Iterator[PostgresServers]:
    """Four PostgreSQL servers; `servers.stop(i)`, `.kill(i)`, `.start(i)`, `.version`."""
    backend = os.environ.get("SHARDS_TEST_BACKEND", "auto")
    with PostgresServers(len(SHARDS), backend=backend) as servers:
        yield servers


@pytest.fixture(scope="session")
def _databases(servers: PostgresServers) -> Iterator[Mapping[str, ScratchDatabase]]:
    with ExitStack() as stack:
        databases = {
            name: stack.enter_context(ScratchDatabase(servers.url(number), name))
            for number, name in enumerate(SHARDS)
        }
        yield databases
        _start_all(servers)


@pytest.fixture(scope="session")
def urls(_databases: Mapping[str, ScratchDatabase]) -> dict[str, str]:
    """URLs of four databases called `s0` to `s3`, each on its own server; emptied by nobody."""
    return {name: database.url for name, database in _databases.items()}


@pytest.fixture
def clean_shards(
    servers: PostgresServers,
    urls: dict[str, str],
    _databases: Mapping[str, ScratchDatabase],
) -> Iterator[dict[str, str]]:
    """The same URLs; the databases are empty, without prepared transactions, and all servers run.

    They are emptied before and after the test.
    """
    _start_all(servers)
    for database in _databases.values():
        database.empty()
    yield dict(urls)
    _start_all(servers)
    for database in _databases.values():
        database.empty()


@pytest.fixture(scope="session")
def _one_database(servers: PostgresServers) -> Iterator[ScratchDatabase]:
    with ScratchDatabase(servers.url(0), "one") as database:
        yield database
        _start_all(servers)


@pytest.fixture
def one_database_url(servers: PostgresServers, _one_database: ScratchDatabase) -> Iterator[str]:
    """URL of an empty database on server 0: what one PostgreSQL would have answered."""
    _start_all(servers)
    _one_database.empty()
    yield _one_database.url
    _start_all(servers)
    _one_database.empty()


@pytest.fixture(scope="session")
def _one_server(servers: PostgresServers) -> Iterator[Mapping[str, ScratchDatabase]]:
    with ExitStack() as stack:
        databases = {
            name: stack.enter_context(ScratchDatabase(servers.url(0), f"together_{name}"))
            for name in SHARDS
        }
        yield databases
        _start_all(servers)


@pytest.fixture
def one_server_urls(
    servers: PostgresServers, _one_server: Mapping[str, ScratchDatabase]
) -> Iterator[dict[str, str]]:
    """URLs of four empty databases of one server (`s0` to `s3`), which share names of gids."""
    _start_all(servers)
    for database in _one_server.values():
        database.empty()
    yield {name: database.url for name, database in _one_server.items()}
    _start_all(servers)
    for database in _one_server.values():
        database.empty()


def _start_all(servers: PostgresServers) -> None:
    for number in range(servers.count):
        servers.start(number)
