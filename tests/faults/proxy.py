"""A network between a cluster and one of its servers, which fails when and where it is told to.

- Passes PostgreSQL's messages on, one by one, over TCP. A trap waits for the n-th request whose SQL
  it matches, and strikes before the server has the request, or when the server has done all of it
  and nobody was told.
- A link that hangs swallows what both sides say, and closes neither, until it is healed: that is
  what a broken network looks like.
- What a test does in a trap, such as killing the server, is done before anything else passes on
  that link.
"""

from __future__ import annotations

import enum
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tests.faults.messages import (
    BACKEND_KEY,
    READY,
    UNTYPED,
    Framer,
    Message,
    Statements,
    backend_pid,
)

if TYPE_CHECKING:
    from pathlib import Path

CHUNK_BYTES = 65536
WAIT_SECONDS = 20.0


class Fate(enum.Enum):
    """What becomes of a link."""

    PASS = "it goes on"
    CLOSE = "both sides find it closed"
    HANG = "both sides hear nothing more"


class Moment(enum.Enum):
    """When a trap strikes."""

    REQUEST = "before the server has the request"
    REPLY = "when the server has done it, before the client is told"


Strike: TypeAlias = Callable[[], Fate]
"""What a trap does in the link's thread; it returns what becomes of the link."""


@dataclass
class Trap:
    """Waits for a request, and strikes once.

    :param pattern: regular expression that is searched in the SQL of a request.
    :param nth: which of the requests that match.
    """

    pattern: str
    moment: Moment
    strike: Strike
    nth: int = 1
    struck: threading.Event = field(default_factory=threading.Event)

    def matches(self, sql: str) -> bool:
        """Whether this is the request that it waits for."""
        if re.search(self.pattern, sql) is None:
            return False
        self.nth -= 1
        return self.nth == 0

    def wait(self) -> None:
        """Wait until it has struck."""
        assert self.struck.wait(WAIT_SECONDS), f"no request matched {self.pattern!r}"


class Proxy:
    """``with Proxy(path_of_the_server's_socket) as proxy: connect(port=proxy.port)``."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._traps: list[Trap] = []
        self._beginning: str | None = None
        self._is_silent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Proxy:
        self._acceptor.start()
        return self

    def __exit__(self, *error: object) -> None:
        # A thread that accepts is not woken by a close.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self.heal()
        for link in self._each_link():
            link.close()
            link.join()

    # -- faults --

    def trap(
        self,
        pattern: str,
        strike: Strike | Fate,
        *,
        moment: Moment = Moment.REQUEST,
        nth: int = 1,
    ) -> Trap:
        """Set a trap; `Fate` alone says what becomes of the link."""
        fate = strike
        trap = Trap(pattern, moment, (lambda: fate) if isinstance(fate, Fate) else fate, nth)
        with self._lock:
            self._traps.append(trap)
        return trap

    def heed_from(self, pattern: str) -> None:
        """Let no trap see a request before one that matches."""
        self._beginning = pattern

    def delay(self, pattern: str, seconds: float, *, nth: int = 1) -> Trap:
        """Let a request wait before it is passed on."""

        def wait() -> Fate:
            threading.Event().wait(seconds)
            return Fate.PASS

        return self.trap(pattern, wait, nth=nth)

    def close_links(self) -> None:
        """Break every connection; new ones can be made."""
        for link in self._each_link():
            link.close()

    def hang_links(self) -> None:
        """Let every connection hang; new ones can be made."""
        for link in self._each_link():
            link.is_silent = True

    def silence(self) -> None:
        """Let every connection hang, those that are made from now on too, until `heal`."""
        self._is_silent = True
        self.hang_links()

    def heal(self) -> None:
        """Forget all traps, and break the connections that hang."""
        with self._lock:
            self._traps.clear()
            self._beginning = None
            self._is_silent = False
        for link in self._each_link():
            if link.is_silent:
                link.close()

    def backends(self) -> list[int]:
        """The server processes behind the connections that are open."""
        return [link.backend for link in self._each_link() if link.backend is not None]

    # -- the network --

    def sprung(self, sql: str) -> Trap | None:
        """The trap that was waiting for this request, if any; for links."""
        with self._lock:
            if self._beginning is not None:
                if re.search(self._beginning, sql) is None:
                    return None
                self._beginning = None
            found = [trap for trap in self._traps if trap.matches(sql)]
            for trap in found:
                self._traps.remove(trap)
        return found[0] if found else None

    def _each_link(self) -> list[_Link]:
        with self._lock:
            self._links = [link for link in self._links if link.is_alive]
            return list(self._links)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._target))
            except OSError:
                client.close()
                server.close()
                continue
            link = _Link(self, client, server)
            with self._lock:
                link.is_silent = self._is_silent
                self._links.append(link)
            link.start()


class _Link:
    """One connection, with a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._statements = Statements()
        self._trap: Trap | None = None
        self._held: list[bytes] = []
        self.is_silent = False
        self.backend: int | None = None
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._carrying = 2
        self._ending = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(carry,), daemon=True)
            for carry in (self._carry_requests, self._carry_replies)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    @property
    def is_alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Let both sides find it closed, and the threads end."""
        with self._ending:
            self.is_silent = False
            for end in (self._client, self._server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _run(self, carry: Callable[[], None]) -> None:
        try:
            carry()
        finally:
            with self._ending:
                self._carrying -= 1
                if self._carrying == 0:
                    self._client.close()
                    self._server.close()

    def _carry_requests(self) -> None:
        framer = Framer(begins_untyped=True)
        while data := _received(self._client):
            for message in framer.feed(data):
                if message.kind == UNTYPED and message.asks_for_encryption:
                    _send(self._client, b"N")
                elif self._may_pass(message):
                    _send(self._server, message.raw)
        if not self.is_silent:
            # What was sent before is still carried out, and its answers are read to their end.
            with suppress(OSError):
                self._server.shutdown(socket.SHUT_WR)

    def _may_pass(self, message: Message) -> bool:
        sql = self._statements.text_of(message)
        trap = None if sql is None or self.is_silent else self._proxy.sprung(sql)
        if trap is not None and trap.moment is Moment.REPLY:
            self._trap = trap
        elif trap is not None:
            self._suffer(trap)
        return not self.is_silent

    def _carry_replies(self) -> None:
        framer = Framer()
        while data := _received(self._server):
            for message in framer.feed(data):
                if message.kind == BACKEND_KEY:
                    self.backend = backend_pid(message)
                self._held.append(message.raw)
                if self._trap is not None and message.kind == READY:
                    trap, self._trap = self._trap, None
                    self._suffer(trap)
                if self._trap is None:
                    self._let_go()
        if not self.is_silent:
            self.close()

    def _let_go(self) -> None:
        """Hand on what was held back for a trap that waited for the end of the answer."""
        if not self.is_silent:
            _send(self._client, b"".join(self._held))
        self._held.clear()

    def _suffer(self, trap: Trap) -> None:
        fate = trap.strike()
        if fate is Fate.HANG:
            self.is_silent = True
        if fate is Fate.CLOSE:
            self.close()
        trap.struck.set()


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(CHUNK_BYTES)
    except OSError:
        return b""


def _send(end: socket.socket, data: bytes) -> None:
    # Who has gone is noticed by the thread that reads from him.
    with suppress(OSError):
        end.sendall(data)
