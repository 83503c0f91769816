"""How long a cluster waits, in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy_shards.connections.settings import ServerSetting
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.config import SERVER_TIMEOUTS, TIMEOUT_SECONDS_MAX
from sqlalchemy_shards.transactions.rounds import CommitTimeouts
from sqlalchemy_shards.transactions.visits import STEP_SECONDS

LOCK_TIMEOUT_DEFAULT: Final = 60.0
"""Seconds that a lock is waited for where nobody says anything: longer than an ordinary application
waits for a row, short enough to end a deadlock over several shards by itself. MySQL (50 s) and
Oracle (60 s) end theirs so."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds on waiting, in seconds.

    The first three are settings of PostgreSQL, which every connection of the cluster is given when
    it is opened: None leaves what the server, the database or the role has, 0 is no bound.
    ``options`` in a shard's URL win over them, and so does a transaction's ``SET LOCAL``.

    :param lock_timeout: waiting for one lock. None: 60 in a cluster of several shards, unless the
        server, the database or the role has a value; since no server sees a deadlock over several.
    :param statement_timeout: one statement on one shard.
    :param idle_in_transaction_session_timeout: a shard's transaction while it runs no statement,
        be it because another shard runs one.
    :param statement_seconds: a statement on several shards, all of them together, seen from the
        client; None: no bound but ``statement_timeout``.
    :param round_seconds: finding out who takes part in a commit, and preparing, each.
    :param decision_seconds: waiting for the deciding COMMIT; then its outcome is asked for.
    :param settle_seconds: asking for the outcome.
    :param finish_seconds: finishing a decided commit; then recovery does it.
    :param rollback_seconds: rolling back what was prepared; then recovery does it.
    :param consistent_seconds: taking snapshots of several shards until they show the same.
    :param recovery_seconds: each step of a recovery, on all shards together; those that did not
        answer in it are in its report.
    :raises ConfigurationError: with every value that is none.
    """

    lock_timeout: float | None = None
    statement_timeout: float | None = None
    idle_in_transaction_session_timeout: float | None = None
    statement_seconds: float | None = None
    round_seconds: float = 60.0
    decision_seconds: float = 300.0
    settle_seconds: float = 10.0
    finish_seconds: float = 5.0
    rollback_seconds: float = 5.0
    consistent_seconds: float = 10.0
    recovery_seconds: float = STEP_SECONDS

    def __post_init__(self) -> None:
        """Refuse what is no time."""
        faults = [
            f"{field.name}={value!r}: {fault}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
            and (fault := _fault(field.name, value)) is not None
        ]
        if faults:
            raise ConfigurationError(
                "the timeouts cannot be kept:", "give seconds, as in 2.5", faults=faults
            )

    def of_commit(self) -> CommitTimeouts:
        """The part that the commit protocol uses."""
        return CommitTimeouts(
            round_seconds=self.round_seconds,
            decision_seconds=self.decision_seconds,
            settle_seconds=self.settle_seconds,
            finish_seconds=self.finish_seconds,
            rollback_seconds=self.rollback_seconds,
        )

    def of_servers(self, *, shards: int) -> list[ServerSetting]:
        """The part that the servers keep.

        :param shards: how many the cluster has: one is as one PostgreSQL.

        >>> Timeouts(statement_timeout=0.5).of_servers(shards=1)
        [ServerSetting(name='statement_timeout', value='500', is_yielding=False)]
        """
        settings = [
            ServerSetting(name, _milliseconds(seconds))
            for name in SERVER_TIMEOUTS
            if (seconds := getattr(self, name)) is not None
        ]
        if self.lock_timeout is None and shards > 1:
            default = _milliseconds(LOCK_TIMEOUT_DEFAULT)
            settings.append(ServerSetting("lock_timeout", default, is_yielding=True))
        return settings


def _fault(name: str, value: object) -> str | None:
    is_setting = name in SERVER_TIMEOUTS
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"it is a {type(value).__name__}, not a number of seconds"
    if math.isnan(value) or value < 0 or (value == 0 and not is_setting):
        return "it must be 0 or more" if is_setting else "it must be above 0"
    if value > TIMEOUT_SECONDS_MAX:
        return f"it must be at most {TIMEOUT_SECONDS_MAX}"
    return None


def _milliseconds(seconds: float) -> str:
    # Rounded up: 0 would be no bound.
    return str(math.ceil(seconds * 1000))
