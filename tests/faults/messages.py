"""PostgreSQL's messages, cut out of the two streams of one connection.

Only what a fault needs to be placed is understood: the kind of a message, and the SQL text that a
request runs, also where it runs a statement that was parsed before.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

UNTYPED: Final = ""
"""Kind of what begins a connection: it has a length, and no letter."""

QUERY, PARSE, BIND = "Q", "P", "B"
COMMAND_COMPLETE, ERROR, READY, BACKEND_KEY = "C", "E", "Z", "K"

_PROTOCOL_3 = 3
_LENGTH_BYTES = 4


@dataclass(frozen=True)
class Message:
    """One message; ``raw`` is all of it, as it travels."""

    kind: str
    raw: bytes

    @property
    def body(self) -> bytes:
        return self.raw[_LENGTH_BYTES + len(self.kind) :]

    @property
    def is_startup(self) -> bool:
        """Whether it begins a session; else an untyped one asks for encryption, or cancels."""
        return self.kind == UNTYPED and struct.unpack("!H", self.body[:2])[0] == _PROTOCOL_3

    @property
    def asks_for_encryption(self) -> bool:
        return self.kind == UNTYPED and len(self.body) == _LENGTH_BYTES


@dataclass
class Framer:
    """Cuts one direction's bytes into messages.

    :param begins_untyped: of a client: its first messages have no letter.
    """

    begins_untyped: bool = False
    _rest: bytes = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take in bytes, and give the messages that are whole."""
        self._rest += data
        while True:
            letters = 0 if self.begins_untyped else 1
            if len(self._rest) < letters + _LENGTH_BYTES:
                return
            (length,) = struct.unpack_from("!I", self._rest, letters)
            if len(self._rest) < letters + length:
                return
            raw, self._rest = self._rest[: letters + length], self._rest[letters + length :]
            message = Message(raw[:letters].decode("ascii"), raw)
            if message.is_startup:
                self.begins_untyped = False
            yield message


@dataclass
class Statements:
    """The statements that one client has parsed, by name."""

    _texts: dict[bytes, str] = field(default_factory=dict)

    def text_of(self, message: Message) -> str | None:
        """SQL that a client's message runs; None: it runs nothing."""
        if message.kind == QUERY:
            return _text(message.body.split(b"\0", 1)[0])
        if message.kind == PARSE:
            name, query, _ = message.body.split(b"\0", 2)
            self._texts[name] = _text(query)
        if message.kind == BIND:
            _, name, _ = message.body.split(b"\0", 2)
            return self._texts.get(name, "")
        return None


def answer_of(message: Message) -> str | None:
    """A server's command tag, or the fields of its error; None: it is another message."""
    if message.kind in (COMMAND_COMPLETE, ERROR):
        return _text(message.body.rstrip(b"\0"))
    return None


def backend_pid(message: Message) -> int:
    """The server process that a `BACKEND_KEY` message speaks of."""
    pid: int
    (pid,) = struct.unpack_from("!I", message.body)
    return pid


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
