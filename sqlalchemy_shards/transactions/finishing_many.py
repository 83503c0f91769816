"""Finishing the prepared parts of one shard that recovery has listed and settled.

- One round trip for each part: the connection was verified when it was opened, and the list told
  whose each part is.
- A part is finished as its owner. PostgreSQL asks for that role, or a superuser; being a member of
  it is not enough, becoming it is.
"""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING, Any

import psycopg

from sqlalchemy_shards.connections.fan_out import DeadlineExceeded
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.transactions import fail_points
from sqlalchemy_shards.transactions.finishing import UNREACHABLE, acting_as
from sqlalchemy_shards.transactions.protocol.recovering import finishing_verb
from sqlalchemy_shards.transactions.protocol.replies import Reply
from sqlalchemy_shards.transactions.statements import command, reply_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy_shards.events import Hooks
    from sqlalchemy_shards.transactions.inventory import PreparedPart
    from sqlalchemy_shards.transactions.protocol.settling import Outcome

    Settled = tuple[PreparedPart, Outcome]


class Finishing:
    """What became of the parts of one shard: filled while it goes on, right if it is cut short.

    :param done: those that were finished here. What somebody else finished is his to tell.
    :param failures: why a part could not be finished.
    """

    def __init__(self, user: str, hooks: Hooks) -> None:
        self.done: list[Settled] = []
        self.failures: dict[PreparedPart, BaseException] = {}
        self._user = user
        self._hooks = hooks

    def run(
        self, connection: psycopg.Connection[Any], settled: Sequence[Settled], *, seconds: float
    ) -> int:
        """Commit or roll back these parts, the first of them at least; return how many.

        :param settled: those of one owner beside each other.
        :param seconds: after which no more of them are begun.
        :raises psycopg.Error: the connection was lost, or does not go on as its own role.
        """
        deadline = time.monotonic() + seconds
        number = 0
        for owner, theirs in groupby(settled, key=owner_of):
            number += self._finish_as(connection, owner, list(theirs), deadline)
            if time.monotonic() >= deadline:
                break
        return number

    def _finish_as(
        self,
        connection: psycopg.Connection[Any],
        owner: str,
        settled: Sequence[Settled],
        deadline: float,
    ) -> int:
        role = None if owner in ("", self._user) else owner
        try:
            with acting_as(connection, role):
                for number, (part, outcome) in enumerate(settled, 1):
                    self._finish(connection, part, outcome)
                    if time.monotonic() >= deadline:
                        return number
        except psycopg.errors.InsufficientPrivilege as error:
            refusal = _not_ours(role, self._user)
            refusal.__cause__ = error
            self.failures.update((part, refusal) for part, _ in settled)
        return len(settled)

    def _finish(
        self, connection: psycopg.Connection[Any], part: PreparedPart, outcome: Outcome
    ) -> None:
        self._hooks.reach(fail_points.BEFORE_FINISH, part.shard)
        verb = finishing_verb(outcome)
        if verb is None:
            raise ValueError(f"{part.gid} is not settled")
        try:
            command(connection, verb, part.gid)
        except UNREACHABLE as error:
            if connection.closed or isinstance(error, DeadlineExceeded):
                raise
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                self.failures[part] = _not_ours(part.owner, self._user)
            elif reply_of(error, verb, is_lost=False) is not Reply.NOT_THERE:
                self.failures[part] = error
        else:
            self.done.append((part, outcome))
        self._hooks.reach(fail_points.AFTER_FINISH, part.shard)


def owner_of(settled: Settled) -> str:
    """Return the role that prepared it, "" where that was dropped."""
    return settled[0].owner or ""


def _not_ours(owner: str | None, user: str) -> ConfigurationError:
    whose = "a role that was dropped" if owner is None else f"the role {owner!r}"
    return ConfigurationError(
        f"it was prepared by {whose}, which {user!r} may not become",
        "run recovery as that role, as a member of it, or as a superuser",
    )
