"""``shards migrate check``: in what shards differ, from one another and from the models."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape
from rich.tree import Tree

from sqlalchemy_shards.cli.alembic_config import (
    AlembicConfigOption,
    SectionOption,
    find_alembic_config,
    quiet_logs,
    readable_alembic,
)
from sqlalchemy_shards.cli.failures import FAILED, readable_failures
from sqlalchemy_shards.cli.modules import import_module, metadata_of
from sqlalchemy_shards.cli.output import console, counted, print_json
from sqlalchemy_shards.cluster.cluster import Cluster
from sqlalchemy_shards.cluster.readiness.report import some
from sqlalchemy_shards.migrations.differences.finding import (
    DRIFT_SECONDS,
    drift,
    drift_by_environment,
)

if TYPE_CHECKING:
    from rich.console import Console

    from sqlalchemy_shards.migrations.differences.report import Difference, DriftReport

_TITLES: Final = {"shards": "Unlike the other shards", "models": "Unlike the models"}


@readable_failures()
def check(
    context: typer.Context,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE[:NAME]",
            help="Compare with this module's models, over the shards of the configuration file, "
            "instead of with those of env.py. The module is imported.",
        ),
    ] = None,
    alembic_config: AlembicConfigOption = None,
    name: SectionOption = "alembic",
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long to wait for the shards.")
    ] = DRIFT_SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell in what shards differ: from one another, and from the models.

    Compares tables, columns, constraints, indexes, sequences, triggers, policies, types, functions,
    extensions, collations, revisions and settings. What most shards have counts as right. Exits 1
    if anything differs, or a shard cannot be looked at.
    """
    with redirect_stdout(sys.stderr), quiet_logs():  # whatever env.py prints, and Alembic tells
        if models is None:
            with readable_alembic():
                config = find_alembic_config(alembic_config, name)
                report = drift_by_environment(config, deadline_seconds=timeout)
        else:
            report = _with_models(context, models, timeout)
    if as_json:
        print_json(report.as_dict())
    else:
        print_drift(report, console())
    if not report.is_clean:
        raise typer.Exit(FAILED)


def print_drift(report: DriftReport, out: Console) -> None:
    """Print what differs, as a tree: first between shards, then from the models."""
    for against, title in _TITLES.items():
        found = [each for each in report.differences if each.against == against]
        if found:
            out.print(_tree(title, found))
    if report.not_seen:
        tree = Tree("[bold]Not looked at[/]", guide_style="dim")
        for shard, why in report.not_seen.items():
            tree.add(f"[red]{escape(shard)}[/]: {escape(why)}")
        out.print(tree)
    for note in report.notes:
        out.print(f"[dim]Note: {escape(note)}.[/]")
    out.print(_summary(report))


def _tree(title: str, differences: list[Difference]) -> Tree:
    """What differs, below the shards where it does."""
    tree = Tree(f"[bold]{title}[/]", guide_style="dim")
    by_shards: dict[tuple[str, ...], Tree] = {}
    for each in differences:
        if each.shards not in by_shards:
            by_shards[each.shards] = tree.add(f"[red]{escape(some(each.shards))}[/]")
        by_shards[each.shards].add(escape(each.sentence))
    return tree


def _summary(report: DriftReport) -> str:
    looked_at = counted(len(report.shards), "shard")
    if report.differences:
        what = counted(len(report.differences), "difference")
        return f"[red]{what} on {len(report.differing)} of {looked_at}.[/]"
    if report.not_seen:
        return f"[red]No difference on {looked_at}; the others were not looked at.[/]"
    return f"[green]No difference on {looked_at}.[/]"


def _with_models(context: typer.Context, models: str, timeout: float) -> DriftReport:
    metadata = metadata_of(import_module(models), models)
    cluster = Cluster.from_file(context.obj)
    try:
        return drift(cluster, metadata, deadline_seconds=timeout)
    finally:
        cluster.dispose()
