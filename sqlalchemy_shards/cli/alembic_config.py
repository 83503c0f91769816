"""Which Alembic environment a command goes by, and its failures."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from alembic.util import CommandError

from sqlalchemy_shards.cli.failures import FAILED, WRONG_USAGE
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.env.selection import SelectionError
from sqlalchemy_shards.migrations.workers.alembic_settings import AlembicSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alembic.config import Config

_INI = Path("alembic.ini")
_TOML = Path("pyproject.toml")

AlembicConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--alembic-config",
        "-c",
        metavar="FILE",
        help="Alembic's configuration: by default alembic.ini, and pyproject.toml.",
        envvar="ALEMBIC_CONFIG",
    ),
]
"""Where Alembic's configuration is."""

SectionOption: TypeAlias = Annotated[
    str, typer.Option("--name", "-n", help="The section of alembic.ini.")
]
"""What an ``alembic.ini`` of several sections calls this one."""


@contextmanager
def readable_alembic() -> Iterator[None]:
    """Turn what Alembic says of its scripts and revisions into the exit of a command."""
    try:
        yield
    except CommandError as error:
        print(f"shards: {error}", file=sys.stderr)
        code = WRONG_USAGE if isinstance(error, SelectionError) else FAILED
        raise typer.Exit(code) from None


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Leave away what is logged below warnings, whatever ``env.py`` makes of the loggers."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def find_alembic_config(file: Path | None, section: str) -> Config:
    """Alembic's configuration, as its own command line would read it."""
    return find_alembic_settings(file, section).config()


def find_alembic_settings(
    file: Path | None, section: str, *, x: Sequence[str] | None = None, tag: str | None = None
) -> AlembicSettings:
    """Where Alembic's configuration is.

    :param file: an ``alembic.ini``, or a ``pyproject.toml``; None: those of the working directory.
    :raises ConfigurationError: there is none.
    """
    is_toml = file is not None and file.name == _TOML.name
    ini = _INI if file is None or is_toml else file
    toml = file if file is not None and is_toml else _TOML
    if not ini.exists() and not toml.exists():
        raise ConfigurationError(
            f"there is no {ini}, and no {toml}", "say where it is with --alembic-config"
        )
    return AlembicSettings(str(ini), str(toml), section, tuple(x or ()), tag)
