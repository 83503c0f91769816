"""A shard's turn to be migrated: alone, with bounded waits, written down, and again where a lock
was not to be had.

    connect -> lock -> schema shards -> ledger: running -> migrations -> ledger: done | failed

- One session does it all: connection, lock, settings and transactions come and go together. It is
  closed at the end, so that nothing of it comes back to the pool.
- The ledger is written before and after the transactions of the migrations, never in them (but by
  `atomic`, where many shards are done in one moment).
- Migrations are begun again only after everything since the last revision in the version table was
  rolled back, and from there.
"""

from __future__ import annotations

import logging
import random
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import psycopg
from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards.catalog.identity import read_identity
from sqlalchemy_shards.cluster.schema import prepare_shard
from sqlalchemy_shards.connections.event_loop import sleep
from sqlalchemy_shards.errors import ConfigurationError, MigrationBlocked
from sqlalchemy_shards.migrations.turns import ledger
from sqlalchemy_shards.migrations.turns.bounds import Bounds, pause_seconds
from sqlalchemy_shards.migrations.turns.lock import wait_for_lock
from sqlalchemy_shards.migrations.turns.progress import Progress
from sqlalchemy_shards.migrations.turns.run import Turn, connect
from sqlalchemy_shards.migrations.turns.settings import (
    bystanders,
    give_settings,
    let_index_builds_wait,
)
from sqlalchemy_shards.migrations.turns.version_table import revisions_in, version_table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.migrations.turns.run import Task

# Below `alembic`: whatever an application says of Alembic's log holds for these lines too.
log = logging.getLogger("alembic.shards")

LEDGER_SINCE: Final = 4
"""The version of the schema ``shards`` that brought the ledger."""

BLOCKED_ADVICE: Final = (
    "run this again when no long transaction is open there, or wait longer with lock_timeout and"
    " lock_tries"
)
"""What to do where a lock was not to be had."""

_WORTH_ANOTHER_TRY: Final = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
)


def log_what_keeps(shard: str, attempt: int, reason: str) -> None:
    """Write into Alembic's log what keeps a shard."""
    del attempt
    log.warning("shard %s: %s", shard, reason)


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """By whom a shard's turn is given.

    :param run: the same for all shards of one command.
    :param bounds: win over those of the task.
    :param tell: is told of what keeps a shard: its name, the number of the try, and a sentence.
    """

    run: UUID = field(default_factory=uuid4)
    bounds: Bounds = field(default_factory=Bounds)
    tell: Callable[[str, int, str], None] = log_what_keeps


class OneAfterTheOther:
    """Each of some shards has its turn, to be changed.

    :param shards: their names, in their options.
    """

    def __init__(self, shards: Sequence[str]) -> None:
        self._shards = shards

    def turns(self, cluster: Cluster, task: Task) -> Iterator[AbstractContextManager[Turn]]:
        """Give the shards their turns."""
        options = TurnOptions()
        for shard in self._shards:
            yield from turns_of(cluster, shard, task, options)


def turns_of(
    cluster: Cluster, shard: str, task: Task, options: TurnOptions
) -> Generator[AbstractContextManager[Turn]]:
    """Give a shard its turn, and again while locks are not to be had.

    The turn of a try that is to be repeated swallows its error. Close this iterator when no more
    turns are wanted.

    :raises ShardUnavailable: it cannot be reached.
    :raises MigrationBlocked: another migration is at work there, for too long; out of a turn: the
        last try did not get a lock either.
    :raises ConfigurationError: the shard is another one, or its ledger cannot be written.
    """
    bounds = options.bounds.or_else(task.bounds)
    with _session(cluster, shard) as connection:
        give_settings(_driver(connection), bounds, task.command)
        wait_for_lock(
            _driver(connection),
            shard,
            bounds.runner_seconds,
            lambda reason: options.tell(shard, 1, reason),
        )
        prepare_ledger(cluster, _driver(connection), shard)
        work = _Work(cluster, shard, task, connection, bounds, options.tell)
        work.begin(options.run)
        for attempt in count(1):
            work.is_to_go_on = False
            yield work.attempt(attempt)
            if not work.is_to_go_on:
                return
            sleep(pause_seconds(attempt, random.random()))


@contextmanager
def _session(cluster: Cluster, shard: str) -> Iterator[Connection]:
    """A connection of its own, which no one else gets after it."""
    cluster.check_open()
    with closing(connect(cluster, shard)) as connection:
        try:
            yield connection
        finally:
            connection.invalidate()


