"""The plug-in that Alembic loads: operations, comparators and their rendering.

Alembic loads it while it is imported itself, so nothing here or in what is imported here may import
more of Alembic than its operations, its utilities and the rendering of autogenerate.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.runtime.plugins import Plugin

NAME: Final = "sqlalchemy_shards"
"""Under which Alembic knows it: the name of the entry point."""


def setup(plugin: Plugin) -> None:
    """Register everything with Alembic, once in a process."""
    from sqlalchemy_shards.migrations.autogenerate import rendering  # noqa: F401
    from sqlalchemy_shards.migrations.autogenerate.comparing import add_comparators
    from sqlalchemy_shards.migrations.operations import (  # noqa: F401
        batches,
        constraints,
        indexes,
        placing,
    )

    add_comparators(plugin)


def ensure_plugin() -> None:
    """Register the plug-in where Alembic did not find its entry point."""
    from alembic.runtime.plugins import Plugin

    from sqlalchemy_shards._compat.alembic import has_plugin

    if not has_plugin(NAME):
        Plugin.setup_plugin_from_module(sys.modules[__name__], NAME)


class _Plugins(ModuleType):
    """Alembic before 1.20.1 iterates over what an entry point names."""

    def __iter__(self) -> Iterator[ModuleType]:
        yield self


sys.modules[__name__].__class__ = _Plugins
