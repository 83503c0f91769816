"""The protocol under test, and the database under it, as values that a mistake can replace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy_shards.transactions.protocol import cleaning, recovering, replies, settling
from sqlalchemy_shards.transactions.protocol.coordinator import Commit

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Rules:
    """The real protocol, function by function.

    :param flushes_decision: INSERT_DECISION makes the deciding COMMIT wait for the disk, though the
        application has switched synchronous_commit off.
    :param keeps_abort_row: the abort row is really inserted.
    """

    commit: type[Commit] = Commit
    read_tag: Callable[..., replies.Reply] = replies.read_tag
    read_error: Callable[..., replies.Reply] = replies.read_error
    conclude: Callable[..., settling.Outcome | None] = settling.conclude
    conclude_insert: Callable[..., settling.Outcome | None] = settling.conclude_insert
    conclude_again: Callable[..., settling.Outcome] = settling.conclude_again
    recognise: Callable[..., object] = recovering.recognise
    finishing_verb: Callable[..., str | None] = recovering.finishing_verb
    read_listing: Callable[..., replies.Reply | None] = recovering.read_listing
    may_go: Callable[..., bool] = cleaning.may_go
    flushes_decision: bool = True
    keeps_abort_row: bool = True
