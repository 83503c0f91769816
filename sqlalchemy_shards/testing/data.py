"""The data directories of servers: one `initdb`, then copies of what it made.

A directory gets its name only when it is whole, so that a run that is killed in the middle leaves
nothing that looks like a server's data.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy_shards.testing.account import Account

_UNFINISHED = "new-"


def has_data(directory: Path) -> bool:
    """Return whether `directory` is the data directory of a PostgreSQL server."""
    return (directory / "PG_VERSION").exists()


def check_version(directory: Path, version: int) -> None:
    """Raise unless programs of this major version can run on the data of `directory`.

    :raises ConfigurationError: the data are of another version.
    """
    found = (directory / "PG_VERSION").read_text().strip()
    if found != str(version):
        raise ConfigurationError(
            f"{str(directory)!r} holds data of PostgreSQL {found}, but the programs are {version}",
            "choose another backend, or remove the directory with all its data",
        )


def make_data(directories: Sequence[Path], programs: Path, account: Account) -> None:
    """Make data directories: UTF8, C locale, superuser `postgres`, no passwords.

    :param directories: do not exist yet; all in one parent.
    :raises ConfigurationError: `initdb` failed.
    """
    home = directories[0].parent
    for unfinished in home.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(unfinished)
    unfinished_ones = [home / f"{_UNFINISHED}{directory.name}" for directory in directories]
    first = unfinished_ones[0]
    account.make_directory(first)
    _run(
        [
            *(programs / "initdb", "-D", first, "-U", "postgres", "-A", "trust"),
            *("-E", "UTF8", "--no-locale", "--no-sync"),
        ],
        cwd=home,
        **account.process_arguments,
    )
    for copy in unfinished_ones[1:]:
        _run(["cp", "-a", first, copy], cwd=home)
    for made, directory in zip(unfinished_ones, directories, strict=True):
        made.rename(directory)


def _run(command: Sequence[str | Path], *, cwd: Path, **process_arguments: Any) -> None:
    # initdb tries every time zone of the machine where TZ does not name one.
    environment = {**os.environ, "TZ": "UTC"}
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        **process_arguments,
    )
    if done.returncode != 0:
        raise ConfigurationError(
            f"{Path(command[0]).name} failed:\n{done.stdout}{done.stderr}", "see what it says above"
        )
