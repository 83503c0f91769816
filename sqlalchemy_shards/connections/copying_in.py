"""Rows of a COPY that go into a server as fast as its socket takes them, and no faster.

What a caller adds is kept here, in pieces. `CopyIn.push` hands over what the socket takes at once
and never waits; `CopyIn.drain` waits until little is left. So one thread feeds many servers: it
pushes to all of them, and waits only for one whose pieces pile up. Each wait is for the generators
of psycopg: in a fan-out, other branches go on meanwhile.

Invariants:

- Between `begin` and `end` or `abort` nothing else may use the connection.
- What has not been sent is in ``backlog``, but for one piece that libpq holds.
- After `end` and `abort`, whatever they raise, no COPY runs: where that cannot be brought about,
  the connection is closed.
"""

from __future__ import annotations

import socket as socket_module
from collections import deque
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE
from socket import AF_INET, MSG_PEEK, SOCK_STREAM, fromfd
from typing import TYPE_CHECKING, Any, Final, cast

import psycopg
from psycopg.errors import error_from_result
from psycopg.generators import fetch_many
from psycopg.pq import ExecStatus, TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Generator
    from socket import socket

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

_PEEK: Final = MSG_PEEK | getattr(socket_module, "MSG_DONTWAIT", 0)
_ERROR: Final = b"E"  # the first byte of the server's message; no encrypted one begins so
_GIVEN_UP: Final = b"the copy was given up by the client"


class CopyIn:
    """One ``COPY ... FROM STDIN`` on one connection.

    :param connection: in a transaction, or in autocommit mode.
    :ivar backlog: how many bytes were added and are not sent.
    :ivar is_open: it was begun, and is not known to have ended.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._pieces: deque[bytes | bytearray] = deque()
        self._libpq_holds_some = False
        self.backlog = 0
        self.is_open = False
        self._has_failed = False
        self._socket: socket | None = None

    def begin(self, command: bytes) -> None:
        """Send the command, and wait until the server is ready to take rows.

        :raises psycopg.Error: the server refuses.
        """
        self.is_open = True
        self._wait(self._begin_steps(command))
        with suppress(OSError):
            self._socket = fromfd(self._pgconn.socket, AF_INET, SOCK_STREAM)  # of any family
            self._socket.setblocking(False)  # whatever the default time-out of sockets is

    def add(self, piece: bytes | bytearray) -> None:
        """Keep a piece to be sent; it must not be changed any more."""
        self._pieces.append(piece)
        self.backlog += len(piece)

    def push(self) -> None:
        """Send as much as the socket takes now.

        :raises psycopg.Error: the connection is lost.
        """
        pgconn, pieces = self._pgconn, self._pieces
        if self.has_failed():
            pieces.clear()
            self.backlog = 0
        while not self._libpq_holds_some or not pgconn.flush():
            self._libpq_holds_some = False
            if not pieces:
                return
            if not pgconn.put_copy_data(pieces[0]):  # what libpq holds is too much for it
                pgconn.flush()
                return
            self.backlog -= len(pieces.popleft())
            self._libpq_holds_some = True

    def has_failed(self) -> bool:
        """Whether the server is known to have refused a row; `end` then raises what it said.

        libpq keeps the answer back until the end, so the socket is looked at before libpq reads it.
        On an encrypted connection, and where libpq was quicker, nothing is known before the end.
        """
        if not self._has_failed and self._socket is not None:
            try:
                self._has_failed = self._socket.recv(1, _PEEK) == _ERROR
            except OSError:  # nothing is there to be read
                return False
        return self._has_failed

    def drain(self, backlog: int) -> None:
        """Wait until at most so many bytes are left to be sent.

        :raises psycopg.Error: the connection is lost.
        """
        self._wait(self._drain_steps(backlog))

    def end(self) -> int:
        """Send what is left and end the COPY; return how many rows the server has stored.

        :raises psycopg.Error: what the server said.
        """
        self._look_no_more()
        return self._wait(self._end_steps()) or 0

    def abort(self) -> None:
        """Forget what is left, and let the COPY fail; its transaction has failed then."""
        self._look_no_more()
        self._pieces.clear()
        self.backlog = 0
        try:
            self._wait(self._concluding_steps(_GIVEN_UP))
        except (psycopg.Error, OSError):
            self._close()
        finally:
            self.is_open = False

    def close_if_active(self) -> None:
        """Close the connection where its COPY could not be ended."""
        self._look_no_more()
        if self._pgconn.transaction_status == TransactionStatus.ACTIVE:
            self._close()
        self.is_open = False

    def _look_no_more(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _wait(self, steps: Generator[int, int, Any]) -> Any:
        with self._connection.lock:
            return self._connection.wait(cast("PQGen[Any]", steps))

    def _begin_steps(self, command: bytes) -> Generator[int, int, None]:
        pgconn = self._pgconn
        pgconn.send_query(command)
        while pgconn.flush():
            yield from self._writable()
        results: list[PGresult] = yield from cast("Any", fetch_many(pgconn))
        if results[-1].status != ExecStatus.COPY_IN:
            self.is_open = False
            raise error_from_result(results[-1], self._connection.info.encoding)

    def _drain_steps(self, backlog: int) -> Generator[int, int, None]:
        self.push()
        while self.backlog > backlog:
            yield from self._writable()
            self.push()

    def _end_steps(self) -> Generator[int, int, int | None]:
        yield from self._drain_steps(0)
        results = yield from self._concluding_steps(None)
        self.is_open = False
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise error_from_result(result, self._connection.info.encoding)
        return results[-1].command_tuples

    def _concluding_steps(self, error: bytes | None) -> Generator[int, int, list[PGresult]]:
        pgconn = self._pgconn
        while not pgconn.put_copy_end(error):
            pgconn.flush()
            yield from self._writable()
        while pgconn.flush():
            yield from self._writable()
        results: list[PGresult] = yield from cast("Any", fetch_many(pgconn))
        return results

    def _writable(self) -> Generator[int, int, None]:
        """Wait until more can be sent; what the server says meanwhile is taken in.

        A server that cannot get rid of its notices reads nothing.
        """
        if ((yield EVENT_READ | EVENT_WRITE) or 0) & EVENT_READ:
            self.has_failed()
            self._pgconn.consume_input()

    def _close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()
