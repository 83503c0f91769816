"""The network of these tests fails where it is told to, and nowhere else."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import make_url

from tests.faults.messages import Framer
from tests.faults.proxy import Fate, Moment
from tests.faults.world import START, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.world import World

RAISE = "UPDATE account SET amount = amount + 1"


@contextmanager
def connection(world: World, **options: Any) -> Iterator[psycopg.Connection[Any]]:
    url = make_url(world.urls["s1"]).set(drivername="postgresql")
    opened = psycopg.connect(url.render_as_string(hide_password=False), autocommit=True, **options)
    try:
        yield opened
    finally:
        opened.close()


def test_what_no_trap_waits_for_passes(world: World) -> None:
    world.proxies["s1"].trap("DELETE", Fate.CLOSE)

    with connection(world) as client:
        client.execute(RAISE)
        rows = client.execute("SELECT %s || repeat('x', 200000)", ("é",)).fetchall()

    assert rows == [("é" + "x" * 200_000,)]
    assert world.amounts()["s1"] == START + 1


def test_a_request_that_is_lost_is_not_done(world: World) -> None:
    trap = world.proxies["s1"].trap("^UPDATE", Fate.CLOSE, nth=2)

    with connection(world) as client:
        client.execute(RAISE)
        with pytest.raises(psycopg.OperationalError):
            client.execute(RAISE)

    trap.wait()
    assert world.amounts()["s1"] == START + 1


def test_a_reply_that_is_lost_is_of_what_is_done(world: World) -> None:
    world.proxies["s1"].trap("^UPDATE", Fate.CLOSE, moment=Moment.REPLY)

    with connection(world) as client, pytest.raises(psycopg.OperationalError):
        client.execute(RAISE)

    assert world.amounts()["s1"] == START + 1


def test_a_statement_that_was_parsed_before_is_known(world: World) -> None:
    trap = world.proxies["s1"].trap("amount \\+ ", Fate.CLOSE, nth=3)

    with connection(world, prepare_threshold=0) as client:
        for _ in range(2):
            client.execute("UPDATE account SET amount = amount + %s", (1,))
        with pytest.raises(psycopg.OperationalError):
            client.execute("UPDATE account SET amount = amount + %s", (1,))

    trap.wait()
    assert world.amounts()["s1"] == START + 2


@pytest.mark.parametrize("moment", [Moment.REQUEST, Moment.REPLY])
def test_a_link_that_hangs_says_nothing_until_it_is_healed(world: World, moment: Moment) -> None:
    proxy = world.proxies["s1"]
    trap = proxy.trap("^UPDATE", Fate.HANG, moment=moment)

    with connection(world) as client:
        client.pgconn.send_query(RAISE.encode())
        trap.wait()
        with connection(world) as beside:
            lives = beside.execute("SELECT 1").fetchone()
        proxy.heal()
        eventually(lambda: _is_broken(client), "the end of the link")

    assert lives == (1,)
    assert world.amounts()["s1"] == START + (moment is Moment.REPLY)


def test_silence_is_for_all_who_come(world: World) -> None:
    world.proxies["s1"].silence()

    with pytest.raises(psycopg.errors.ConnectionTimeout), connection(world, connect_timeout=1):
        pass

    world.proxies["s1"].heal()
    with connection(world) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_a_request_can_be_late(world: World) -> None:
    trap = world.proxies["s1"].delay("^UPDATE", 0.05)

    with connection(world) as client:
        client.execute(RAISE)

    trap.wait()
    assert world.amounts()["s1"] == START + 1


def test_a_server_that_is_down_takes_no_connection(world: World) -> None:
    world.kill_server("s1")

    with ExitStack() as stack, pytest.raises(psycopg.OperationalError):
        stack.enter_context(connection(world))


def test_the_proxy_knows_the_servers_process(world: World) -> None:
    with connection(world) as client:
        assert client.info.backend_pid in world.proxies["s1"].backends()


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_messages_are_cut_wherever_the_stream_is(size: int) -> None:
    startup = b"\0\0\0\x0c\0\x03\0\0user"
    stream = startup + b"Q\0\0\0\x0cCOMMIT;\0" + b"X\0\0\0\x04"
    framer = Framer(begins_untyped=True)

    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    messages = [message for piece in pieces for message in framer.feed(piece)]

    assert [message.kind for message in messages] == ["", "Q", "X"]
    assert b"".join(message.raw for message in messages) == stream


def _is_broken(client: psycopg.Connection[Any]) -> bool:
    try:
        client.pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return False
