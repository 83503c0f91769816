"""The Alembic environment that an application begins with: its template, and writing it."""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config

_TEMPLATES: Final = Path(__file__).parent / "templates"
_NAMED_IN_IT: Final = "shards.toml"


def template(name: str = "generic") -> str:
    """The directory of a template, for ``alembic init -t``.

    :param name: ``"generic"``, or ``"pyproject"`` for options in ``pyproject.toml``.
    :raises ValueError: there is no such template.
    """
    known = sorted(path.name for path in _TEMPLATES.iterdir() if path.is_dir())
    if name not in known:
        raise ValueError(f"there is no template {name!r}; there are: {', '.join(known)}")
    return str(_TEMPLATES / name)


def existing_environment(directory: Path) -> Path | None:
    """What tells that there is an Alembic environment in a directory, if there is one."""
    pyproject = directory / "pyproject.toml"
    if pyproject.exists() and "[tool.alembic" in pyproject.read_text(encoding="utf-8"):
        return pyproject
    for name in ("alembic.ini", "migrations", "alembic"):
        if (directory / name).exists():
            return directory / name
    return None


def write_environment(shards_config: Path) -> tuple[Path, Path]:
    """Write ``alembic.ini`` and ``migrations/`` beside a cluster's configuration.

    :returns: the two.
    """
    # Relative, so that the project may be moved: what is absolute stands as such in the file.
    directory = Path(os.path.relpath(shards_config.parent))
    ini, scripts = directory / "alembic.ini", directory / "migrations"
    with redirect_stdout(StringIO()):
        command.init(Config(str(ini)), str(scripts), template=template())
    text = ini.read_text(encoding="utf-8")
    ini.write_text(text.replace(_NAMED_IN_IT, shards_config.name), encoding="utf-8")
    return ini, scripts
