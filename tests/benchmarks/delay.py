"""Servers that are further away than they are: a process that passes everything on late.

It runs as a process of its own, so that its work is not the client's, and it takes care to be
quick, as its work is the machine's. asyncio waits for whole milliseconds only, rounded up, and
would make of a millisecond two and a half.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from collections import deque
from contextlib import contextmanager, suppress
from functools import partial
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextmanager
def delayed(urls: Mapping[str, str], *, seconds: float) -> Iterator[dict[str, str]]:
    """URLs of the same databases, whose answers come ``seconds`` later than else."""
    targets = {name: _target(url) for name, url in urls.items()}
    command = [sys.executable, str(Path(__file__)), str(seconds), json.dumps(targets)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            ports = json.loads(process.stdout.readline())
            yield {name: _through(url, ports[name]) for name, url in urls.items()}
        finally:
            process.stdin.close()  # which ends it


def _target(url: str) -> tuple[str, int]:
    """A host or the directory of a socket, and a port."""
    parsed = make_url(url)
    host = parsed.host or parsed.query.get("host", "localhost")
    port = parsed.port or parsed.query.get("port", 5432)
    return str(host), int(str(port))


def _through(url: str, port: int) -> str:
    parsed = make_url(url).set(host="127.0.0.1", port=port)
    parsed = parsed.difference_update_query(["host", "port"])
    return parsed.render_as_string(hide_password=False)


class _Way:
    """From one socket to another: pieces, and when each is to be written."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.pieces: deque[tuple[float, bytes]] = deque()
        self.back: _Way


class _Proxy:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._selector: Any = DefaultSelector()
        self._due: list[tuple[float, int, _Way]] = []
        self._order = count()

    def listen(self, host: str, port: int) -> int:
        """The port where connections to a host, or the directory of a socket, are taken."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._selector.register(listener, EVENT_READ, lambda _: self._accept(listener, host, port))
        return int(listener.getsockname()[1])

    def run(self) -> None:
        """Pass on, until standard input is closed."""
        self._selector.register(sys.stdin, EVENT_READ, None)
        while True:
            wait = max(0.0, self._due[0][0] - perf_counter()) if self._due else None
            select.select([self._selector.fileno()], [], [], wait)  # exact to the microsecond
            for key, events in self._selector.select(0):
                if key.data is None:
                    return
                key.data(events)
            while self._due and self._due[0][0] <= perf_counter():
                self._write(heappop(self._due)[2])

    def _accept(self, listener: socket.socket, host: str, port: int) -> None:
        near, _ = listener.accept()
        if host.startswith("/"):
            far = socket.socket(socket.AF_UNIX)
            far.connect(f"{host}/.s.PGSQL.{port}")
        else:
            far = socket.create_connection((host, port))
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there, back = _Way(near, far), _Way(far, near)
        there.back, back.back = back, there
        for way in (there, back):
            way.source.setblocking(False)
            self._selector.register(way.source, EVENT_READ, partial(self._ready, way))

    def _ready(self, way: _Way, events: int) -> None:
        if events & EVENT_WRITE:
            self._write(way.back)
        if events & EVENT_READ:
            self._read(way)

    def _read(self, way: _Way) -> None:
        try:
            piece = way.source.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        due = perf_counter() + self._seconds
        way.pieces.append((due, piece))
        heappush(self._due, (due, next(self._order), way))
        if not piece:
            with suppress(KeyError, ValueError):
                self._selector.unregister(way.source)

    def _write(self, way: _Way) -> None:
        """Write what is due; the rest of what the target does not take when it is ready again."""
        while way.pieces and way.pieces[0][0] <= perf_counter():
            due, piece = way.pieces.popleft()
            if not piece:
                self._end(way)
                return
            try:
                sent = way.target.send(piece)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._end(way)
                return
            if sent < len(piece):
                way.pieces.appendleft((due, piece[sent:]))
                self._expect(way, EVENT_READ | EVENT_WRITE)
                return
        self._expect(way, EVENT_READ)

    def _expect(self, way: _Way, events: int) -> None:
        with suppress(KeyError, ValueError):
            key = self._selector.get_key(way.target)
            if key.events != events:
                self._selector.modify(way.target, events, key.data)

    def _end(self, way: _Way) -> None:
        for each in (way.source, way.target):
            with suppress(KeyError, ValueError):
                self._selector.unregister(each)
            each.close()


def _serve(targets: Mapping[str, tuple[str, int]], seconds: float) -> None:
    proxy = _Proxy(seconds / 2)  # on the way there, and on the way back
    ports = {name: proxy.listen(host, port) for name, (host, port) in targets.items()}
    print(json.dumps(ports), flush=True)
    proxy.run()


if __name__ == "__main__":
    _serve(json.loads(sys.argv[2]), float(sys.argv[1]))
