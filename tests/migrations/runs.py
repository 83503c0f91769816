"""Runs over the shards of a project, and what they find there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards import Cluster
from sqlalchemy_shards.migrations import AlembicSettings, RunOptions, upgrade
from tests.databases import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards.migrations import MigrationReport
    from tests.migrations.project import Project

TRAPPED = """\
if op.get_bind().scalar(sa.text("SELECT to_regclass('trap')")):
    op.execute("SELECT 1 / 0")
op.create_table("{table}", sa.Column("id", sa.Integer, primary_key=True))"""

WAITING = """\
import os
print("working", os.getpid(), flush=True)
op.execute("SELECT pg_advisory_xact_lock(4711)")
op.create_table("{table}", sa.Column("id", sa.Integer, primary_key=True))"""


def things(table: str, how: str = TRAPPED) -> str:
    """The lines of a revision that creates a table.

    :param how: fails where there is a table called `trap`, or waits for a lock.
    """
    return how.format(table=table)


def options_of(project: Project, **options: Any) -> RunOptions:
    """Options of a run with the project's configuration of Alembic."""
    ini = str(project.directory / "alembic.ini")
    return replace(RunOptions(alembic=AlembicSettings(ini=ini, toml=None)), **options)


def upgraded(
    project: Project, observe: Callable[[Any], None] | None = None, **options: Any
) -> MigrationReport:
    """Upgrade all shards of a project to its heads."""
    cluster = Cluster.from_file(project.config_file)
    try:
        return upgrade(cluster, "heads", options_of(project, **options), observe=observe)
    finally:
        cluster.dispose()


def heads(url: str) -> list[str] | None:
    """What a shard's version table says; None: there is none."""
    if ask(url, "SELECT to_regclass('alembic_version')") == [(None,)]:
        return None
    return [head for (head,) in ask(url, "SELECT version_num FROM alembic_version ORDER BY 1")]


def all_heads(project: Project) -> list[list[str] | None]:
    """The same of every shard."""
    return [heads(url) for url in project.urls.values()]


def outcomes(report: MigrationReport) -> list[str]:
    """What became of each shard, in a word."""
    return [shard.outcome.value for shard in report.shards]
