"""The commands put together, and how they begin and end."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from sqlalchemy_shards.cli.check import check
from sqlalchemy_shards.cli.demo.command import demo
from sqlalchemy_shards.cli.explain import explain
from sqlalchemy_shards.cli.failures import INTERRUPTED
from sqlalchemy_shards.cli.init import init
from sqlalchemy_shards.cli.migrate import status
from sqlalchemy_shards.cli.migrate_check import check as check_drift
from sqlalchemy_shards.cli.migrate_join import join
from sqlalchemy_shards.cli.migrate_run import RUN_SETTINGS, downgrade, stamp, upgrade
from sqlalchemy_shards.cli.shard_map import lookup, show
from sqlalchemy_shards.cli.transactions import list_, recover, resolve

_DEFAULT_CONFIG = Path("shards.toml")


def run() -> None:
    """Run the command line of this process, and exit."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that cannot show a character gets another one, not an error.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        create_app()()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def create_app() -> typer.Typer:
    """Return the command line as an object, for this process and for tests."""
    # No boxes around usage errors: they are read in logs, too.
    settings = {"no_args_is_help": True, "rich_markup_mode": None}
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, **settings)  # type: ignore[arg-type]
    app.callback()(_shards)
    app.command()(init)
    app.command()(check)
    app.command()(explain)
    app.command()(demo)
    shard_map = typer.Typer(help="Show which shard holds what.", **settings)  # type: ignore[arg-type]
    shard_map.command()(show)
    shard_map.command()(lookup)
    app.add_typer(shard_map, name="map")
    migrate = typer.Typer(help="Migrate the shards with Alembic.", **settings)  # type: ignore[arg-type]
    for command in (upgrade, downgrade, stamp):
        migrate.command(context_settings=RUN_SETTINGS)(command)
    migrate.command()(status)
    migrate.command("check")(check_drift)
    migrate.command()(join)
    app.add_typer(migrate, name="migrate")
    transactions = typer.Typer(help="See and finish what crashes left in doubt.", **settings)  # type: ignore[arg-type]
    transactions.command("list")(list_)
    transactions.command()(recover)
    transactions.command()(resolve)
    app.add_typer(transactions, name="transactions")
    return app


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(version("sqlalchemy-shards"))
        raise typer.Exit


def _shards(
    context: typer.Context,
    config: Annotated[
        Path, typer.Option("--config", "-c", help="The configuration file.")
    ] = _DEFAULT_CONFIG,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """Look after the PostgreSQL shards of an application."""
    del show_version  # its callback has done it
    context.obj = config
