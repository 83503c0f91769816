"""Errors of ours out of an ``env.py``: Alembic's command prints them in one line, as its own.

It does so with a `CommandError`, so that is what they are, too, while Alembic runs an ``env.py``;
else they are what they always are. Alembic is looked for, never imported: who migrates nothing
imports none of it.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.errors import ShardsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def printed_by_alembic() -> Iterator[None]:
    """Let Alembic print an error of ours that is raised here, in a ``with`` or as a decorator."""
    try:
        yield
    except ShardsError as error:
        let_alembic_print(error)
        raise


def let_alembic_print(error: ShardsError) -> None:
    """Make an error one of Alembic's, too, where Alembic runs an ``env.py``.

    It stays the same object, to be caught as what it is; pickled, it is ours alone.
    """
    command_error = _command_error()
    if command_error is not None and not isinstance(error, command_error):
        # Not another error raised from this one: whoever calls Alembic would see two.
        error.__class__ = _class_of_both(type(error), command_error)


def _command_error() -> type[Exception] | None:
    """Alembic's own error, while it runs an ``env.py`` in this process."""
    context, util = sys.modules.get("alembic.context"), sys.modules.get("alembic.util")
    if getattr(context, "_proxy", None) is None:
        return None
    found: type[Exception] | None = getattr(util, "CommandError", None)
    return found


def _class_of_both(ours: type[ShardsError], command_error: type[Exception]) -> type[ShardsError]:
    def reduce(error: ShardsError) -> tuple[Callable[..., ShardsError], tuple[Any, ...]]:
        rebuild, (_, *state) = ours.__reduce__(error)
        return rebuild, (ours, *state)

    def in_one_line(error: ShardsError) -> str:
        said, *faults = ours.__str__(error).split("\n  - ")
        text = " ".join([said, ", ".join(faults)])
        return " ".join(line.strip() for line in text.splitlines()).replace(" ; ", "; ").rstrip()

    names = {
        "__module__": ours.__module__,
        "__doc__": ours.__doc__,
        "__reduce__": reduce,
        "__str__": in_one_line,
    }
    return type(ours.__name__, (ours, command_error), names)
