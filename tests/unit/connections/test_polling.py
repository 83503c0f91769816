"""Waiting for some sockets, in each of its ways."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, TypeAlias

import pytest

from sqlalchemy_shards.connections.polling import READ, WRITE, SelectPoll, make_poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.parametrize("make", [make_poll, SelectPoll])

Pair: TypeAlias = tuple[socket.socket, socket.socket]

AT_ONCE = 0
LIMIT_MILLISECONDS = 10_000


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_socket_without_news_is_not_told(make: Callable[[], SelectPoll], pair: Pair) -> None:
    poll = make()
    poll.register(pair[0].fileno(), READ)

    assert poll.poll(AT_ONCE) == []


def test_what_came_is_told(make: Callable[[], SelectPoll], pair: Pair) -> None:
    poll = make()
    poll.register(pair[0].fileno(), READ)
    poll.register(pair[1].fileno(), READ)
    pair[1].send(b"x")

    assert poll.poll(LIMIT_MILLISECONDS) == [(pair[0].fileno(), READ)]


def test_room_for_sending_is_told_while_it_is_asked_for(
    make: Callable[[], SelectPoll], pair: Pair
) -> None:
    poll = make()
    poll.register(pair[0].fileno(), READ | WRITE)
    before = poll.poll(LIMIT_MILLISECONDS)
    poll.register(pair[0].fileno(), READ)

    assert before == [(pair[0].fileno(), WRITE)]
    assert poll.poll(AT_ONCE) == []


def test_both_are_told_at_once(make: Callable[[], SelectPoll], pair: Pair) -> None:
    poll = make()
    poll.register(pair[0].fileno(), READ | WRITE)
    pair[1].send(b"x")

    assert poll.poll(LIMIT_MILLISECONDS) == [(pair[0].fileno(), READ | WRITE)]


def test_the_end_of_a_connection_is_told(make: Callable[[], SelectPoll], pair: Pair) -> None:
    poll = make()
    poll.register(pair[0].fileno(), READ)
    pair[1].close()

    assert [number for number, _ in poll.poll(LIMIT_MILLISECONDS)] == [pair[0].fileno()]


def test_a_socket_that_was_taken_out_is_not_told(
    make: Callable[[], SelectPoll], pair: Pair
) -> None:
    poll = make()
    poll.register(pair[0].fileno(), READ)
    pair[1].send(b"x")
    poll.unregister(pair[0].fileno())

    assert poll.poll(AT_ONCE) == []
