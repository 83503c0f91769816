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
from sqlalchemy_shards.cli.shard_map import lookup, show

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
