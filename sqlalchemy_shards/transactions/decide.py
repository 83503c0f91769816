"""Round 2: the COMMIT that is the decision, sent once and never cancelled.

- A cancelled COMMIT may be committed all the same (waiting for a standby, PostgreSQL gives up the
  wait and commits), so nothing here ever cancels it. psycopg cancels when Ctrl-C reaches its wait;
  therefore the wait is our own, over libpq as psycopg exposes it.
- It is sent only where the connection is not seen to be lost: what was never sent is an abort, and
  nobody need be asked. As soon as it may have been sent, only an answer counts.
- The first interrupt is kept until the answer is there; a second one, or the time limit, gives up
  waiting. Then the outcome is unknown here, and `settle` is asked. Only the cancellation of a task
  is kept however often it comes: libraries repeat it until the task has ended.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from sqlalchemy_shards.connections.exchange import Exchange, Request
from sqlalchemy_shards.transactions.protocol.replies import COMMIT, Reply
from sqlalchemy_shards.transactions.statements import misfit, reply_of

READS_UP_TO_THE_END: Final = 2
"""A server that ends a session may say why first."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of the COMMIT.

    :param reply: DONE, ROLLED_BACK, REFUSED, UNSENT or LOST.
    :param error: why it was refused, or how the answer was lost.
    :param interrupt: what interrupted the wait; to be raised again once the rest is done.
    """

    reply: Reply
    error: BaseException | None = None
    interrupt: BaseException | None = None


def commit_uncancelled(shard: str, driver: psycopg.Connection[Any], *, seconds: float) -> Decision:
    """Commit the open transaction and return what is known of it; raises nothing.

    :param seconds: how long to wait for the answer.
    """
    request = Request(shard, driver, COMMIT.encode())
    under_way = Exchange(hear=lambda _: None)
    until = time.monotonic() + seconds
    interrupt: BaseException | None = None
    try:
        if _is_lost(driver):
            lost = psycopg.OperationalError("the connection was lost before COMMIT was sent")
            return Decision(Reply.UNSENT, lost)
        under_way.send(request)
        while True:
            try:
                is_answered = under_way.receive(until)
                break
            except BaseException as error:
                if interrupt is not None and not isinstance(error, asyncio.CancelledError):
                    raise
                interrupt = interrupt or error
                is_answered = under_way.look()
                if is_answered or time.monotonic() >= until:
                    break
    except BaseException as error:
        return Decision(Reply.LOST, error, error)
    if not is_answered:
        late = psycopg.errors.ConnectionTimeout("the server did not answer COMMIT in time")
        return Decision(Reply.LOST, late, interrupt)
    return _read(request, interrupt)


def _is_lost(driver: psycopg.Connection[Any]) -> bool:
    """Look, without waiting, whether the server has ended the session."""
    try:
        for _ in range(READS_UP_TO_THE_END):
            driver.pgconn.consume_input()
    except psycopg.Error:
        return True
    return False


def _read(answer: Request, interrupt: BaseException | None) -> Decision:
    error = answer.error or misfit(COMMIT, answer.tag)
    if error is None:
        return Decision(Reply.DONE, None, interrupt)
    # FATAL may follow a commit whose reply was never sent, so the connection must be there still.
    return Decision(reply_of(error, COMMIT, is_lost=answer.is_lost), error, interrupt)
