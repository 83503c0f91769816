"""What the commands print with."""

from __future__ import annotations

import json
from typing import Any, Final

import typer
from rich.console import Console

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def console(*, stderr: bool = False) -> Console:
    """Return a console that colours nothing by guessing, and nothing at all in a pipe."""
    return Console(stderr=stderr, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """Print a value of plain types as JSON, on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def bar(share: float, width: int) -> str:
    """Return a bar of ``share`` (0 to 1) of ``width`` characters, in steps of an eighth.

    >>> bar(0.5, 5)
    '██▌'
    """
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")
