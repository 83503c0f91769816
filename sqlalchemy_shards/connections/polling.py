"""Which of some sockets can be read or written: `select.poll`, and the same where there is none.

A selector of Python's own costs four times as much for sockets that are waited for once.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

READ: Final[int] = getattr(select, "POLLIN", 1)
WRITE: Final[int] = getattr(select, "POLLOUT", 4)


class SelectPoll:
    """The part of `select.poll` that is used here, for Windows, which has no such thing."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, socket: int, events: int) -> None:
        """Wait for these events of a socket; of one that is waited for already: for these only."""
        self._events[socket] = events

    def unregister(self, socket: int) -> None:
        """Wait for a socket no more."""
        del self._events[socket]

    def poll(self, milliseconds: int) -> list[tuple[int, int]]:
        """Return the sockets of which something happened, and what; none when the time is up.

        Of one with an error it is everything.
        """
        readers = [socket for socket, events in self._events.items() if events & READ]
        writers = [socket for socket, events in self._events.items() if events & WRITE]
        found = select.select(readers, writers, list(self._events), milliseconds / 1000)
        readable, writable, failed = found
        happened = dict.fromkeys(readable, READ)
        for socket in writable:
            happened[socket] = happened.get(socket, 0) | WRITE
        happened.update(dict.fromkeys(failed, READ | WRITE))
        return list(happened.items())


make_poll: Final[Callable[[], SelectPoll]] = getattr(select, "poll", SelectPoll)
