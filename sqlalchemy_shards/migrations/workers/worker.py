"""A worker: a process that loads ``env.py`` once and migrates the shards that it is given.

It reads a job and shards from its standard input, and writes messages to its standard output; what
``env.py`` and the revisions print goes to its standard error. It takes one shard at a time, and
keeps no connection between them. When its input ends it finishes its shard, and ends.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, NoReturn, TextIO
from uuid import UUID

from alembic import command

from sqlalchemy_shards.migrations.turns.run import RUN_KEY
from sqlalchemy_shards.migrations.turns.turn import TurnOptions, turns_of
from sqlalchemy_shards.migrations.workers.addresses import addresses_of
from sqlalchemy_shards.migrations.workers.messages import (
    Failed,
    Job,
    Ready,
    Take,
    Waiting,
    decode,
    encode,
    in_one_line,
)
from sqlalchemy_shards.migrations.workers.watching import WatchedTurn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from types import FrameType

    from alembic.config import Config

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.migrations.turns.run import Task, Turn
    from sqlalchemy_shards.migrations.workers.messages import Message

INTERRUPTED = 130


def main() -> None:
    """Be a worker, and exit."""
    # It may have come as ignored; and for Python's own, asyncio would put one that ends no read.
    signal.signal(signal.SIGINT, _interrupt)
    wire = Wire.of_process()
    try:
        _work(wire)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BaseException as error:
        wire.send(Failed(None, in_one_line(error)))
        raise


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise KeyboardInterrupt


class Wire:
    """The line to the runner."""

    def __init__(self, incoming: TextIO, outgoing: TextIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    @classmethod
    def of_process(cls) -> Wire:
        """Take over standard input and output; nobody else can read or write there any more."""
        incoming = os.fdopen(os.dup(0), encoding="utf-8")
        outgoing = os.fdopen(os.dup(1), "w", encoding="utf-8")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        return cls(incoming, outgoing)

    def send(self, message: Message) -> None:
        """Tell the runner something, if it is there still."""
        with suppress(OSError):  # a shard is migrated to its end without a runner, too
            self._outgoing.write(encode(message))
            self._outgoing.flush()

    def receive(self) -> Message | None:
        """Wait for the runner to say something; None: nothing will come any more."""
        line = self._incoming.readline()
        return decode(line) if line else None


class Assigned:
    """The run of a worker: the shards that the runner gives to it, one after the other."""

    def __init__(self, wire: Wire, job: Job) -> None:
        self._wire = wire
        self._job = job
        self.is_asked = False

    def turns(self, cluster: Cluster, task: Task) -> Iterator[AbstractContextManager[Turn]]:
        """Give the shards their turns."""
        self.is_asked = True
        addresses = addresses_of(cluster)
        self._wire.send(Ready(addresses.cluster, dict(addresses.shards)))
        while isinstance(message := self._wire.receive(), Take):
            with closing(turns_of(cluster, message.shard, task, self._options())) as turns:
                yield from self._watched(message.shard, turns)
            # No connection stays behind: there may be hundreds of shards.
            cluster.shards[message.shard].engine.dispose()

    def _options(self) -> TurnOptions:
        return TurnOptions(
            UUID(self._job.run),
            self._job.bounds,
            lambda shard, attempt, reason: self._wire.send(Waiting(shard, attempt, reason)),
        )

    def _watched(
        self, shard: str, turns: Iterator[AbstractContextManager[Turn]]
    ) -> Iterator[AbstractContextManager[Turn]]:
        """The turns of a shard, which may have several, until one is not to be repeated."""
        while True:
            try:
                turn = next(turns, None)
                if turn is None:
                    return
                watched = WatchedTurn(shard, turn, self._wire.send, self._job)
                watched.open()
            except Exception as error:
                self._wire.send(Failed(shard, in_one_line(error)))
                return
            yield watched


def _work(wire: Wire) -> None:
    job = wire.receive()
    if not isinstance(job, Job):
        return
    run = Assigned(wire, job)
    config = job.settings.config(**{RUN_KEY: run})
    perform(job, config)
    if not run.is_asked:
        wire.send(Failed(None, "env.py does not call run_migrations() of this package"))


def perform(job: Job, config: Config) -> None:
    """Give Alembic the command of a job."""
    if job.command == "upgrade":
        command.upgrade(config, job.revisions[0], tag=job.settings.tag)
    elif job.command == "downgrade":
        command.downgrade(config, job.revisions[0], tag=job.settings.tag)
    else:
        command.stamp(config, list(job.revisions), tag=job.settings.tag, purge=job.is_purging)
