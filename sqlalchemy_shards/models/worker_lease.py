"""Worker numbers for the processes of one machine: each takes one that no other holds.

Invariants:

- A number is held by a lock of the operating system on a file, so it is free again when the process
  has ended, however it ended.
- A forked child does not hold its parent's number for itself: it takes another one.

A directory is shared by the processes of one machine or container; machines need ranges that do not
overlap, since files of a network may not be locked over machines.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.generated_id import WORKERS_MAX

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable


class WorkerLease:
    """Finds the worker number of a process, for ``IdGenerator(worker=...)``.

    Called, it returns the first of ``numbers`` that no other living process holds, and holds it
    until this process ends. The generators of one process may share a lease.

    :param numbers: worker numbers of this machine, such as ``range(0, 16)``; those of two machines
        must not overlap.
    :param directory: where the lock files lie: local to the machine, and kept while it runs. It is
        created where it is missing.
    :raises ConfigurationError: there is a number outside 0 to 127, or none.
    """

    def __init__(self, numbers: Iterable[int], *, directory: str | os.PathLike[str]) -> None:
        self._numbers = tuple(numbers)
        self._directory = Path(directory)
        self._held: dict[int, tuple[int, int]] = {}
        if not self._numbers or any(not 0 <= number < WORKERS_MAX for number in self._numbers):
            raise ConfigurationError(
                "a WorkerLease needs worker numbers",
                f"give whole numbers from 0 to {WORKERS_MAX - 1}, such as range(0, 16)",
            )

    def __call__(self) -> int:
        """Return the number of this process.

        :raises ConfigurationError: all numbers are held, the directory cannot be written to, or
            this operating system has no such locks.
        """
        pid = os.getpid()
        held = self._held.get(pid)
        if held is None:
            # Two threads may come here at once: the one that is later gives its number back.
            taken = self._take()
            held = self._held.setdefault(pid, taken)
            if held != taken:
                os.close(taken[1])
        return held[0]

    def _take(self) -> tuple[int, int]:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            for number in self._numbers:
                descriptor = _locked(self._directory / f"worker-{number}.lock")
                if descriptor is not None:
                    return number, descriptor
        except OSError as error:
            raise ConfigurationError(
                f"no worker number can be taken in {str(self._directory)!r}: {error.strerror}",
                "name a directory that this process may write to",
            ) from None
        raise ConfigurationError(
            f"all {len(self._numbers)} worker numbers in {str(self._directory)!r} are held by "
            "living processes",
            "give the WorkerLease as many numbers as this machine has processes",
        )


_MODE: Final = 0o666  # less the umask: processes of several users may share the numbers


def _locked(path: Path) -> int | None:
    """An open descriptor that holds the lock of a file, None: another process holds it."""
    if fcntl is None:
        raise ConfigurationError(
            "this operating system has no locks that end with their process",
            "give IdGenerator a worker number of your own",
        )
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
