"""Three shards with an account each, a proxy before each server, and what a test asks them.

`s0` is the decision shard of a transaction on all of them, since its name is the smallest. What is
asked goes past the proxies, over connections that a crash of the server does not spoil.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import make_url

from sqlalchemy_shards import Keyspace, ListPartitioner, Timeouts, create_cluster
from sqlalchemy_shards.testing.databases import ScratchDatabase
from tests import waiting
from tests.databases import libpq_url
from tests.faults.models import Base
from tests.faults.proxy import Proxy

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

SHARDS = ("s0", "s1", "s2")
START = 100
DEADLINE_SECONDS = 30.0
TESTING = "faults-test"
"""Name of the sessions that are the test's own."""

PATIENT = Timeouts(
    round_seconds=20.0,
    decision_seconds=20.0,
    settle_seconds=20.0,
    finish_seconds=20.0,
    rollback_seconds=20.0,
)
"""For faults that the client notices at once, and that pass."""

RESIGNED = replace(PATIENT, settle_seconds=0.5, finish_seconds=2.0)
"""For servers that stay down: what is tried again and again is given up early."""

HASTY = Timeouts(
    round_seconds=0.7,
    decision_seconds=0.7,
    settle_seconds=1.5,
    finish_seconds=2.0,
    rollback_seconds=1.5,
)
"""For connections that hang: the client gives up waiting."""


def keyspaces() -> dict[str, Keyspace]:
    """A key is the name of its shard."""
    lists = ListPartitioner({name: [name] for name in SHARDS})
    return {"default": Keyspace(lists, placement={name: name for name in SHARDS})}


@contextmanager
def cluster_of(urls: Mapping[str, str], timeouts: Timeouts = PATIENT) -> Iterator[Cluster]:
    """A cluster as a process of the application has it."""
    cluster = create_cluster(urls, name="bank", keyspaces=keyspaces(), timeouts=timeouts)
    fan_out: Any = cluster.fan_out.concurrent
    fan_out.drain_seconds = 0.2
    try:
        yield cluster
    finally:
        cluster.dispose()


