"""How a command fails: one readable message on stderr and an exit code, not a traceback."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psycopg
import typer
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sqlalchemy_shards.errors import ShardsError

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130


@contextmanager
def readable_failures() -> Iterator[None]:
    """Turn the errors of a command, in a ``with`` or as a decorator, into its exit.

    Errors that nothing the user did can cause keep their traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("shards: interrupted", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except (SQLAlchemyError, psycopg.Error, OSError) as error:
        print(f"shards: {_message(error)}", file=sys.stderr)
        raise typer.Exit(FAILED) from None


@contextmanager
def refused_as_wrong_usage() -> Iterator[None]:
    """Turn what was asked for, and cannot be meant, into the exit of wrong usage."""
    try:
        yield
    except ShardsError as error:
        print(f"shards: {error}", file=sys.stderr)
        raise typer.Exit(WRONG_USAGE) from None


def _message(error: Exception) -> str:
    if isinstance(error, DBAPIError) and error.orig is not None:
        return str(error.orig).strip()  # without the statement and the values in it
    return str(error)
