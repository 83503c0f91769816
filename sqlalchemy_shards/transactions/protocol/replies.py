"""How the answer of a server is read: its command's tag, its error, the state of its connection.

A failed transaction answers PREPARE and COMMIT with the tag ROLLBACK and raises nothing. "Does not
exist" is an answer of its own, and what it means depends on who asked what. Whatever is not clearly
an answer is LOST: the command may have been carried out, or may still be.
"""

from __future__ import annotations

import enum
from typing import Final

PREPARE: Final = "PREPARE TRANSACTION"
COMMIT_PREPARED: Final = "COMMIT PREPARED"
ROLLBACK_PREPARED: Final = "ROLLBACK PREPARED"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"
DOES_NOT_EXIST: Final = "42704"


class Reply(enum.Enum):
    """What a server said to a command."""

    DONE = "it was carried out"
    ROLLED_BACK = "the transaction had failed before, and was rolled back"
    REFUSED = "an error: it was not carried out, and will not be"
    NOT_THERE = "no prepared transaction of that name is there"
    UNSENT = "it was not sent, and never will be: the connection was found lost before"
    LOST = "no answer: it may have been carried out, or may still be"


class Link(enum.Enum):
    """State of the connection to a shard, as the client knows it without asking."""

    IDLE = "no transaction is open"
    OPEN = "in a transaction"
    FAILED = "in a transaction in which a statement failed"
    BUSY = "a statement is running"
    LOST = "closed or broken"


def read_tag(verb: str, tag: str | None) -> Reply:
    """Return what the tag of a command that raised no error says.

    >>> read_tag(PREPARE, "PREPARE TRANSACTION"), read_tag(PREPARE, "ROLLBACK")
    (<Reply.DONE: 'it was carried out'>, <Reply.ROLLED_BACK: 'the transaction had failed before, \
and was rolled back'>)
    """
    if tag == verb:
        return Reply.DONE
    return Reply.ROLLED_BACK if tag == ROLLBACK else Reply.LOST


def read_error(verb: str, sqlstate: str | None, *, is_lost: bool) -> Reply:
    """Return what an error says.

    :param sqlstate: the server's, or None where the client made the error.
    :param is_lost: the connection is of no use any more. Then an error is no answer: FATAL may
        follow a commit whose reply was never sent.
    """
    if is_lost or sqlstate is None:
        return Reply.LOST
    # A deferred trigger may raise the same state out of PREPARE or COMMIT.
    if sqlstate == DOES_NOT_EXIST and verb in (COMMIT_PREPARED, ROLLBACK_PREPARED):
        return Reply.NOT_THERE
    return Reply.REFUSED
