"""Worker processes, as their runner sees them.

Each is a process of its own session, so that Ctrl-C reaches the runner alone, which then tells its
workers. What a worker says arrives in one queue. A worker whose runner is gone sees its input end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy_shards.migrations.workers.messages import Take, decode, encode

if TYPE_CHECKING:
    from queue import SimpleQueue

    from sqlalchemy_shards.migrations.workers.messages import Job, Message

LINES_KEPT: Final = 50
"""How many of the last lines that a worker printed are kept."""

_PROGRAM: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop());"
    " from sqlalchemy_shards.migrations.workers.worker import main; main()"
)
_INTERRUPT: Final = signal.SIGINT if os.name == "posix" else signal.SIGTERM


@dataclass(frozen=True, slots=True)
class Said:
    """A worker's message."""

    worker: Worker
    message: Message


@dataclass(frozen=True, slots=True)
class Printed:
    """A line that ``env.py`` or a revision printed or logged."""

    worker: Worker
    line: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker's process has ended; nothing more comes from it."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class StopWanted:
    """Somebody wants the run to stop: Ctrl-C, or a signal."""


Happening = Said | Printed | Ended | StopWanted


class Worker:
    """One process; it begins when this is made.

    :param happenings: where everything that comes from it is put.
    """

    def __init__(self, job: Job, happenings: SimpleQueue[Happening]) -> None:
        self.shard: str | None = None
        self.is_ready = False
        self.is_stopping = False
        self.trouble: str | None = None
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._happenings = happenings
        # Not the multiprocessing module: it would import the application's main module again,
        # which not every script is made for.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps([path or "." for path in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self._tell(job)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a shard."""
        return self.is_ready and self.shard is None and not self.is_stopping

    def take(self, shard: str) -> None:
        """Give it its next shard."""
        self.shard = shard
        self._tell(Take(shard))

    def dismiss(self) -> None:
        """Tell it that no more will come."""
        self.is_stopping = True
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(OSError):
                stdin.close()

    def interrupt(self) -> None:
        """Have it roll back what it does, and end."""
        self.dismiss()
        self._process.send_signal(_INTERRUPT)

    def kill(self) -> None:
        """End it now. Its servers roll back what it did not commit."""
        self.dismiss()
        self._process.kill()

    def ending(self) -> str:
        """How its process ended."""
        code = self._process.wait()
        if code < 0:
            return f"its worker was killed by signal {-code} ({_signal_name(-code)})"
        return f"its worker ended with exit code {code}"

    def _tell(self, message: Message) -> None:
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(OSError):  # that it has ended arrives by itself
                stdin.write(encode(message))
                stdin.flush()

    def _listen(self) -> None:
        printing = threading.Thread(target=self._listen_to_what_is_printed, daemon=True)
        printing.start()
        with self._process.stdout or open(os.devnull) as stdout:  # noqa: PTH123
            for line in stdout:
                self._happenings.put(Said(self, decode(line)))
        self._process.wait()
        # A process that the worker began may hold its standard error open for long.
        printing.join(timeout=1)
        self._happenings.put(Ended(self))

    def _listen_to_what_is_printed(self) -> None:
        with self._process.stderr or open(os.devnull) as stderr:  # noqa: PTH123
            for line in stderr:
                self.lines.append(line.rstrip())
                self._happenings.put(Printed(self, line.rstrip()))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
