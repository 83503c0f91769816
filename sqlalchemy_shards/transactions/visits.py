"""The connections of one recovery, and asking all shards at once over them.

- A shard is verified when it is connected: it has the identity that its name promises, and is no
  standby. It cannot become one under an open connection, since it would have to restart.
- A shard that fails or does not answer in time is dropped with its error, and asked no more; the
  others are held up by it once, for the time limit of one step.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg import IsolationLevel

from sqlalchemy_shards.catalog.identity import IdentityRegistry, read_identity
from sqlalchemy_shards.connections.fan_out import Branch
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions.finishing import UNREACHABLE
from sqlalchemy_shards.transactions.inventory import check_primary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import psycopg

    from sqlalchemy_shards.catalog.identity import Identity
    from sqlalchemy_shards.connections.fan_out import FanOut
    from sqlalchemy_shards.transactions.finishing import Connect

    Work = Callable[[psycopg.Connection[Any], Identity], "T"]

T = TypeVar("T")

STEP_SECONDS = 10.0
"""How long one step may take on all shards together before those that did not answer are dropped.
The steps are made small enough for it."""


class Visits:
    """Connections to the shards of a cluster, opened when they are needed.

    :param seconds: bound of one step.
    """

    def __init__(
        self,
        connect: Connect,
        identities: IdentityRegistry,
        fan_out: FanOut,
        *,
        seconds: float = STEP_SECONDS,
    ) -> None:
        self._connect = connect
        self._identities = identities
        self._fan_out = fan_out
        self._seconds = seconds
        self._stack = ExitStack()
        self._open: dict[str, psycopg.Connection[Any]] = {}
        self.unreachable: dict[str, BaseException] = {}

    def __enter__(self) -> Visits:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def ask(self, work: Mapping[str, Work[T]]) -> dict[str, T]:
        """Do the work of each shard at once; shards that are dropped, or were before, are missing.

        :param work: shard -> what to do there with its connection, which is idle, in autocommit
            mode, and begins its transactions READ COMMITTED.
        """
        branches = [
            Branch(name, partial(self._visit, name, visit), partial(self._open.get, name))
            for name, visit in work.items()
            if name not in self.unreachable
        ]
        if not branches:
            return {}
        done = {}
        for outcome in self._fan_out.run(branches, deadline_seconds=self._seconds):
            if outcome.error is None:
                done[outcome.shard] = outcome.result()
            elif isinstance(outcome.error, UNREACHABLE):
                self.unreachable[outcome.shard] = outcome.error
                self._open.pop(outcome.shard, None)
            else:
                raise outcome.error
        return done

    def _visit(self, name: str, work: Work[T]) -> T:
        if name not in self._open:
            self._verify(name)
        identity = self._identities.of(name)
        if identity is None:
            raise ConfigurationError(
                f"the identity of shard {name!r} is not known", "make a new Cluster", shard=name
            )
        return work(self._open[name], identity)

    def _verify(self, name: str) -> None:
        connection = self._stack.enter_context(self._connect(name))
        identity = read_identity(connection)
        check_primary(connection, name, identity)
        if identity is not None:
            self._identities.admit(name, identity)
        # Whatever the role or the database has as default.
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        connection.read_only = False
        self._open[name] = connection
