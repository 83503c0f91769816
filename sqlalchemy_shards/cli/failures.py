"""How a command fails: one readable message on stderr and an exit code, not a traceback."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psycopg
import typer
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILED: Final = 1
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


def _message(error: Exception) -> str:
    if isinstance(error, DBAPIError) and error.orig is not None:
        return str(error.orig).strip()  # without the statement and the values in it
    return str(error)