@dataclass
class World:
    """The shards of one test run; `reset` makes them as new."""

    servers: PostgresServers
    direct: Mapping[str, str]
    proxies: Mapping[str, Proxy]
    _connections: dict[str, psycopg.Connection[Any]] = field(default_factory=dict)
    _restarting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def urls(self) -> dict[str, str]:
        """What leads through the proxies."""
        return {name: _through(self.proxies[name], url) for name, url in self.direct.items()}

    # -- asking --

    def ask(self, shard: str, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a statement on one shard, past its proxy."""
        try:
            return self._ask(shard, sql)
        except psycopg.OperationalError:
            if shard in self._connections:  # and the server was restarted since it was opened
                self._connections.pop(shard).close()
            return self._ask(shard, sql)

    def amounts(self) -> dict[str, int]:
        return {name: self.ask(name, "SELECT amount FROM account")[0][0] for name in SHARDS}

    def prepared(self) -> dict[str, int]:
        """How many transactions are prepared, on the shards that have any."""
        count = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"
        found = {name: self.ask(name, count)[0][0] for name in SHARDS}
        return {name: number for name, number in found.items() if number}

    def decisions(self) -> list[str]:
        """Outcomes of the decision rows of all shards."""
        rows = [self.ask(name, "SELECT outcome FROM shards.decisions") for name in SHARDS]
        return [outcome for found in rows for (outcome,) in found]

    @contextmanager
    def held_xid(self, shard: str) -> Iterator[None]:
        """Let a transaction live on, so that the shard cannot tell that a younger one is over."""
        connection = psycopg.connect(libpq_url(self.direct[shard]), application_name=TESTING)
        try:
            connection.execute("SELECT pg_current_xact_id()")
            yield
        finally:
            connection.close()

    # -- breaking --

    def kill_server(self, shard: str, *, is_noticed: bool = False) -> None:
        """Kill the postmaster and all its children.

        :param is_noticed: wait until clients find their connections closed.
        """
        with self._restarting:
            self.servers.kill(SHARDS.index(shard))
        if is_noticed:
            eventually(lambda: not self.proxies[shard].backends(), f"the end of links to {shard}")

    def kill_backend(self, shard: str) -> None:
        """Kill server processes, and wait until the server has restarted all of them."""
        own = self.ask(shard, "SELECT pg_backend_pid()")[0][0]
        for pid in self.proxies[shard].backends():
            with suppress(ProcessLookupError):  # its client had gone, and so it ended by itself
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: self._answers(shard, but=own), f"restart of {shard}")

    def kill_some_backend(self, shard: str, chance: random.Random) -> None:
        """Kill any server process that serves a client, if there is one, and wait for nothing."""
        if backends := self.proxies[shard].backends():
            with suppress(ProcessLookupError):
                os.kill(chance.choice(backends), signal.SIGKILL)

    def start_server(self, shard: str) -> None:
        """Start a server that was killed."""
        with self._restarting:
            self.servers.start(SHARDS.index(shard))

    def revive(self) -> None:
        """End every fault: servers run, the network is whole, and what it broke off is over."""
        for name in SHARDS:
            self.start_server(name)
        for name, proxy in self.proxies.items():
            proxy.heal()
            eventually(lambda name=name: self._answers(name), f"answer of {name}")  # type: ignore[misc]

    def wait_for_idle(self) -> None:
        """Wait until no client has a transaction open, so that what is left is left for good."""
        busy = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
            f" AND application_name <> '{TESTING}' AND backend_type = 'client backend'"
            " AND state <> 'idle'"
        )
        for name in SHARDS:
            eventually(lambda name=name: not self.ask(name, busy), f"silence on {name}")  # type: ignore[misc]

    def reset(self) -> None:
        """As new: nothing prepared, no decision, every amount as at the start."""
        self.revive()
        for proxy in self.proxies.values():
            proxy.close_links()
        for name in SHARDS:
            for (gid,) in self.ask(
                name, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
            ):
                self.ask(name, f"ROLLBACK PREPARED '{gid}'")
        self.wait_for_idle()
        for name in SHARDS:
            self.ask(name, f"UPDATE account SET amount = {START}")
            self.ask(name, "DELETE FROM slot; DELETE FROM shards.decisions")

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _ask(self, shard: str, sql: str) -> list[tuple[Any, ...]]:
        if shard not in self._connections:
            self._connections[shard] = psycopg.connect(
                libpq_url(self.direct[shard]),
                autocommit=True,
                options="-c lock_timeout=20s",
                application_name=TESTING,
            )
        cursor = self._connections[shard].execute(sql.encode())
        return cursor.fetchall() if cursor.description else []

    def _answers(self, shard: str, *, but: int | None = None) -> bool:
        if but is not None and Path(f"/proc/{but}").exists():
            return False
        with suppress(psycopg.OperationalError):
            return bool(self.ask(shard, "SELECT 1"))
        return False


@contextmanager
def new_world(servers: PostgresServers) -> Iterator[World]:
    """Databases, proxies and tables, made once."""
    with ExitStack() as stack:
        urls = {}
        for number, name in enumerate(SHARDS):
            servers.start(number)
            database = ScratchDatabase(servers.url(number), f"faults_{name}")
            urls[name] = stack.enter_context(database).url
        proxies = {name: stack.enter_context(Proxy(_socket_of(url))) for name, url in urls.items()}
        with cluster_of(urls) as cluster:
            cluster.create_all(Base.metadata)
        world = World(servers, urls, proxies)
        for name in SHARDS:
            world.ask(
                name,
                f"INSERT INTO account VALUES ('{name}', {START});"
                "CREATE TABLE slot (number int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
            )
        yield world
        world.revive()
        world.close()


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so, also on a machine where servers are killed all the time."""
    waiting.eventually(condition, what, seconds=DEADLINE_SECONDS)


def _socket_of(url: str) -> Path:
    query = make_url(url).query
    return Path(str(query["host"])) / f".s.PGSQL.{query['port']}"


def _through(proxy: Proxy, url: str) -> str:
    reached = make_url(url).set(
        host="127.0.0.1",
        port=proxy.port,
        query={"sslmode": "disable", "gssencmode": "disable", "connect_timeout": "5"},
    )
    return reached.render_as_string(hide_password=False)
