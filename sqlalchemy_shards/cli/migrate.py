"""``shards migrate``: Alembic over all shards, and how far they are."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from sqlalchemy_shards.cli.alembic_config import (
    AlembicConfigOption,
    SectionOption,
    find_alembic_config,
    quiet_logs,
    readable_alembic,
)
from sqlalchemy_shards.cli.failures import FAILED, readable_failures
from sqlalchemy_shards.cli.migrate_status_screen import print_status, status_as_dict
from sqlalchemy_shards.cli.output import console, print_json
from sqlalchemy_shards.migrations.status import STATUS_SECONDS, status_of


@readable_failures()
def status(
    alembic_config: AlembicConfigOption = None,
    name: SectionOption = "alembic",
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long to wait for the shards.")
    ] = STATUS_SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell how far every shard is, how its last migration ended, and who is at work there.

    Reads Alembic's version tables and the ledger of each shard, and counts what it has otherwise
    than the shards at the same revisions; changes nothing, and may be run at any time. The shards
    are those of the cluster in env.py. Exits 1 unless every shard answers and is at head.
    """
    with readable_alembic():
        config = find_alembic_config(alembic_config, name)
        with redirect_stdout(sys.stderr), quiet_logs():  # whatever env.py prints
            found = status_of(config, deadline_seconds=timeout)
    if as_json:
        print_json(status_as_dict(found))
    else:
        print_status(found, console())
    if not found.is_at_head:
        raise typer.Exit(FAILED)
