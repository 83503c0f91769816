"""A branch that writes looks at its own socket, and lets the others have their turns."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from functools import partial
from itertools import groupby, repeat
from selectors import EVENT_READ, EVENT_WRITE
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.pq import TransactionStatus

from sqlalchemy_shards.connections.fan_out import Branch, DeadlineExceeded
from sqlalchemy_shards.connections.greenlets import (
    STEPS_IN_A_ROW,
    current_branch,
    ready_now,
)
from sqlalchemy_shards.connections.hub import GreenletFanOut
from sqlalchemy_shards.connections.polling import SelectPoll

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

BOTH = EVENT_READ | EVENT_WRITE
LOOKS = [ready_now, partial(ready_now, make=SelectPoll)]


class SocketAlone:
    """A connection that is a socket, and no server behind it."""

    cancellable = True

    def __init__(self, its_socket: socket.socket) -> None:
        self.pgconn: Any = SimpleNamespace(
            socket=its_socket.fileno(), transaction_status=TransactionStatus.IDLE
        )


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(2)]
        for each in (*made[0], *made[1]):
            each.setblocking(False)
            stack.callback(each.close)
        yield made


def wait(connection: SocketAlone, steps: Generator[int, int, int]) -> int:
    branch = current_branch()
    assert branch is not None
    return branch.hub.wait(connection, steps, 0.1)


def pipeline(steps: int | None, taken: Callable[[], None]) -> Generator[int, int, int]:
    """Ask before each step whether it can read or write; None: for ever."""
    for _ in repeat(None) if steps is None else repeat(None, steps):
        while not (yield BOTH):
            pass
        taken()
    return 0


@pytest.mark.parametrize("look", LOOKS)
def test_a_socket_is_looked_at_without_waiting(
    look: Callable[[int, int], int], pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    own, other = pairs[0]
    silent = [look(own.fileno(), events) for events in (EVENT_READ, EVENT_WRITE, BOTH)]
    other.send(b"x")
    spoken_to = [look(own.fileno(), events) for events in (EVENT_READ, EVENT_WRITE, BOTH)]

    assert silent == [0, EVENT_WRITE, EVENT_WRITE]
    assert spoken_to == [EVENT_READ, EVENT_WRITE, BOTH]


@pytest.mark.parametrize("look", LOOKS)
def test_a_full_socket_is_not_ready_for_writing_until_it_is_gone(
    look: Callable[[int, int], int], pairs: list[tuple[socket.socket, socket.socket]]
) -> None:
    own, other = pairs[0]
    with suppress(BlockingIOError):
        while True:
            own.send(b"x" * 65536)
    full = look(own.fileno(), BOTH)
    other.close()

    assert full == 0
    assert look(own.fileno(), BOTH) == BOTH


def test_branches_take_many_steps_in_a_row_and_then_turns(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    order: list[str] = []

    def branch(name: str, own: socket.socket) -> Branch[int]:
        steps = pipeline(5 * STEPS_IN_A_ROW, lambda: order.append(name))
        return Branch(name, lambda: wait(SocketAlone(own), steps))

    GreenletFanOut().run([branch("s0", pairs[0][0]), branch("s1", pairs[1][0])])
    rows = [(name, len(list(steps))) for name, steps in groupby(order)]

    assert len(order) == 10 * STEPS_IN_A_ROW
    # The step that a turn begins with is one that the loop gave.
    assert max(length for _, length in rows) <= STEPS_IN_A_ROW + 1
    assert len(rows) >= 9


def test_many_short_waits_take_turns_as_one_long_one_does(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    order: list[str] = []

    def branch(name: str, own: socket.socket) -> Branch[None]:
        def work() -> None:
            for _ in range(5 * STEPS_IN_A_ROW):
                wait(SocketAlone(own), pipeline(1, lambda: order.append(name)))

        return Branch(name, work)

    GreenletFanOut().run([branch("s0", pairs[0][0]), branch("s1", pairs[1][0])])

    assert max(len(list(steps)) for _, steps in groupby(order)) <= STEPS_IN_A_ROW + 1


def test_a_branch_that_could_always_go_on_ends_at_the_deadline(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    connection = SocketAlone(pairs[0][0])
    endless = Branch("s0", lambda: wait(connection, pipeline(None, lambda: None)))

    (outcome,) = GreenletFanOut().run([endless], deadline_seconds=0.05)

    assert isinstance(outcome.error, DeadlineExceeded)


def test_an_interruption_of_another_branch_reaches_one_that_could_always_go_on(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    def interrupt() -> int:
        wait(SocketAlone(pairs[1][0]), pipeline(STEPS_IN_A_ROW + 1, lambda: None))
        raise KeyboardInterrupt

    connection = SocketAlone(pairs[0][0])
    endless = Branch("s0", lambda: wait(connection, pipeline(None, lambda: None)))

    with pytest.raises(KeyboardInterrupt):
        GreenletFanOut().run([endless, Branch("s1", interrupt)])
