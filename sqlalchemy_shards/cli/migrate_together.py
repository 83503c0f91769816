"""``shards migrate ... --atomic``: all shards or none."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.markup import escape

from sqlalchemy_shards.cli.failures import FAILED, INTERRUPTED
from sqlalchemy_shards.cli.output import console, print_json, print_line
from sqlalchemy_shards.migrations.atomic.together import migrate_together
from sqlalchemy_shards.migrations.workers.messages import in_one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from sqlalchemy_shards.migrations.atomic.ending import Ending
    from sqlalchemy_shards.migrations.workers.order import Order

_MEND: Final = "mend what failed, and "
_MEANINGLESS: Final = ("parallel", "canary", "pause")


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse options that mean nothing for all shards together.

    :raises typer.BadParameter: there is one.
    """
    named = [f"--{name.replace('_', '-')}" for name in _MEANINGLESS if given[name] is not None]
    if given["on_failure"] == "continue":
        named.append("--on-failure continue")
    if given["sql"]:
        named.append("--sql")
    if named:
        raise typer.BadParameter(
            f"{', '.join(named)} means nothing with --atomic, which migrates all shards or none"
        )


def go_through_together(order: Order, *, again: str, as_json: bool) -> None:
    """Migrate all shards or none, print how it has ended, and exit.

    :param again: the command that goes on.
    """
    with redirect_stdout(sys.stderr):  # whatever env.py prints
        ending = migrate_together(order, _tell)
    if as_json:
        print_json(ending.as_dict())
    else:
        _print_ending(ending, console(), again=again)
    if ending.is_interrupted:
        raise typer.Exit(INTERRUPTED)
    if not ending.is_complete:
        raise typer.Exit(FAILED)


def _tell(shard: str, attempt: int, reason: str) -> None:
    del attempt
    print_line("[yellow]…[/]", f"{shard}: {reason}", console(stderr=True))


def _print_ending(ending: Ending, out: Console, *, again: str) -> None:
    sentence = ending.sentence()
    sentence = f"{sentence[0].upper()}{sentence[1:]}."
    if ending.is_complete:
        out.print(f"[green]{escape(sentence)}[/]")
        return
    if ending.error is not None and not ending.is_interrupted:
        print_line("[red]✗[/]", in_one_line(ending.error), out)
    out.print(f"[red]{escape(sentence)}[/]")
    recover = ending.next_command()
    then = (recover, again) if recover is not None else (again,)
    is_to_mend = recover is None and not ending.is_interrupted
    print_line("[bold]→[/]", f"{_MEND if is_to_mend else ''}go on with:", out)
    for command in then:
        out.print(f"  {escape(command)}", soft_wrap=True)
