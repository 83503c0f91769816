"""``shards check``: whether every shard is fit for work, and what to do where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sqlalchemy_shards.cli.check_screen import print_report
from sqlalchemy_shards.cli.failures import FAILED, readable_failures
from sqlalchemy_shards.cli.modules import import_module, metadata_of
from sqlalchemy_shards.cli.output import console, print_json
from sqlalchemy_shards.cluster.cluster import Cluster
from sqlalchemy_shards.cluster.readiness.check import CHECK_SECONDS

if TYPE_CHECKING:
    from sqlalchemy_shards.cluster.readiness.report import Report


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
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print what is well, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what is wrong with any shard, and what to do about it.

    Looks whether each is reachable, new enough, ready for two-phase commit, and the database that
    it should be; whether all are alike; and for transactions that were left behind. With --models:
    whether the tables are there, as the models say, and may be used. Exits 1 if anything has to be
    done; warnings alone exit 0.
    """
    report = _report(context, models, timeout)
    if as_json:
        print_json(report.as_dict())
    else:
        print_report(report, console(), is_verbose=verbose)
    if not report.is_healthy:
        raise typer.Exit(FAILED)


def _report(context: typer.Context, models: str | None, timeout: float) -> Report:
    metadata = None if models is None else metadata_of(import_module(models), models)
    cluster = Cluster.from_file(context.obj)
    try:
        return cluster.check(metadata, deadline_seconds=timeout)
    finally:
        cluster.dispose()
