"""What the commands print with."""

from __future__ import annotations

import json
from typing import Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def console(*, stderr: bool = False) -> Console:
    """Return a console that colours nothing by guessing, and nothing at all in a pipe."""
    return Console(stderr=stderr, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """Print a value of plain types as JSON, on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_line(mark: str, text: str, out: Console) -> None:
    """Print a line whose further lines stand under its beginning.

    :param mark: one character, with its colours; the text has none.
    """
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=1)
    table.add_column(overflow="fold")
    table.add_row(mark, escape(text))
    out.print(table)


def counted(number: int, noun: str) -> str:
    """Return a number of things.

    >>> counted(1, "shard"), counted(2, "shard")
    ('1 shard', '2 shards')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def bar(share: float, width: int) -> str:
    """Return a bar of ``share`` (0 to 1) of ``width`` characters, in steps of an eighth.

    >>> bar(0.5, 5)
    '██▌'
    """
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")
