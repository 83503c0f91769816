"""Statements sent to several servers before the first answer is read, by libpq's own calls.

A round of a commit is one short statement for each shard. As branches of a fan-out, with cursors
and greenlets, it costs five times what it costs here; so a fan-out is begun only to give up.

Invariants:

- What a server or its connection did wrong is the reply, and is never raised.
- A reply is heard once, right when it is known, so that it is not forgotten where the wait for the
  others is interrupted. After an interrupt or a deadline an `Exchange` may be gone on with.
- The application's settings of a connection (row factory, adapters, autocommit) have no part in it,
  and psycopg reads the state of the transaction off libpq, as ever.
- A reply is `lost` as soon as its connection is, also where an error came first.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.errors import error_from_result
from psycopg.generators import fetch_many
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

from sqlalchemy_shards.connections.fan_out import Branch, DeadlineExceeded
from sqlalchemy_shards.connections.polling import READ, WRITE, make_poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from psycopg.pq.abc import PGresult

    from sqlalchemy_shards.connections.fan_out import FanOut
    from sqlalchemy_shards.connections.polling import SelectPoll

WAIT_SECONDS: Final = 1.0
"""How long one wait for sockets takes at most before an interrupt is looked for (Windows)."""

_NO_SOCKET: Final = -1

_GOOD: Final = frozenset({ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK})


@dataclass(slots=True, eq=False)
class Request:
    """One statement for one server, and what came back.

    :param shard: name of the shard, for errors.
    :param connection: idle but for its transaction; nothing else may use it meanwhile.
    :param sql: in the server's encoding; ``$1`` stands for the first parameter.
    :param parameters: in text form; None: NULL.
    :param statements: how many there are in ``sql``, where it has no parameters. The answer is that
        of the last one, or of the one that failed.
    """

    shard: str
    connection: psycopg.Connection[Any]
    sql: bytes
    parameters: Sequence[bytes | None] = ()
    statements: int = 1
    results: list[PGresult] = field(default_factory=list)
    error: Exception | None = None
    """When it is heard: the driver's error, or None where the statement did what it says."""
    is_answered: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether the connection broke, so that nobody knows what the server did."""
        return self.connection.pgconn.status == ConnStatus.BAD

    @property
    def tag(self) -> str:
        """The command tag, as ``PREPARE TRANSACTION``; empty where there is no good answer."""
        status = None if self.error is not None else self.results[-1].command_status
        return "" if status is None else status.decode()

    def rows(self) -> list[tuple[str | None, ...]]:
        """Return the rows of a good answer, their values in text form."""
        if self.error is not None:
            return []
        result = self.results[-1]
        encoding = self.connection.info.encoding
        return [
            tuple(
                None if (value := result.get_value(row, column)) is None else value.decode(encoding)
                for column in range(result.nfields)
            )
            for row in range(result.ntuples)
        ]

    def read(self) -> bool:
        """Read what libpq has taken in; return whether that was all.

        :raises psycopg.Error: the connection failed.
        """
        pgconn, results = self.connection.pgconn, self.results
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                self.conclude()
                return True
            results.append(result)
        return False

    def conclude(self) -> None:
        """Take the results for the whole answer."""
        self.is_answered = True
        results = self.results
        if self.is_lost or not 1 <= len(results) <= self.statements:
            self.error = _lost()
        elif results[-1].status not in _GOOD or len(results) < self.statements:
            # After an error the server leaves out what else was sent with it.
            encoding = self.connection.info.encoding
            self.error = error_from_result(results[-1], encoding=encoding)


class Exchange:
    """Some requests under way, each on a connection of its own.

    ``unanswered`` holds them by their sockets.

    :param hear: called with each request that is answered, or whose connection failed.
    """

    def __init__(self, hear: Callable[[Request], object]) -> None:
        self._hear = hear
        self._unsent: set[int] = set()
        self.unanswered: dict[int, Request] = {}

    def send(self, request: Request) -> None:
        """Send a request; its answer is waited for in `receive`."""
        pgconn = request.connection.pgconn
        socket = _NO_SOCKET
        try:
            socket = pgconn.socket
            self.unanswered[socket] = request
            if request.parameters:
                pgconn.send_query_params(request.sql, request.parameters)
            else:
                pgconn.send_query(request.sql)
            if pgconn.flush():
                self._unsent.add(socket)
        except (psycopg.Error, OSError) as error:
            request.error = error
            self.unanswered.pop(socket, None)
            self._hear(request)

    def receive(self, until: float) -> bool:
        """Take in answers; False where some did not come until then, on the monotonic clock."""
        poll = self._poll()
        try:
            return self._receive(poll, until)
        finally:
            for socket in self.unanswered:
                with suppress(KeyError):  # interrupted right after it was unregistered
                    poll.unregister(socket)

    def look(self) -> bool:
        """Take in what has come, without waiting; return whether all is answered.

        A task may be cancelled in each turn of its event loop, which then tells of no socket.
        """
        poll = make_poll()
        for socket in tuple(self.unanswered):
            if self._go_on(socket, poll):
                self._hear(self.unanswered.pop(socket))
        return not self.unanswered

    def _poll(self) -> SelectPoll:
        # Connections of an asyncio cluster wait on its event loop; all here are of one cluster.
        first = next(iter(self.unanswered.values()), None)
        make: Callable[[], SelectPoll]
        make = make_poll if first is None else getattr(first.connection, "make_poll", make_poll)
        poll = make()
        for socket in self.unanswered:
            # While a statement is being sent, the server may already answer.
            poll.register(socket, READ | WRITE if socket in self._unsent else READ)
        return poll

    def _receive(self, poll: SelectPoll, until: float) -> bool:
        unanswered = self.unanswered
        while unanswered:
            seconds = min(WAIT_SECONDS, max(0.0, until - monotonic()))
            ready = poll.poll(ceil(1000 * seconds))
            # An earlier wait may have been interrupted between taking in and reading.
            for socket, _ in ready or [(socket, READ) for socket in unanswered]:
                if self._go_on(socket, poll):
                    poll.unregister(socket)
                    self._hear(unanswered.pop(socket))
            if not ready and unanswered and monotonic() >= until:
                return False
        return True

    def close(self, socket: int) -> None:
        """Wait for a request no more, and let it be heard as it is."""
        self._hear(self.unanswered.pop(socket))

    def _go_on(self, socket: int, poll: SelectPoll) -> bool:
        """Send and take in what a socket allows; return whether nothing is left of it."""
        request = self.unanswered[socket]
        pgconn = request.connection.pgconn
        try:
            pgconn.consume_input()
            if socket in self._unsent and not pgconn.flush():
                self._unsent.remove(socket)
                poll.register(socket, READ)
            return request.read()
        except (psycopg.Error, OSError) as error:
            request.error = error
            return True


def exchange(
    requests: Iterable[Request],
    hear: Callable[[Request], object],
    fan_out: FanOut,
    *,
    seconds: float,
) -> None:
    """Send each request as it comes, and wait for all answers.

    :param hear: called with each request, once; what it raises interrupts the others.
    :param fan_out: cancels, drains and closes what is unanswered in the end.
    :param seconds: for all of them; the error of one that did not end is `DeadlineExceeded`.
    :raises BaseException: what interrupted it, when no statement runs any more.
    """
    under_way = Exchange(hear)
    try:
        for request in requests:
            under_way.send(request)
        if under_way.receive(monotonic() + seconds):
            return
    except BaseException:
        _give_up(under_way, fan_out, 0.0)
        raise
    _give_up(under_way, fan_out, seconds)


def _give_up(under_way: Exchange, fan_out: FanOut, seconds: float) -> None:
    left = dict(under_way.unanswered)
    branches = [
        Branch(each.shard, lambda each=each: _wait(each), lambda each=each: each.connection)  # type: ignore[misc]
        for each in left.values()
    ]
    try:
        outcomes = fan_out.run(branches, deadline_seconds=0.0)
        for request, outcome in zip(left.values(), outcomes, strict=True):
            if outcome.error is not None:
                request.error = outcome.error
    finally:
        for socket, request in left.items():
            _end(request, seconds)
            under_way.close(socket)


def _wait(request: Request) -> None:
    request.results += request.connection.wait(fetch_many(request.connection.pgconn))
    request.conclude()


def _end(request: Request, seconds: float) -> None:
    """Stop what still runs, as after a fan-out in turns, and say why there is no answer."""
    if request.connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
        with suppress(psycopg.Error):
            request.connection.cancel()
        request.connection.close()
    if request.error is None and not request.is_answered:
        request.error = _lost()
    failure = request.error
    if isinstance(failure, psycopg.errors.QueryCanceled):
        consequence = "its statement was cancelled, or its connection closed"
        request.error = DeadlineExceeded.on(request.shard, seconds, consequence)
        request.error.__cause__ = failure


def _lost() -> psycopg.OperationalError:
    return psycopg.OperationalError("the connection was lost before the answer came")
