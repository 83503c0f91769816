"""``shards check``: whether every shard is fit for work, and what to do where it is not."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from sqlalchemy_shards.cli.failures import FAILED, readable_failures
from sqlalchemy_shards.cli.modules import import_module, metadata_of
from sqlalchemy_shards.cli.output import console, print_json
from sqlalchemy_shards.cluster.check import Report, Status
from sqlalchemy_shards.cluster.cluster import Cluster
from sqlalchemy_shards.cluster.facts import CHECK_SECONDS

if TYPE_CHECKING:
    from rich.console import Console

    from sqlalchemy_shards.cluster.check import Finding

_MARKS: Final = {
    Status.OK: "[green]✓[/]",
    Status.WARNING: "[yellow]![/]",
    Status.FAILED: "[red]✗[/]",
    Status.SKIPPED: "[dim]-[/]",
}


@readable_failures()
def check(
    context: typer.Context,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE[:NAME]",
            help="Look for the tables of this module's models, too. The module is imported.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long to wait for the shards.")
    ] = CHECK_SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what is wrong with any shard, and what to do about it.

    Looks whether each is reachable, new enough, ready for two-phase commit, and the database that
    it should be; and for transactions that were left behind. Exits 1 if anything has to be done.
    """
    metadata = None if models is None else metadata_of(import_module(models), models)
    cluster = Cluster.from_file(context.obj)
    try:
        report = cluster.check(metadata, deadline_seconds=timeout)
    finally:
        cluster.dispose()
    if as_json:
        print_json(report.as_dict())
    else:
        _print(report, console())
    if not report.is_healthy:
        raise typer.Exit(FAILED)


def _print(report: Report, out: Console) -> None:
    for shard, findings in groupby(report.findings, key=lambda each: each.shard):
        out.print(f"[bold]{escape(shard)}[/]")
        out.print(Padding(_table(list(findings)), (0, 0, 1, 2)))
    failures = len(report.failures)
    if failures:
        out.print(
            f"[red]{failures} {'thing has' if failures == 1 else 'things have'} to be done.[/]"
        )
    else:
        out.print(f"[green]All is well with the cluster {report.cluster!r}.[/]")


def _table(findings: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for each in findings:
        text = escape(each.found)
        if each.advice is not None:
            text += f"\n[bold]→ {escape(each.advice)}[/]"
        table.add_row(_MARKS[each.status], each.subject, text)
    return table
