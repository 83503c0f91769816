"""Statements that are sent to several servers before the first answer is read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from sqlalchemy_shards.connections.exchange import Exchange, Request, exchange
from sqlalchemy_shards.connections.fan_out import (
    AdaptiveFanOut,
    DeadlineExceeded,
    SequentialFanOut,
)
from sqlalchemy_shards.connections.hub import GreenletFanOut
from sqlalchemy_shards.connections.polling import SelectPoll
from tests.shards.watching import FOREVER, LIMIT_SECONDS, Watcher, press_ctrl_c, usable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy_shards.connections.hub import ShardConnection

    Connections = dict[str, ShardConnection]

FAN_OUT = AdaptiveFanOut(GreenletFanOut(drain_seconds=LIMIT_SECONDS))


def requests(connections: Connections, sql: bytes) -> list[Request]:
    return [Request(name, connection, sql) for name, connection in connections.items()]


def exchanged(requests: Iterable[Request], seconds: float = LIMIT_SECONDS) -> list[Request]:
    made = list(requests)
    heard: list[Request] = []
    exchange(made, heard.append, FAN_OUT, seconds=seconds)
    assert sorted(map(id, heard)) == sorted(map(id, made))
    return made


def test_every_server_answers_its_statement(connections: Connections) -> None:
    answers = exchanged(requests(connections, b"SELECT current_database(), NULL"))

    assert [answer.rows() for answer in answers] == [[(name, None)] for name in connections]
    assert [answer.error for answer in answers] == [None] * 4
    assert {answer.tag for answer in answers} == {"SELECT 1"}


def test_they_run_side_by_side(connections: Connections) -> None:
    began = time.monotonic()
    exchanged(requests(connections, b"SELECT pg_sleep(0.5)"))

    assert time.monotonic() - began < 2.0


def test_parameters_are_sent_as_text(connections: Connections) -> None:
    query = b"SELECT $1::int + 1, $2::text, length($3)"
    long = b"x" * 20_000_000
    request = Request("s0", connections["s0"], query, (b"6", None, long))

    [answer] = exchanged([request])

    assert answer.rows() == [("7", None, "20000000")]


def test_an_error_is_that_statements_reply(connections: Connections) -> None:
    made = requests(connections, b"SELECT 1")
    made[1].sql = b"SELECT 1/0"

    answers = exchanged(made)

    assert isinstance(answers[1].error, psycopg.errors.DivisionByZero)
    assert (answers[1].rows(), answers[1].tag) == ([], "")
    assert [answer.rows() for answer in answers if answer.shard != "s1"] == [[("1",)]] * 3
    assert all(usable(connection) for connection in connections.values())


def test_the_driver_knows_the_transactions_state(connections: Connections) -> None:
    for connection in connections.values():
        connection.execute("SELECT 1")

    answers = exchanged(requests(connections, b"COMMIT"))

    assert {answer.tag for answer in answers} == {"COMMIT"}
    states = {connection.info.transaction_status for connection in connections.values()}
    assert states == {TransactionStatus.IDLE}
    assert all(usable(connection) for connection in connections.values())


def test_a_lost_connection_is_that_statements_reply(
    connections: Connections, watcher: Watcher
) -> None:
    pid = connections["s2"].info.backend_pid
    watcher.connections[2].execute("SELECT pg_terminate_backend(%s, 20000)", [pid])

    answers = exchanged(requests(connections, b"SELECT 1"))

    assert [answer.is_lost for answer in answers] == [False, False, True, False]
    assert isinstance(answers[2].error, psycopg.OperationalError)
    assert [answer.error for answer in answers if answer.shard != "s2"] == [None] * 3


def test_a_connection_that_is_closed_already_is_a_reply_too(connections: Connections) -> None:
    connections["s0"].close()

    answers = exchanged(requests(connections, b"SELECT 1"))

    assert isinstance(answers[0].error, psycopg.OperationalError)
    assert [answer.rows() for answer in answers[1:]] == [[("1",)]] * 3


def test_at_the_deadline_what_still_runs_is_cancelled(
    connections: Connections, watcher: Watcher
) -> None:
    made = requests(connections, b"SELECT 1")
    made[3].sql = FOREVER.encode()

    answers = exchanged(made, seconds=0.2)

    assert isinstance(answers[3].error, DeadlineExceeded)
    assert "0.2 s passed on shard 's3'" in str(answers[3].error)
    assert [answer.rows() for answer in answers[:3]] == [[("1",)]] * 3
    assert watcher.active() == []
    assert all(usable(connection) for connection in connections.values())


def test_ctrl_c_cancels_what_runs_and_is_raised(connections: Connections, watcher: Watcher) -> None:
    with watcher.once_active(4, press_ctrl_c), pytest.raises(KeyboardInterrupt):
        exchanged(requests(connections, FOREVER.encode()))

    assert watcher.active() == []
    assert all(usable(connection) for connection in connections.values())


def test_an_interrupt_right_after_an_answer_is_raised(connections: Connections) -> None:
    class InterruptedPoll(SelectPoll):
        def unregister(self, socket: int) -> None:
            super().unregister(socket)
            raise KeyboardInterrupt

    connections["s0"].make_poll = InterruptedPoll  # type: ignore[method-assign, misc]

    with pytest.raises(KeyboardInterrupt):
        exchanged([Request("s0", connections["s0"], b"SELECT 1")])

    assert usable(connections["s0"])


def test_an_answer_is_heard_before_the_others_are_here(
    connections: Connections, watcher: Watcher
) -> None:
    made = requests(connections, FOREVER.encode())
    made[2].sql = b"SELECT 1"
    heard: list[str] = []

    def hear(request: Request) -> None:
        heard.append(request.shard)
        if request.shard == "s2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exchange(made, hear, FAN_OUT, seconds=LIMIT_SECONDS)

    assert heard[0] == "s2"
    assert sorted(heard) == ["s0", "s1", "s2", "s3"]
    assert watcher.active() == []
    assert all(usable(connection) for connection in connections.values())


def test_an_answer_that_was_taken_in_before_an_interrupt_is_read(connections: Connections) -> None:
    heard: list[Request] = []
    under_way = Exchange(heard.append)
    under_way.send(Request("s0", connections["s0"], b"SELECT 1"))
    while connections["s0"].pgconn.is_busy():
        connections["s0"].pgconn.consume_input()

    assert under_way.receive(time.monotonic() + 0.1)
    assert [answer.rows() for answer in heard] == [[("1",)]]


def test_without_a_hub_what_still_runs_is_cancelled_and_its_connection_closed(
    connections: Connections, watcher: Watcher
) -> None:
    made = requests(connections, FOREVER.encode())

    exchange(made, lambda _: None, SequentialFanOut(), seconds=0.1)

    watcher.wait_until_active(0)
    assert all(connection.closed for connection in connections.values())
    assert {type(each.error) for each in made} == {DeadlineExceeded}
