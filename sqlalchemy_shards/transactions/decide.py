"""Round 2: the COMMIT that is the decision, sent once and never cancelled.

- A cancelled COMMIT may be committed all the same (waiting for a standby, PostgreSQL gives up the
  wait and commits), so nothing here ever cancels it. psycopg cancels when Ctrl-C reaches its wait;
  therefore the wait is our own, over libpq as psycopg exposes it.
- The first interrupt is kept until the answer is there; a second one, or the time limit, gives up
  waiting. Then the outcome is unknown here, and `settle` is asked.
"""

from __future__ import annotations

import enum
import selectors
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus

from sqlalchemy_shards.transactions.statements import RolledBackError

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

WAIT_SECONDS = 1.0
"""How long one wait for the socket takes at most before an interrupt is looked for (Windows)."""


class Answer(enum.Enum):
    """What the server said."""

    COMMITTED = "committed"
    REFUSED = "rolled back"
    LOST = "no answer"


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of the COMMIT.

    :param error: why it was refused, or how the answer was lost.
    :param interrupt: what interrupted the wait; to be raised again once the rest is done.
    """

    answer: Answer
    error: BaseException | None = None
    interrupt: BaseException | None = None


def commit_uncancelled(driver: psycopg.Connection[Any], *, seconds: float) -> Decision:
    """Commit the open transaction and return what is known of it; raises nothing.

    :param seconds: how long to wait for the answer.
    """
    pgconn = driver.pgconn
    deadline = time.monotonic() + seconds
    results: list[PGresult] = []
    interrupt: BaseException | None = None
    try:
        pgconn.send_query(b"COMMIT")
        while True:
            try:
                _collect(pgconn, results, deadline)
                break
            except (psycopg.Error, OSError):
                raise
            except BaseException as error:
                if interrupt is not None:
                    raise
                interrupt = error
    except BaseException as error:
        is_own = isinstance(error, (psycopg.Error, OSError))
        return Decision(Answer.LOST, error, interrupt if is_own else error)
    return _read(driver, results, interrupt)


def _collect(pgconn: PGconn, results: list[PGresult], deadline: float) -> None:
    """Take in results until there are no more; may be called again after an interrupt."""
    with selectors.DefaultSelector() as selector:
        key = selector.register(pgconn.socket, selectors.EVENT_READ)
        while pgconn.flush():
            selector.modify(key.fd, selectors.EVENT_READ | selectors.EVENT_WRITE)
            _wait(selector, deadline)
            pgconn.consume_input()
        selector.modify(key.fd, selectors.EVENT_READ)
        while True:
            while pgconn.is_busy():
                _wait(selector, deadline)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                return
            results.append(result)


def _wait(selector: selectors.BaseSelector, deadline: float) -> None:
    while not selector.select(min(WAIT_SECONDS, max(0.0, deadline - time.monotonic()))):
        if time.monotonic() >= deadline:
            raise psycopg.errors.ConnectionTimeout("the server did not answer COMMIT in time")


def _read(
    driver: psycopg.Connection[Any], results: list[PGresult], interrupt: BaseException | None
) -> Decision:
    if driver.pgconn.status == ConnStatus.BAD or len(results) != 1:
        # Also where an error came first: FATAL may follow a commit whose reply was never sent.
        lost = psycopg.OperationalError("the connection was lost in COMMIT")
        return Decision(Answer.LOST, lost, interrupt)
    result = results[0]
    if result.status == ExecStatus.COMMAND_OK:
        if result.command_status == b"COMMIT":
            return Decision(Answer.COMMITTED, None, interrupt)
        if result.command_status == b"ROLLBACK":
            refusal = RolledBackError("COMMIT was answered ROLLBACK")
            return Decision(Answer.REFUSED, refusal, interrupt)
    error = error_from_result(result, encoding=driver.info.encoding)
    if result.status == ExecStatus.FATAL_ERROR and error.sqlstate is not None:
        return Decision(Answer.REFUSED, error, interrupt)
    return Decision(Answer.LOST, error, interrupt)
