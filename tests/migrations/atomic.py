"""Migrating all shards or none, for the tests of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic import command

from sqlalchemy_shards import Cluster
from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.migrations.atomic.run import AtomicRun
from sqlalchemy_shards.migrations.turns.run import RUN_KEY
from tests.databases import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.migrations.project import Project

SHARDS = ("s0", "s1", "s2", "s3")
CREATE = 'op.create_table("things", sa.Column("id", sa.Integer, primary_key=True))'
DROP = 'op.drop_table("things")'
LOOK = 'from alembic import context\ncontext.config.attributes["look"]()'
DEFERRED = """\
op.execute("CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
op.execute("INSERT INTO late VALUES (1), (1)")"""
REVISIONS = "SELECT version_num FROM alembic_version"
HAS_VERSIONS = "SELECT to_regclass('alembic_version') IS NOT NULL"
LEDGER = "SELECT outcome, revisions_after, error FROM shards.migrations"
HAS_LEDGER = "SELECT to_regclass('shards.migrations') IS NOT NULL"
TABLES = "SELECT count(*) FROM pg_tables WHERE tablename = 'things'"
SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'forty%' AND pid <> pg_backend_pid()"
)
PREPARED = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"

ENV_OF_A_CLUSTER = """\
from alembic import context
from sqlalchemy_shards.migrations import run_migrations

run_migrations(context, context.config.attributes["cluster"])
"""


def bootstrap(project: Project) -> None:
    cluster = Cluster.from_file(project.config_file)
    cluster.bootstrap()
    cluster.dispose()


def upgrade(
    project: Project,
    *,
    target: str = "head",
    shards: Sequence[str] = SHARDS,
    run: AtomicRun | None = None,
) -> AtomicRun:
    run = run or AtomicRun(shards)
    config = project.config()
    config.attributes[RUN_KEY] = run
    command.upgrade(config, target)
    return run


def refused(
    project: Project,
    *,
    error: type[Exception] = UnsupportedStatement,
    run: AtomicRun | None = None,
) -> str:
    """Upgrade, and return why it was refused; nothing was migrated."""
    with pytest.raises(error) as caught:
        upgrade(project, run=run)
    assert_nothing_migrated(project)
    return str(caught.value)


def assert_nothing_migrated(project: Project) -> None:
    for url in project.urls.values():
        assert ask(url, HAS_VERSIONS) == [(False,)]
        assert ask(url, TABLES) == [(0,)]
        assert ask(url, PREPARED) == [(0,)]
