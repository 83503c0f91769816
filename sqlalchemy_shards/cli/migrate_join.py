"""``shards migrate join``: a shard that joins gets its tables, and the rows of reference tables."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer
from alembic import command
from rich.markup import escape

from sqlalchemy_shards.cli.alembic_config import (
    AlembicConfigOption,
    SectionOption,
    find_alembic_config,
    readable_alembic,
)
from sqlalchemy_shards.cli.failures import readable_failures
from sqlalchemy_shards.cli.output import console, counted, print_json
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.env.asking import ask_environment
from sqlalchemy_shards.migrations.joining import announce_shard, join_shard
from sqlalchemy_shards.migrations.turns.run import RUN_KEY
from sqlalchemy_shards.migrations.turns.turn import OneAfterTheOther

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.config import Config

    from sqlalchemy_shards.cluster.cluster import Cluster
    from sqlalchemy_shards.migrations.joining import Joined
    from sqlalchemy_shards.migrations.turns.run import Task


@readable_failures()
def join(
    shard: Annotated[
        str,
        typer.Argument(
            help="The new shard. It stands at the end of the shards in the configuration, and "
            "nothing is placed on it yet.",
            show_default=False,
        ),
    ],
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="APPLICATION",
            help="The application_name of connections that write no reference table, however old "
            "they are; again and again.",
        ),
    ] = None,
    alembic_config: AlembicConfigOption = None,
    name: SectionOption = "alembic",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Let a shard join a cluster that has data.

    Announces it to the other shards, runs the migrations that they have, and copies the rows of
    reference tables, while the application runs. Run it, restart the application with the
    configuration that names the shard, and run it again: it copies once no process is connected
    that may not know the shard, and exits 1 before. Then keys may be placed there.
    """
    with redirect_stdout(sys.stderr), readable_alembic():  # whatever env.py and Alembic print
        joined = _join(find_alembic_config(alembic_config, name), shard, ignore or ())
    if as_json:
        tables = {each.table: each.rows for each in joined.tables}
        print_json({"shard": joined.shard, "source": joined.source, "tables": tables})
        return
    screen = console()
    for each in joined.tables:
        rows = counted(each.rows, "row")
        screen.print(f"[green]✓[/] {escape(each.table)}: {rows}, as on {escape(joined.source)}")
    screen.print(f"Shard {escape(joined.shard)} has joined. Keys may be placed on it.")


def _join(config: Config, shard: str, ignore: Sequence[str]) -> Joined:
    revisions = ask_environment(
        config, lambda cluster, task: announce_shard(cluster, shard, options=task.options)
    )
    config.attributes[RUN_KEY] = OneAfterTheOther((shard,))
    try:
        for revision in revisions:
            command.upgrade(config, revision)
    finally:
        del config.attributes[RUN_KEY]

    def finish(cluster: Cluster, task: Task) -> Joined:
        metadata: Any = task.metadata
        if metadata is None:
            raise ConfigurationError(
                "env.py names no models, so that nobody knows which tables are reference tables",
                "give run_migrations() the metadata of the models",
            )
        return join_shard(cluster, shard, metadata, options=task.options, ignore=ignore)

    return ask_environment(config, finish)
