"""Transactions over several shards, as a cluster connection would commit them, for the tests."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.conninfo import make_conninfo

from sqlalchemy_shards.catalog.identity import IdentityRegistry, read_identity
from sqlalchemy_shards.catalog.schema import bootstrap_cluster
from sqlalchemy_shards.connections.fan_out import SequentialFanOut
from sqlalchemy_shards.connections.hub import GreenletFanOut, ShardConnection
from sqlalchemy_shards.events import Event, Hooks
from sqlalchemy_shards.transactions.commit import CommitResult, Coordinator
from sqlalchemy_shards.transactions.recovery import Recovery
from sqlalchemy_shards.transactions.rounds import CommitTimeouts
from tests.databases import libpq_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import psycopg

    from sqlalchemy_shards.connections.fan_out import FanOut

CRASHED = 17
CRASHING = "shards-test-crashing"
TIMEOUTS = CommitTimeouts(
    round_seconds=20.0, settle_seconds=1.0, finish_seconds=0.3, rollback_seconds=2.0
)

TABLE = "CREATE TABLE account (id int PRIMARY KEY, amount int NOT NULL)"
DEPOSIT = "UPDATE account SET amount = amount + 1"


@dataclass
class OnShard:
    """An enlisted shard."""

    name: str
    driver: psycopg.Connection[Any]
    wrote: bool | None = None
    cannot_prepare: bool = False
    is_unread: bool = False
    xid: int | None = None

    def run(self, statement: str) -> OnShard:
        self.driver.execute(statement.encode())
        return self

    @property
    def status(self) -> str:
        return self.driver.info.transaction_status.name


class Shards:
    """Four shards with an account each; what a transaction did to them is read off the accounts."""

    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        fan_out: FanOut | None = None,
        timeouts: CommitTimeouts = TIMEOUTS,
    ) -> None:
        self.conninfo = {name: libpq_url(url) for name, url in urls.items()}
        self.identities = IdentityRegistry("shop")
        self.hooks = Hooks()
        self.events: list[Event] = []
        self.hooks.listen(Event, self.events.append)
        self._fan_out = fan_out or GreenletFanOut(drain_seconds=0.5)
        self._timeouts = timeouts
        self.coordinator = self.coordinating(self.connect)
        self._stack = ExitStack()

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def create(self) -> Shards:
        bootstrap_cluster(
            self.connect,
            shard_names=list(self.conninfo),
            cluster_name="shop",
            identities=self.identities,
        )
        self.everywhere(TABLE)
        self.everywhere("INSERT INTO account VALUES (1, 100)")
        return self

    def meet(self) -> Shards:
        """The same as `create`, of shards that were created before."""
        for name in self.conninfo:
            with self.connect(name) as connection:
                identity = read_identity(connection)
            assert identity is not None
            self.identities.admit(name, identity)
        return self

    @contextmanager
    def connect(self, name: str) -> Iterator[psycopg.Connection[Any]]:
        connection = ShardConnection.connect(self.conninfo[name], autocommit=True)
        try:
            yield connection
        finally:
            connection.close()

    def enlist(self, name: str, *, conninfo: str | None = None, **known: Any) -> OnShard:
        driver = ShardConnection.connect(conninfo or self.conninfo[name])
        self._stack.callback(driver.close)
        return OnShard(name, driver, **known)

    def deposit(self, *names: str, wrote: bool | None = None) -> list[OnShard]:
        return [self.enlist(name, wrote=wrote).run(DEPOSIT) for name in names]

    def commit(self, enlisted: Sequence[OnShard]) -> CommitResult:
        return self.coordinator.commit(enlisted)

    def coordinating(
        self, connect: Callable[[str], AbstractContextManager[psycopg.Connection[Any]]]
    ) -> Coordinator:
        """Return a coordinator with a way of its own to open connections where one was lost."""
        return Coordinator(
            "shop",
            identities=self.identities,
            hooks=self.hooks,
            fan_out=self._fan_out,
            connect=connect,
            timeouts=self._timeouts,
        )

    def recovery(self, **options: Any) -> Recovery:
        """Return a recovery as another process would run it, knowing nothing."""
        return Recovery(
            "shop",
            shard_names=list(self.conninfo),
            connect=self.connect,
            identities=IdentityRegistry("shop"),
            hooks=self.hooks,
            **options,
        )

    def fail_at(self, fail_point: str, action: Callable[[str], None]) -> None:
        self.hooks.fail_points = {fail_point: action}

    def everywhere(self, statement: str) -> None:
        for name in self.conninfo:
            self.ask(name, statement)

    def ask(self, name: str, statement: str) -> list[tuple[Any, ...]]:
        with self.connect(name) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def amounts(self) -> dict[str, int]:
        return {n: self.ask(n, "SELECT amount FROM account")[0][0] for n in self.conninfo}

    def prepared(self) -> dict[str, list[str]]:
        listing = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        found = {name: [gid for (gid,) in self.ask(name, listing)] for name in self.conninfo}
        return {name: gids for name, gids in found.items() if gids}

    def decisions(self) -> dict[str, list[str]]:
        rows = {n: self.ask(n, "SELECT outcome FROM shards.decisions") for n in self.conninfo}
        return {name: [outcome for (outcome,) in found] for name, found in rows.items() if found}


def commit_and_crash(
    conninfo: Mapping[str, str], names: Sequence[str], fail_point: str, *, at_once: bool
) -> None:
    """Commit a transaction on shards, and end this process at a fail-point of it."""

    def crash(_: str) -> None:
        os._exit(CRASHED)

    fan_out: FanOut = GreenletFanOut() if at_once else SequentialFanOut()
    with Shards(conninfo, fan_out=fan_out) as shards:
        shards.conninfo = {
            name: make_conninfo(text, application_name=CRASHING) for name, text in conninfo.items()
        }
        enlisted = shards.deposit(*names)
        shards.fail_at(fail_point, crash)
        shards.commit(enlisted)
