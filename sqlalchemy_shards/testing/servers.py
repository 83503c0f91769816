"""Throwaway PostgreSQL servers on this machine: one `initdb`, copies of it, a postmaster for each.

- Servers listen on a Unix socket in a private directory only, never on a network.
- One directory in the temporary directory holds everything, and is removed at the end; if this
  process is killed, the next one that starts servers removes it and ends the servers.
- Data outlives the servers only where it was asked for: `directory=` with `keep=True`.
- Started by root, the servers run as another user (see `account`).
- A process that was forked from the owner never ends the owner's servers.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.testing.account import Account
from sqlalchemy_shards.testing.binaries import find_binaries
from sqlalchemy_shards.testing.data import check_version, has_data, make_data
from sqlalchemy_shards.testing.processes import end_processes, release_shared_memory, wait_until
from sqlalchemy_shards.testing.remains import (
    OWNER,
    claim_directory,
    claim_temporary_directory,
    remove_directory,
)
from sqlalchemy_shards.testing.settings import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

__all__ = ["PostgresServers", "find_binaries"]

START_SECONDS = 60.0
STOP_SECONDS = 30.0
LOG_LINES_SHOWN = 30
FIRST_PORT = 5432


class PostgresServers:
    """``with PostgresServers(4) as servers: create_engine(servers.url(0))``.

    :param count: how many servers.
    :param backend: ``"auto"``, ``"system"`` or ``"embedded"``, as in `find_binaries`.
    :param settings: PostgreSQL settings, over `settings.DEFAULT_SETTINGS`.
    :param directory: where data and logs are put; default: a temporary directory.
    :param keep: leave data and logs in `directory`; servers that find data there go on with it.
    :raises ConfigurationError: from ``with``, where servers cannot be started; shows their log.
    """

    def __init__(
        self,
        count: int = 4,
        *,
        backend: str = "auto",
        settings: Mapping[str, str | int] | None = None,
        directory: str | os.PathLike[str] | None = None,
        keep: bool = False,
    ) -> None:
        if keep and directory is None:
            raise ConfigurationError("servers cannot keep data in no directory", "pass directory=")
        self.count = count
        self._binaries = self._programs = find_binaries(backend)
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._directory = None if directory is None else Path(directory).resolve()
        self._keep = keep
        self._account = Account.choose()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._base: Path | None = None
        self._owner = os.getpid()
        self._is_claimed = False

    @property
    def version(self) -> int:
        """Major version of the servers, such as 18."""
        command: list[str | Path] = [self._binaries / "postgres", "-V"]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        number = re.search(r"\d+", answer.stdout)
        if number is None:
            raise ConfigurationError(
                f"{str(command[0])!r} does not tell its version: {answer.stdout!r}",
                "let PG_POSTGRES name another program",
            )
        return int(number.group())

    def url(
        self, server: int, database: str = "postgres", driver: str = "postgresql+psycopg"
    ) -> str:
        """Return the SQLAlchemy URL of a database; libpq understands it with ``"postgresql"``."""
        sockets = quote(str(self._started_base / "s"))
        return f"{driver}://postgres@/{database}?host={sockets}&port={FIRST_PORT + server}"

    def is_running(self, server: int) -> bool:
        """Return whether the server's postmaster lives."""
        process = self._processes.get(server)
        return process is not None and process.poll() is None

    def start(self, server: int) -> None:
        """Start a server that was stopped or killed, and return when it takes connections.

        Does nothing for one that runs.

        :raises ConfigurationError: it did not start; shows the end of its log.
        """
        if not self.is_running(server):
            self._launch(server)
        self._wait_ready(server)

    def stop(self, server: int) -> None:
        """Stop a server: its sessions are ended, its data are safe. Does nothing for a stopped one.

        (PostgreSQL's fast shutdown; an immediate one where that takes more than 30 s.)
        """
        if self.is_running(server):
            self._end(server, signal.SIGINT)

    def kill(self, server: int) -> None:
        """Kill the postmaster and all its children with SIGKILL, as a crash would end them."""
        process = self._processes[server]
        process.kill()
        process.wait()
        end_processes(self._data(server), at_once=True)

    def close(self) -> None:
        """Stop all servers and remove what is not kept. Does nothing in a forked process."""
        if self._base is None or os.getpid() != self._owner:
            return
        self._end_all()
        if self._directory is not None and self._is_claimed:
            self._leave(self._directory)
        remove_directory(self._base)
        self._base = None

    def __enter__(self) -> PostgresServers:
        self._owner = os.getpid()
        self._base = claim_temporary_directory(self._account)
        try:
            self._prepare()
            for server in range(self.count):
                self._launch(server)
            for server in range(self.count):
                self._wait_ready(server)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _started_base(self) -> Path:
        if self._base is None:
            raise ConfigurationError("the servers are not started", "use them inside `with`")
        return self._base

    @property
    def _home(self) -> Path:
        return self._directory or self._started_base

    def _data(self, server: int) -> Path:
        return self._home / f"d{server}"

    def _log(self, server: int) -> Path:
        return self._home / f"log{server}"

    def _prepare(self) -> None:
        base = self._started_base
        if self._account.is_other:
            base.chmod(0o711)
        self._account.make_directory(base / "s")
        self._programs = self._account.usable_binaries(self._binaries, base / "w")
        directories = [self._data(server) for server in range(self.count)]
        if self._directory is not None:
            if not self._keep and any(has_data(directory) for directory in directories):
                raise ConfigurationError(
                    f"{str(self._directory)!r} holds data already, which would be removed",
                    "pass keep=True, or choose another directory",
                )
            claim_directory(self._directory, self._account)
            self._is_claimed = True
        self._provide_data(directories)

    def _provide_data(self, directories: Sequence[Path]) -> None:
        found = [directory for directory in directories if has_data(directory)]
        for directory in found:
            check_version(directory, self.version)
        if missing := [directory for directory in directories if directory not in found]:
            make_data(missing, self._programs, self._account)

    def _launch(self, server: int) -> None:
        settings = {
            **self._settings,
            "listen_addresses": "",
            "unix_socket_directories": self._started_base / "s",
            "unix_socket_permissions": "0700",
            "port": FIRST_PORT + server,
        }
        command: list[str | Path] = [self._programs / "postgres", "-D", self._data(server)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log(server).open("ab") as log:
            # A session of its own, since Ctrl-C at the terminal would stop it under a test.
            self._processes[server] = subprocess.Popen(
                command,
                cwd=self._started_base,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._account.process_arguments,
            )

    def _wait_ready(self, server: int) -> None:
        process = self._processes[server]
        if wait_until(lambda: process.poll() is not None or self._is_ready(server), START_SECONDS):
            if process.poll() is None:
                return
            problem = f"PostgreSQL server {server} ended with status {process.returncode}"
        else:
            problem = f"PostgreSQL server {server} took more than {START_SECONDS:.0f} s to start"
        log = self._log(server).read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        raise ConfigurationError(
            "\n".join([f"{problem}; its log ends in", *log]), "see what the log says above"
        )

    def _is_ready(self, server: int) -> bool:
        try:
            lines = (self._data(server) / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        is_own = lines[:1] == [str(self._processes[server].pid)]
        return is_own and len(lines) > 7 and lines[7].strip() in ("ready", "standby")

    def _end(self, server: int, number: signal.Signals) -> None:
        process = self._processes[server]
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            end_processes(self._data(server))
            process.wait()

    def _end_all(self) -> None:
        # What is kept is shut down in order; for the rest, the quickest end is right.
        number = signal.SIGINT if self._keep else signal.SIGQUIT
        running = [server for server in self._processes if self.is_running(server)]
        for server in running:
            self._processes[server].send_signal(number)
        for server in running:
            self._end(server, number)
        self._processes.clear()

    def _leave(self, directory: Path) -> None:
        for server in range(self.count):
            release_shared_memory(self._data(server))
            if not self._keep:
                shutil.rmtree(self._data(server), ignore_errors=True)
                self._log(server).unlink(missing_ok=True)
        (directory / OWNER).unlink(missing_ok=True)
