"""Waiting on asyncio's event loop from SQLAlchemy's greenlets."""

from __future__ import annotations

import asyncio
import selectors
import socket
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy.util import greenlet_spawn

from sqlalchemy_shards import AsyncShardedSession, create_async_cluster
from sqlalchemy_shards.connections.event_loop import (
    EventLoopPoll,
    sleep,
    until_ready,
    with_addresses,
)
from sqlalchemy_shards.connections.event_loop_hub import EventLoopHub
from sqlalchemy_shards.connections.fan_out import Branch
from sqlalchemy_shards.connections.greenlets import current_branch
from sqlalchemy_shards.connections.hub import GreenletFanOut
from sqlalchemy_shards.connections.polling import READ, WRITE
from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


def in_greenlet(function: Callable[..., Any], *arguments: Any) -> Any:
    return asyncio.run(greenlet_spawn(function, *arguments))


def wait_in_branches(sock: socket.socket, hub: type[EventLoopHub]) -> None:
    """Wait until there is something to be read, as connecting does, in a branch."""

    def wait() -> None:
        branch = current_branch()
        assert branch is not None
        branch.hub.connect(steps(sock.fileno()), None)

    def steps(fd: int) -> Generator[tuple[int, int], int, None]:
        yield fd, EVENT_READ

    [outcome] = GreenletFanOut(hub=hub).run([Branch("s0", wait)], deadline_seconds=60.0)
    outcome.result()


class WithoutSockets(asyncio.SelectorEventLoop):
    def add_reader(self, fd: Any, callback: Any, *arguments: Any) -> None:
        raise NotImplementedError


class TestLookingUpHosts:
    def test_a_name_gets_its_addresses(self) -> None:
        found = in_greenlet(with_addresses, {"host": "localhost", "port": "5432", "user": "me"})

        addresses = found["hostaddr"].split(",")
        assert {"127.0.0.1", "::1"} >= set(addresses)
        assert found["host"].split(",") == ["localhost"] * len(addresses)
        assert found["port"].split(",") == ["5432"] * len(addresses)
        assert found["user"] == "me"

    def test_each_of_several_hosts_keeps_its_port(self) -> None:
        given = {"host": "10.1.2.3,localhost", "port": "5432,5433"}
        found = in_greenlet(with_addresses, given)

        assert found["hostaddr"].split(",")[0] == "10.1.2.3"
        assert found["host"].split(",")[:2] == ["10.1.2.3", "localhost"]
        assert found["port"].split(",")[:2] == ["5432", "5433"]

    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"host": "/run/postgresql"},
            {"host": "127.0.0.1"},
            {"host": "::1"},
            {"host": "db", "hostaddr": "10.0.0.1"},
            {"host": "a,b,c", "port": "1,2"},
        ],
        ids=str,
    )
    def test_what_needs_no_looking_up_is_left(self, given: dict[str, Any]) -> None:
        assert in_greenlet(with_addresses, given) == given

    def test_an_unknown_name_is_told(self) -> None:
        with pytest.raises(psycopg.OperationalError, match=r"resolve host 'no\.such\.invalid'"):
            in_greenlet(with_addresses, {"host": "no.such.invalid"})


class TestWaiting:
    def test_sleeping_lets_other_tasks_go_on(self) -> None:
        async def both() -> list[str]:
            order: list[str] = []

            def sleeping() -> None:
                sleep(0.01)
                order.append("slept")

            async def other() -> None:
                order.append("other")

            await asyncio.gather(greenlet_spawn(sleeping), other())
            return order

        assert asyncio.run(both()) == ["other", "slept"]

    def test_a_socket_that_stays_silent_is_given_up_in_time(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert asyncio.run(until_ready(ours.fileno(), EVENT_READ, 0.01)) == 0
            assert asyncio.run(until_ready(ours.fileno(), EVENT_WRITE, 10.0)) == EVENT_WRITE

    def test_of_several_sockets_those_that_are_ready_are_told(self) -> None:
        def polled() -> list[list[tuple[int, int]]]:
            poll = EventLoopPoll()
            poll.register(silent.fileno(), READ)
            poll.register(ready.fileno(), READ | WRITE)
            found = [poll.poll(10_000)]
            poll.register(ready.fileno(), READ)
            found.append(poll.poll(1))
            poll.unregister(ready.fileno())
            poll.unregister(silent.fileno())
            return found

        silent, silent_peer = socket.socketpair()
        ready, ready_peer = socket.socketpair()
        with silent, silent_peer, ready, ready_peer:
            assert in_greenlet(polled) == [[(ready.fileno(), WRITE)], []]

    def test_an_event_loop_without_sockets_is_refused(self) -> None:
        loop = WithoutSockets()
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(ConfigurationError, match="cannot wait for sockets"):
            loop.run_until_complete(until_ready(ours.fileno(), EVENT_READ, 1.0))
        loop.close()


class TestWaitingInBranches:
    @pytest.fixture
    def sockets(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield ours, theirs

    def test_an_event_loop_without_sockets_is_refused(
        self, sockets: tuple[socket.socket, socket.socket]
    ) -> None:
        loop = WithoutSockets()
        with pytest.raises(ConfigurationError, match="cannot wait for sockets"):
            loop.run_until_complete(greenlet_spawn(wait_in_branches, sockets[0], EventLoopHub))
        loop.close()

    def test_sockets_are_watched_for_what_is_awaited_where_a_selector_is_no_descriptor(
        self, sockets: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[float] = []

        class CountingHub(EventLoopHub):
            def _wait(self, timeout: float) -> None:
                waits.append(timeout)
                super()._wait(timeout)

        async def waited() -> None:
            asyncio.get_running_loop().call_later(0.05, sockets[1].send, b"!")
            await greenlet_spawn(wait_in_branches, sockets[0], CountingHub)

        monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
        asyncio.run(waited())

        assert 0 < len(waits) < 10


def test_a_session_without_a_loop_of_asyncio_is_refused() -> None:
    cluster = create_async_cluster({"s0": "postgresql+psycopg://nobody@localhost/none"})
    entering = AsyncShardedSession(cluster).__aenter__()

    with pytest.raises(ConfigurationError, match="no event loop of asyncio runs"):
        entering.send(None)
