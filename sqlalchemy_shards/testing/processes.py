"""Which PostgreSQL processes run in a directory, and how they are ended.

A process is only ever signalled when its own command line or working directory shows that it is a
PostgreSQL process of that directory: the number in a `postmaster.pid` may by now be anybody's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POLL_SECONDS = 0.005
QUIT_SECONDS = 3.0
KILL_SECONDS = 10.0

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class PostgresProcess:
    """A PostgreSQL process; `directory` is None where the platform does not tell it."""

    pid: int
    parent: int
    arguments: tuple[str, ...]
    directory: Path | None


def is_alive(pid: int) -> bool:
    """Return whether a process of this number runs; a zombie does not."""
    if (_PROC / "self" / "stat").exists():
        fields = _stat(pid)
        return bool(fields) and fields[0] not in "ZX"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def start_time(pid: int) -> str:
    """Return when the process started, in the kernel's ticks, or ``"-"`` if that is not known."""
    fields = _stat(pid)
    return fields[19] if fields else "-"


def processes_of(directory: Path) -> list[PostgresProcess]:
    """Return the PostgreSQL processes whose data or sockets are in `directory` or below it.

    :param directory: without symbolic links.
    """
    everything = list(_running())
    postmasters = {process.pid for process in everything if _names(process, directory)}
    return [
        process
        for process in everything
        if process.pid in postmasters
        or process.parent in postmasters
        or (process.directory is not None and process.directory.is_relative_to(directory))
    ]


def end_processes(directory: Path, *, at_once: bool = False) -> None:
    """End every PostgreSQL process of `directory`, and return when none is left.

    :param at_once: by SIGKILL; else by PostgreSQL's immediate shutdown, and SIGKILL for what is
        left after a few seconds.
    :raises ConfigurationError: one survived.
    """

    def none_left() -> bool:
        return not processes_of(directory)

    if not at_once:
        _signal_all(directory, signal.SIGQUIT)
        if wait_until(none_left, QUIT_SECONDS):
            return
    # Again and again, since a postmaster may have started one more before it died.
    if not wait_until(lambda: _signal_all(directory, signal.SIGKILL) == 0, KILL_SECONDS):
        raise ConfigurationError(
            f"PostgreSQL processes of {str(directory)!r} could not be ended",
            "end them by hand",
        )


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until `condition()` holds; return whether it did within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def release_shared_memory(data_directory: Path) -> None:
    """Remove the shared memory segment that a killed server of `data_directory` left, if any."""
    try:
        key, segment = (data_directory / "postmaster.pid").read_text().splitlines()[6].split()
        segments = (_PROC / "sysvipc" / "shm").read_text().splitlines()[1:]
    except (OSError, IndexError, ValueError):
        return
    for line in segments:
        fields = line.split()
        is_same = int(fields[0]) & 0xFFFFFFFF == int(key) and fields[1] == segment
        if is_same and fields[6] == "0" and (program := shutil.which("ipcrm")):
            subprocess.run([program, "-m", segment], check=False, capture_output=True)


def _signal_all(directory: Path, number: signal.Signals) -> int:
    processes = processes_of(directory)
    for process in processes:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            continue
    return len(processes)


def _names(process: PostgresProcess, directory: Path) -> bool:
    return any(
        argument == str(directory)
        or argument.startswith(f"{directory}/")
        or f"={directory}/" in argument
        for argument in process.arguments[1:]
    )


def _running() -> Iterator[PostgresProcess]:
    if not (_PROC / "self" / "stat").exists():
        yield from _running_by_ps()
        return
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if not Path(arguments[0]).name.startswith("postgres"):
                continue
            directory = (entry / "cwd").readlink()
        except OSError:
            continue
        fields = _stat(int(entry.name))
        if fields:
            yield PostgresProcess(int(entry.name), int(fields[1]), tuple(arguments), directory)


def _running_by_ps() -> Iterator[PostgresProcess]:
    listing = subprocess.run(
        ["ps", "-axww", "-o", "pid=,ppid=,command="], check=True, capture_output=True, text=True
    )
    for line in listing.stdout.splitlines():
        pid, parent, *arguments = line.split()
        if arguments and Path(arguments[0]).name.startswith("postgres"):
            yield PostgresProcess(int(pid), int(parent), tuple(arguments), None)


def _stat(pid: int) -> list[str]:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    # The name of the program stands in parentheses and may itself hold any of ") ".
    return text.rpartition(")")[2].split()