def prepare_ledger(cluster: Cluster, driver: psycopg.Connection[Any], shard: str) -> None:
    """See that there is a ledger.

    :param driver: to the shard.
    :raises ConfigurationError: there is none, and none can be made.
    """
    identity = read_identity(driver)
    if identity is not None and identity.version >= LEDGER_SINCE:
        return
    try:
        prepare_shard(cluster, shard)
    except psycopg.errors.InsufficientPrivilege as error:
        what = "create the schema 'shards'" if identity is None else "upgrade the schema 'shards'"
        raise ConfigurationError(
            f"the role may not {what} on shard {shard!r}, where migrations are written down",
            "call cluster.bootstrap() once as a role that may: the owner of the schema, or one with"
            " CREATE on the database where there is none",
            shard=shard,
        ) from error


class _Work:
    """What is done on one shard, over one session that holds its lock."""

    def __init__(
        self,
        cluster: Cluster,
        shard: str,
        task: Task,
        connection: Connection,
        bounds: Bounds,
        tell: Callable[[str, int, str], None],
    ) -> None:
        self._cluster = cluster
        self._shard = shard
        self._task = task
        self._connection = connection
        self._driver = _driver(connection)
        self._bounds = bounds
        self._tell = tell
        self._number = 0
        self._before: tuple[str, ...] = ()
        if bounds.lock_timeout is None:
            let_index_builds_wait(connection)
        self._progress = Progress(connection, version_table_of(task.options)[1])
        self.is_to_go_on = False

    def begin(self, run: UUID) -> None:
        """Write down what is asked of the shard."""
        self._before = revisions_in(self._driver, self._task.options)
        beginning = ledger.Beginning(run, self._task.command, self._task.target, self._before)
        self._number = ledger.begin(self._driver, self._shard, beginning)

    @contextmanager
    def attempt(self, number: int) -> Iterator[Turn]:
        """A turn; it ends the run in the ledger, unless there is to be another one."""
        if number > 1:  # a migration may have set others
            give_settings(self._driver, self._bounds, self._task.command)
            self._progress.restart()
        try:
            yield Turn(
                self._shard, self._connection, {"on_version_apply": self._progress.on_version_apply}
            )
        except BaseException as error:
            with suppress(psycopg.Error, DBAPIError):
                self._connection.rollback()
            self.is_to_go_on = self._may_go_on(error, number)
            if self.is_to_go_on:
                return
            self._end_badly(error)
            if is_blocked(error) and not self._progress.is_torn:
                raise self._blocked(number) from error
            raise
        self._end_well()

    def _may_go_on(self, error: BaseException, number: int) -> bool:
        if not is_blocked(error) or self._driver.closed:
            return False
        if self._progress.is_torn:
            reason = f"{ledger.told(error)}; a part of the revision was committed outside of a"
            self._tell(self._shard, number, f"{reason} transaction: not run again by itself")
            return False
        if number >= self._bounds.tries:
            return False
        reason = f"{ledger.told(error)}; rolled back, and tried again"
        self._tell(self._shard, number, f"{reason} ({number} of {self._bounds.tries})")
        return True

    def _end_well(self) -> None:
        with self._noted():
            self._connection.rollback()  # what Alembic began after its last commit, to look at it
            after = revisions_in(self._driver, self._task.options)
            if self._progress.steps or set(after) != set(self._before):
                ledger.finish(self._driver, self._number, "done", after=after)
            else:
                ledger.finish_without_a_step(self._driver, self._number, after)

    def _end_badly(self, error: BaseException) -> None:
        outcome: ledger.Outcome = "failed" if isinstance(error, Exception) else "interrupted"
        with self._noted(), self._living() as driver:
            after = revisions_in(driver, self._task.options)
            text = ledger.told(error)
            ledger.finish(driver, self._number, outcome, after=after, error=text)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """The ledger is history: what became of the migrations does not depend on it."""
        try:
            yield
        except (psycopg.Error, DBAPIError) as error:
            reason = f"how it ended could not be written down ({ledger.told(error)})"
            self._tell(self._shard, 1, reason)

    @contextmanager
    def _living(self) -> Iterator[psycopg.Connection[Any]]:
        """The session's connection, or another one where the session is lost."""
        if not self._driver.closed:
            yield self._driver
            return
        with self._cluster.connect(self._shard) as driver:
            yield driver

    def _blocked(self, tries: int) -> MigrationBlocked:
        found = ""
        with suppress(psycopg.Error):
            found = bystanders(self._driver)
        return MigrationBlocked(
            f"shard {self._shard!r} could not be migrated: a lock was not to be had, tried"
            f" {times(tries)}; all was rolled back to its last revision{found}",
            BLOCKED_ADVICE,
            shard=self._shard,
        )


def is_blocked(error: BaseException) -> bool:
    """Whether a lock was not to be had, so that another try is worth it."""
    driver_error = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(driver_error, _WORTH_ANOTHER_TRY)


def times(number: int) -> str:
    """How often something was tried.

    >>> times(1), times(20)
    ('once', '20 times')
    """
    return "once" if number == 1 else f"{number} times"


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    return driver
