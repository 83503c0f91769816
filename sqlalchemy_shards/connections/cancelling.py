"""Cancel requests to a server that do not block the branches beside them.

A cancel request is a connection of its own. It ends when the server has closed it, which is after
the backend got the signal: whoever waits for the end knows that the cancel cannot hit a later
statement of that connection.
"""

from __future__ import annotations

import threading
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


def cancel_steps(pgconn: Any) -> Generator[tuple[int, int], int, None]:
    """Send a cancel request, yielding (socket, events) wherever it has to wait.

    Needs libpq 17: `psycopg.capabilities.has_cancel_safe()`.
    """
    request = pgconn.cancel_conn()
    try:
        request.start()
        while (status := request.poll()) != pq.PollingStatus.OK:
            if status == pq.PollingStatus.FAILED:
                raise psycopg.OperationalError(f"cancelling failed: {request.get_error_message()}")
            yield request.socket, _EVENTS[status]
    finally:
        request.finish()


def cancel_in_thread(pgconn: Any) -> Callable[[], bool]:
    """Send a cancel request with a libpq before 17, which can only block, so in a thread.

    Returns a function that tells whether the request is still under way.
    """
    request = pgconn.get_cancel()

    def send() -> None:
        try:
            request.cancel()
        except psycopg.Error:
            return  # the statement is then not drained, which closes its connection
        finally:
            request.free()

    thread = threading.Thread(target=send, name="cancel request", daemon=True)
    thread.start()
    return thread.is_alive


_EVENTS = {
    pq.PollingStatus.READING: EVENT_READ,
    pq.PollingStatus.WRITING: EVENT_WRITE,
}
