"""Why a way of answering a statement is not open to it."""

from __future__ import annotations

from typing import Final

LOCK_OTHERWISE: Final = (
    "add the shard key to its WHERE clause; or read the primary keys first, and lock these rows by "
    "a second SELECT"
)
"""What to do where rows of all shards cannot be locked as they are read."""


TAKE_IN_TURN: Final = (
    "ask one shard after the other with execution_options(shard=...), each for as many rows as are "
    "still missing"
)
"""What to do where any rows will do that nobody else has locked, as of a queue."""


def advice_on_unreadable(reason: str) -> str:
    """What to do about a statement of which it is not known what it reads."""
    where = 'say where it runs with execution_options(shard="...") or shard_key=(Model, key)'
    if any(word in reason for word in ("raw SQL text", "operator", "is no Table")):
        return f"write it with declared tables and SQLAlchemy's expressions, or {where}"
    return where


class Refusal(Exception):
    """The reason why a statement cannot be answered in one way, with what to do instead.

    Whoever asked for a plan tries the next way, or tells the application.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice
