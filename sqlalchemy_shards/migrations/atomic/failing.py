"""What is raised where a migration failed in a run of all or nothing.

That is the error itself, unless it says that these migrations cannot be all or nothing, or that a
connection of ours is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg
from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards.errors import ShardUnavailable, UnsupportedStatement
from sqlalchemy_shards.migrations.atomic.held import Refusal
from sqlalchemy_shards.transactions.refusals import first_line

if TYPE_CHECKING:
    from sqlalchemy_shards.connections.shard import Shard

_ENDS_OR_NEEDS_NONE: Final = frozenset({"25001", "2D000"})
_NEW_ENUM_VALUE: Final = "55P04"


def refusal(error: BaseException, shard: str, revision: str | None) -> UnsupportedStatement | None:
    """What to raise for an error that says that this cannot be all or nothing."""
    refused = error if isinstance(error, Refusal) else _of_server(error)
    if refused is None:
        return None
    return UnsupportedStatement(
        f"these migrations cannot be all or nothing: in revision {revision!r} on shard {shard!r},"
        f" {refused.problem}; every shard is where it was",
        refused.advice,
        shard=shard,
        statement=refused.statement,
    )


def loss(error: BaseException, shard: Shard) -> ShardUnavailable | None:
    """What to raise where a connection was lost over which we have asked, not a migration."""
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return shard.unavailable(error)
    return None


def _of_server(error: BaseException) -> Refusal | None:
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, psycopg.Error):
        return None
    state = original.sqlstate
    statement = error.statement if isinstance(error, DBAPIError) else None
    if state in _ENDS_OR_NEEDS_NONE:
        return Refusal(
            f"PostgreSQL does not run this in a transaction ({first_line(original)})",
            "take this revision in a run of its own, without --atomic",
            statement=statement,
        )
    if state == _NEW_ENUM_VALUE:
        return Refusal(
            "a new value of an enum is used in the transaction that adds it",
            "migrate to the revision that adds it first, in a run of its own",
            statement=statement,
        )
    return None
