"""Rows of a COPY, taken while they arrive and stopped when there are enough.

psycopg's own COPY takes one command for one call; here the commands around it, as a savepoint, go
with it in one round trip. The steps run where the connection waits: in a fan-out, other branches go
on meanwhile.
"""

from __future__ import annotations

from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Any, Final, cast

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

CANCEL_SECONDS: Final = 5.0
"""How long a request to cancel may take; it is made again while the rows do not end."""


class CopyOut:
    """One run of commands of which one is ``COPY ... TO STDOUT``.

    :param take: is given the lines that have arrived.
    :param is_enough: asked after each arrival, and now and then while nothing arrives.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        take: Callable[[list[bytes]], None],
        is_enough: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._take = take
        self._is_enough = is_enough
        self._is_stopped = False

    def run(self, commands: bytes) -> bool:
        """Run the commands; False: they were cancelled, as there was enough.

        The connection can be used again, but a transaction has failed where they were cancelled.

        :raises psycopg.Error: what the server said.
        """
        with self._connection.lock:
            try:
                return self._connection.wait(cast("PQGen[bool]", self._steps(commands)))
            except BaseException:
                if self._pgconn.transaction_status == TransactionStatus.ACTIVE:
                    # Broken off between two steps: nothing can read the answer any more.
                    self._pgconn.finish()
                raise

    def _steps(self, commands: bytes) -> Generator[int, int, bool]:
        pgconn = self._pgconn
        pgconn.send_query(commands)
        while pgconn.flush():
            ready = yield EVENT_READ | EVENT_WRITE
            if (ready or 0) & EVENT_READ:
                pgconn.consume_input()
        error: psycopg.Error | None = None
        while (result := (yield from self._next_result())) is not None:
            if result.status == ExecStatus.COPY_OUT:
                yield from self._lines()
            elif result.status == ExecStatus.FATAL_ERROR:
                error = error_from_result(result, self._connection.info.encoding)
        if error is None:
            return True
        if self._is_stopped and isinstance(error, psycopg.errors.QueryCanceled):
            return False
        raise error

    def _next_result(self) -> Generator[int, int, PGresult | None]:
        pgconn = self._pgconn
        while pgconn.is_busy():
            yield from self._more()
        return pgconn.get_result()

    def _lines(self) -> Generator[int, int, None]:
        read = self._pgconn.get_copy_data
        lines: list[bytes] = []
        while True:
            length, line = read(1)
            if length > 0:
                lines.append(bytes(line))
                continue
            if lines and not self._is_stopped:
                self._take(lines)
            lines = []
            if length < 0:
                return
            if not self._is_stopped and self._is_enough():
                self._stop()
            yield from self._more()

    def _more(self) -> Generator[int, int, None]:
        """Wait until the server has sent something."""
        while not (yield EVENT_READ):
            # A cancel that came before its statement is lost, so it is repeated.
            if self._is_stopped or self._is_enough():
                self._stop()
        self._pgconn.consume_input()

    def _stop(self) -> None:
        self._is_stopped = True
        with suppress(psycopg.Error):
            self._connection.cancel_safe(timeout=CANCEL_SECONDS)
