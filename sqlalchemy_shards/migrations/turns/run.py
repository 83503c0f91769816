"""Which shards an Alembic command goes through in one process, and over which connections.

A `Run` is all that ``env.py`` sees of whoever started it. The runner of ``shards migrate`` puts its
own into the attributes of Alembic's configuration; without one, the command goes through the
shards that its ``-x`` names, one after the other.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import psycopg
from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards.migrations.turns.bounds import Bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, MetaData

    from sqlalchemy_shards.cluster.cluster import Cluster

RUN_KEY: Final = "sqlalchemy_shards.run"
"""The name in ``Config.attributes`` under which a runner puts its `Run`."""


def always(context: MigrationContext) -> bool:
    """Leave it to Alembic whether there is anything to do."""
    del context
    return True


@dataclass(frozen=True, slots=True)
class Task:
    """What an Alembic command asks of every shard.

    :param command: its name: ``"upgrade"``, ``"downgrade"``, ``"stamp"`` and so on.
    :param target: the revisions that it was given, as they were written, if it was given any.
    :param options: what ``env.py`` says to ``context.configure()``.
    :param metadata: the models' tables, as ``env.py`` gives them.
    :param bounds: how long migrations wait, as ``env.py`` and ``-x`` say.
    """

    command: str
    target: str | None
    options: Mapping[str, Any]
    script: ScriptDirectory
    metadata: MetaData | Sequence[MetaData] | None = None
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True, slots=True)
class Turn:
    """One shard whose turn it is.

    :param connection: where its migrations run; no transaction is open.
    :param options: for ``context.configure()``, beside those of ``env.py``; who is told of each
        step (``on_version_apply``) is told beside, and before, whom ``env.py`` names.
    :param is_due: asked within the transaction, when Alembic knows the shard: whether its
        migrations are to run at all.
    """

    shard: str
    connection: Connection
    options: Mapping[str, Any] = field(default_factory=dict)
    is_due: Callable[[MigrationContext], bool] = always


class Run(Protocol):
    """Goes through shards."""

    def turns(self, cluster: Cluster, task: Task) -> Iterator[AbstractContextManager[Turn]]:
        """Give the shards their turns, one after the other.

        A shard may have its turn again, where its migrations were rolled back and may succeed now.
        Each is entered, and left with the error of its migrations if they fail; it may swallow that
        for the next one to have its turn. What is to happen after the last one happens when the
        iterator is asked for more, and what is to be cleared away when it is closed.
        """
        ...


class JustLooking:
    """Each of some shards over a connection of its own, for a command that migrates nothing.

    :param shards: their names, in their order.
    """

    def __init__(self, shards: Sequence[str]) -> None:
        self._shards = shards

    def turns(self, cluster: Cluster, task: Task) -> Iterator[AbstractContextManager[Turn]]:
        """Give the shards their turns."""
        del task
        for shard in self._shards:
            yield connected(cluster, shard)


@contextmanager
def connected(cluster: Cluster, shard: str) -> Iterator[Turn]:
    """A shard's turn, over a connection that is closed behind it.

    In a pool it would stay open: one for each of all shards, which may be hundreds of one server.
    """
    with connect(cluster, shard) as connection:
        try:
            yield Turn(shard, connection)
        finally:
            # Not before: autocommit_block() has to lead a connection out of its transaction.
            if not connection.closed and not connection.invalidated:
                connection.detach()


def connect(cluster: Cluster, shard: str) -> Connection:
    """A connection of a shard's engine.

    :raises ShardUnavailable: it cannot be reached.
    """
    try:
        return cluster.shards[shard].engine.connect()
    except (psycopg.Error, DBAPIError) as error:
        raise cluster.shards[shard].unavailable(error) from error


def run_of(config: Config) -> Run | None:
    """The run that a runner has begun, if one has."""
    run: Run | None = config.attributes.get(RUN_KEY)
    return run
