"""Who owns a directory of servers, and the removal of those whose owner is gone.

Each directory holds a file `owner`: the process that started the servers, with its start time, so
that a process number used again is not taken for the owner. Directories are made, claimed and
swept under one lock per user and temporary directory, so that

- a directory without `owner` was left by a removal that did not end, never by a beginning one;
- two runs that start at once do not sweep each other, nor the same remains.

Only directories that belong to our own user are ever touched.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.testing.processes import (
    end_processes,
    is_alive,
    release_shared_memory,
    start_time,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.account import Account

PREFIX = "pg-shards-"
OWNER = "owner"
LOCK_SECONDS = 60.0

# The path of a Unix socket has at most 103 bytes; ours adds 34 to the temporary directory.
_TEMPORARY_PATH_BYTES_MAX = 68


def claim_temporary_directory(account: Account) -> Path:
    """Remove the remains of killed runs, and return a new directory that this process owns.

    It is in the temporary directory; where `account` cannot enter that, in /tmp.
    """
    root = _temporary_root(account)
    with _lock(root):
        _sweep(root)
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        _write_owner(directory)
    return directory


def claim_directory(directory: Path, account: Account) -> None:
    """Make this process the owner of a directory that is kept, and end servers left in it.

    :raises ConfigurationError: a process that lives owns it, or `account` cannot enter it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if not account.reaches(directory):
        raise ConfigurationError(
            f"the servers, which run as {account.name}, cannot enter {str(directory)!r}",
            "choose another directory, or run as a normal user",
        )
    with _lock(_temporary_root(account)):
        if _has_living_owner(directory):
            owner = (directory / OWNER).read_text().split()[0]
            raise ConfigurationError(
                f"process {owner} runs servers in {str(directory)!r}",
                "end it first, or choose another directory",
            )
        end_processes(directory)
        _write_owner(directory)


def remove_directory(directory: Path) -> None:
    """End the servers that are left in `directory`, and remove it."""
    end_processes(directory)
    for data_directory in directory.glob("d*"):
        release_shared_memory(data_directory)
    shutil.rmtree(directory, ignore_errors=True)


def _sweep(root: Path) -> None:
    for directory in root.glob(f"{PREFIX}*"):
        if _is_ours(directory) and not _has_living_owner(directory):
            remove_directory(directory)


def _is_ours(directory: Path) -> bool:
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _has_living_owner(directory: Path) -> bool:
    try:
        pid, started, namespace = (directory / OWNER).read_text().split()
    except (OSError, ValueError):
        return False
    if namespace != _pid_namespace():
        # Another container's process number says nothing here, so its directory is left alone.
        return True
    return is_alive(int(pid)) and start_time(int(pid)) == started


def _write_owner(directory: Path) -> None:
    text = f"{os.getpid()} {start_time(os.getpid())} {_pid_namespace()}\n"
    (directory / OWNER).write_text(text)


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return "-"


def _temporary_root(account: Account) -> Path:
    root = Path(tempfile.gettempdir()).resolve()
    is_short = len(os.fsencode(root)) <= _TEMPORARY_PATH_BYTES_MAX
    return root if is_short and account.reaches(root) else Path("/tmp")


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    path = root / f".{PREFIX}{os.geteuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if not wait_until(lambda: _try_lock(descriptor), LOCK_SECONDS):
            raise ConfigurationError(
                f"another run holds {str(path)!r} for more than {LOCK_SECONDS:.0f} s",
                "see what that run is waiting for",
            )
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
