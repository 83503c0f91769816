"""Where Alembic's configuration is, as one process can tell another."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from typing import Any

from alembic.config import Config


@dataclass(frozen=True, slots=True)
class AlembicSettings:
    """Where Alembic's configuration is, and what was said on its command line.

    :param ini: an ``alembic.ini``.
    :param toml: a ``pyproject.toml``.
    :param section: the section of the ``alembic.ini``.
    :param x: what stands behind each ``-x``.
    """

    ini: str | None = "alembic.ini"
    toml: str | None = "pyproject.toml"
    section: str = "alembic"
    x: tuple[str, ...] = ()
    tag: str | None = None

    def config(self, **attributes: Any) -> Config:
        """Alembic's configuration, as its own command line would read it.

        :param attributes: for ``env.py``.
        """
        return Config(
            self.ini,
            toml_file=self.toml,
            ini_section=self.section,
            cmd_opts=Namespace(x=list(self.x) or None),
            attributes=attributes,
        )

    def with_x(self, *arguments: str) -> AlembicSettings:
        """The same, with further ``-x``."""
        return replace(self, x=(*self.x, *arguments))
