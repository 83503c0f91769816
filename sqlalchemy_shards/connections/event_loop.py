"""Waiting on asyncio's event loop, from within SQLAlchemy's greenlets.

What waits in an asyncio cluster waits here: the code above is the same as of any cluster. Outside
of such a greenlet nothing waits: SQLAlchemy's `MissingGreenlet` is raised, and no event loop is
ever blocked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from functools import partial
from math import inf
from selectors import EVENT_READ, EVENT_WRITE
from socket import SOCK_STREAM
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg

from sqlalchemy_shards._compat import await_only, in_greenlet
from sqlalchemy_shards.connections.greenlets import current_branch
from sqlalchemy_shards.connections.polling import READ, WRITE, SelectPoll
from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")

_TICK_SECONDS: Final = 0.1


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop that runs here.

    :raises ConfigurationError: none of asyncio's does.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "an asyncio cluster is used where no event loop of asyncio runs",
            "run it under asyncio (with anyio: its asyncio backend); trio is not supported",
        ) from None


def sleep(seconds: float) -> None:
    """Sleep, and let other branches, or other tasks, go on meanwhile."""
    branch = current_branch()
    if branch is not None:
        branch.hub.pause(seconds)
    elif in_greenlet():
        await_only(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def give_turn() -> None:
    """Let other tasks go on, within work that may never have to wait."""
    if in_greenlet():
        await_only(asyncio.sleep(0))


async def until_ready(fd: int, events: int, seconds: float) -> int:
    """Wait until a socket is ready; return for what, 0 where the time came first."""
    loop = running_loop()
    found: asyncio.Future[int] = loop.create_future()
    reads, writes = events & EVENT_READ, events & EVENT_WRITE
    watch(loop, fd, reads, writes, partial(_settle, found))
    timer = None if seconds == inf else loop.call_later(max(0.0, seconds), _settle, found, 0)
    try:
        return await found
    finally:
        if timer is not None:
            timer.cancel()
        unwatch(loop, fd, reads, writes)


def drive_request(steps: Generator[tuple[int, int], int, T], timeout: float | None) -> T:
    """Drive steps that name their sockets, as those of connecting, to their end.

    :raises psycopg.errors.ConnectionTimeout: they took longer than ``timeout`` seconds.
    """
    stop_at = inf if timeout is None else monotonic() + timeout
    try:
        fd, events = next(steps)
        while True:
            seconds = min(_TICK_SECONDS, stop_at - monotonic())
            ready = await_only(until_ready(fd, events, seconds))
            if not ready and monotonic() >= stop_at:
                raise psycopg.errors.ConnectionTimeout("connection timeout expired")
            fd, events = steps.send(ready)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        steps.close()


def with_addresses(parameters: dict[str, Any]) -> dict[str, Any]:
    """Look up the hosts of connection parameters, which libpq would block the event loop for."""
    hosts = str(parameters.get("host") or "").split(",")
    if parameters.get("hostaddr") or not any(map(_is_name, hosts)):
        return parameters
    ports = str(parameters.get("port") or "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        return parameters  # libpq says what is wrong with them
    found = [
        (host, address, port)
        for host, port in zip(hosts, ports, strict=True)
        for address in (await_only(_addresses(host)) if _is_name(host) else [_address(host)])
    ]
    columns = [",".join(each) for each in zip(*found, strict=True)]
    return {**parameters, **dict(zip(("host", "hostaddr", "port"), columns, strict=True))}


def watch(
    loop: asyncio.AbstractEventLoop, fd: int, reads: int, writes: int, tell: Callable[[int], object]
) -> None:
    """Let an event loop watch a descriptor, and ``tell`` ``reads`` or ``writes`` (0: neither).

    :raises ConfigurationError: it cannot.
    :raises psycopg.OperationalError: the descriptor is closed.
    """
    try:
        if reads:
            loop.add_reader(fd, tell, reads)
        if writes:
            loop.add_writer(fd, tell, writes)
    except NotImplementedError:  # the default loop of Windows: it waits for completions instead
        raise ConfigurationError(
            f"the event loop {type(loop).__name__} cannot wait for sockets",
            "on Windows, run asyncio.run(..., loop_factory=asyncio.SelectorEventLoop)",
        ) from None
    except (OSError, ValueError) as error:
        raise psycopg.OperationalError("the connection was closed") from error


def unwatch(loop: asyncio.AbstractEventLoop, fd: int, reads: int, writes: int) -> None:
    """End what `watch` began."""
    if reads:
        loop.remove_reader(fd)
    if writes:
        loop.remove_writer(fd)


class EventLoopPoll(SelectPoll):
    """As `SelectPoll`, where the event loop waits."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = running_loop()
        self._ready: dict[int, int] = {}
        self._anything: asyncio.Future[int] | None = None

    def register(self, socket: int, events: int) -> None:
        """Wait for these events of a socket; of one that is waited for already: for these only."""
        if socket in self._events:
            self.unregister(socket)
        super().register(socket, events)
        watch(self._loop, socket, events & READ, events & WRITE, partial(self._note, socket))

    def unregister(self, socket: int) -> None:
        """Wait for a socket no more."""
        events = self._events[socket]
        unwatch(self._loop, socket, events & READ, events & WRITE)
        self._ready.pop(socket, None)
        super().unregister(socket)

    def poll(self, milliseconds: int) -> list[tuple[int, int]]:
        """Return the sockets of which something happened, and what; none when the time is up."""
        if not self._ready:
            await_only(self._until_any(milliseconds / 1000))
        ready, self._ready = self._ready, {}
        return list(ready.items())

    async def _until_any(self, seconds: float) -> None:
        anything = self._anything = self._loop.create_future()
        timer = self._loop.call_later(seconds, _settle, anything, 0)
        try:
            await anything
        finally:
            timer.cancel()
            self._anything = None

    def _note(self, socket: int, event: int) -> None:
        self._ready[socket] = self._ready.get(socket, 0) | event
        if self._anything is not None:
            _settle(self._anything, event)


def _settle(future: asyncio.Future[int], value: int) -> None:
    if not future.done():
        future.set_result(value)


def _is_name(host: str) -> bool:
    return bool(host) and not host.startswith(("/", "@")) and not _address(host)


def _address(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


async def _addresses(host: str) -> list[str]:
    try:
        found = await running_loop().getaddrinfo(host, None, type=SOCK_STREAM)
    except OSError as error:
        raise psycopg.OperationalError(f"failed to resolve host {host!r}: {error}") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
