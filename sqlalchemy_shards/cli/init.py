"""``shards init``: a configuration file and an Alembic environment to begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

from sqlalchemy_shards.cli.failures import readable_failures
from sqlalchemy_shards.migrations.env.template import existing_environment, write_environment

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE: Final = """\
# The shards of this application:  Cluster.from_file("shards.toml")
# Look at them with `shards check`, and at what lies where with `shards map show`.
#
# ${NAME} in a string is the value of that environment variable, $$ is a dollar. Keep passwords out
# of this file; in a URL their special characters are percent-encoded.

[cluster]
name = "app"                  # in errors and in the names of distributed transactions; keep it
# global_shard = "s0"         # where global tables live; without it, on the first shard
# undeclared = "global"       # models that say nothing live on the global shard; else "refuse"
# scatter = "refuse"          # refuse statements that name no shard key; else "allow"
# multi_shard_writes = "refuse"   # one transaction writes on one shard only; else "atomic", which
                              # needs max_prepared_transactions above 0 on every server
# on_unfinished = "raise"     # a commit that is decided but not finished everywhere; else "warn"
# decision_retention = "1d"   # how long the outcome of such a commit can be asked for
# consistent_reads = true     # transactions leave markers for begin_consistent(); else false

# [engine]                    # arguments of SQLAlchemy's create_engine(), for each shard
# pool_size = 10
# pool_pre_ping = true

# [timeouts]                  # seconds
# lock_timeout = 10           # ends a deadlock over several shards; without it, 60
# statement_timeout = 30

# One PostgreSQL database each (13 or later, psycopg 3). Their order matters: add new ones at the
# end, and never rename one that holds data.
[shards]
s0 = "postgresql+psycopg://app@localhost:5432/app_s0"
s1 = "postgresql+psycopg://app@localhost:5432/app_s1"
# s2 = "postgresql+psycopg://app:${DB_PASSWORD}@db2.example.com/app"

# How the tables of a keyspace spread. The number of buckets never changes once there are data.
[keyspaces.default]
partitioner = "hash"
buckets = 1024

# [keyspaces.by_year]
# partitioner = "range"
# bounds = [2024, 2025]       # below 2024, 2024, from 2025
#
# [keyspaces.by_region]
# partitioner = "list"
# values = { west = ["Goa", "Gujarat"], north = ["Delhi"] }
# default = "north"
"""


@readable_failures()
def init(context: typer.Context) -> None:
    """Write a commented shards.toml and an Alembic environment, where there are none."""
    path: Path = context.obj
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        typer.echo(f"{path} is there already and was left as it is")
    else:
        typer.echo(f"Wrote {path}. Name your databases in it, then run `shards check`.")
    found = existing_environment(path.parent)
    if found is not None:
        typer.echo(
            f"{found} is there already: no Alembic environment was written. For an env.py over "
            "all shards see sqlalchemy_shards.migrations.run_migrations()."
        )
        return
    ini, scripts = write_environment(path)
    typer.echo(
        f"Wrote {ini} and {scripts}. Name your models in {scripts / 'env.py'}, then run "
        "`alembic revision --autogenerate` and `alembic upgrade head`."
    )
