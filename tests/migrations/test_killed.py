"""``kill -9`` of whoever migrates, at each step of a shard's turn.

What is left is told truly by the status, and finished by the same command.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command

from sqlalchemy_shards.migrations.status import ShardStatus, status_of
from sqlalchemy_shards.migrations.turns.lock import MIGRATION_LOCK
from tests.databases import ask, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from tests.migrations.project import Project

pytestmark = pytest.mark.slow

CREATE = 'op.create_table("things", sa.Column("id", sa.Integer, primary_key=True))'
ADD = 'op.add_column("things", sa.Column("more", sa.Integer))'
RUNNING = "SELECT outcome = 'running' FROM shards.migrations ORDER BY id DESC LIMIT 1"
REVISIONS = "SELECT version_num FROM alembic_version"
RUNNERS = "FROM pg_stat_activity WHERE application_name LIKE 'shards migrate upgrade %'"
RUNNERS_HERE = f"SELECT count(*) {RUNNERS} AND datname = current_database()"
ASLEEP = f"SELECT pid {RUNNERS} AND wait_event = 'PgSleep'"
SECONDS = 60


@pytest.fixture
def migrated(project: Project) -> Project:
    """Shards with a table, and a revision that is still to come."""
    project.revise("r1", None, CREATE)
    command.upgrade(project.config(), "head")
    project.revise("r2", "r1", ADD)
    return project


def test_before_the_lock_nothing_is_left(migrated: Project) -> None:
    with connect(migrated.urls["s0"]) as other:
        other.execute(f"SELECT pg_advisory_lock({MIGRATION_LOCK})".encode())
        with upgrading(migrated):
            wait_until(lambda: ask(migrated.urls["s0"], RUNNERS_HERE) == [(1,)])

    assert outcome_of(migrated) == ("r1", "done")
    finish(migrated)


def test_after_the_ledger_was_written_the_run_is_interrupted(migrated: Project) -> None:
    with holding(migrated, "LOCK TABLE things"), upgrading(migrated):
        wait_until(lambda: ask(migrated.urls["s0"], RUNNING) == [(True,)])
        seen = status_of_s0(migrated)

    assert (seen.last_outcome, seen.runner is not None) == ("running", True)
    wait_until_nobody_is_there(migrated)
    assert outcome_of(migrated) == ("r1", "interrupted")
    finish(migrated)


def test_in_the_middle_of_a_migration_it_is_rolled_back(migrated: Project) -> None:
    migrated.revise("r2", "r1", f'{ADD}\nop.execute("SELECT pg_sleep(60)")')
    with upgrading(migrated):
        wait_until(lambda: bool(ask(migrated.urls["s0"], ASLEEP)))

    wait_until_nobody_is_there(migrated)
    assert outcome_of(migrated) == ("r1", "interrupted")
    migrated.revise("r2", "r1", ADD)
    finish(migrated)


def test_between_the_commit_and_the_ledger_the_shard_is_at_head(migrated: Project) -> None:
    with holding(migrated, "LOCK TABLE things") as things, upgrading(migrated) as runner:
        wait_until(lambda: ask(migrated.urls["s0"], RUNNING) == [(True,)])
        with holding(migrated, "LOCK TABLE shards.migrations IN SHARE MODE"):
            things.execute("COMMIT")
            wait_until(lambda: ask(migrated.urls["s0"], REVISIONS) == [("r2",)])
            runner.kill()
            runner.wait(SECONDS)

    wait_until_nobody_is_there(migrated)
    assert outcome_of(migrated) == ("r2", "interrupted")
    finish(migrated)


@contextmanager
def upgrading(project: Project) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs ``alembic upgrade head``, killed at the end."""
    arguments = ["-x", "lock_timeout=0s", "upgrade", "head"]
    runner = subprocess.Popen(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=project.directory,
        env=dict(os.environ),
        stderr=subprocess.DEVNULL,
    )
    try:
        yield runner
    finally:
        runner.kill()
        runner.wait(SECONDS)


@contextmanager
def holding(project: Project, statement: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction on the first shard that holds a lock until the end."""
    with connect(project.urls["s0"]) as holder:
        holder.execute(f"BEGIN; {statement}".encode())
        yield holder


def status_of_s0(project: Project) -> ShardStatus:
    return status_of(project.config()).shards[0]


def outcome_of(project: Project) -> tuple[str, str | None]:
    """The revision of the first shard, and how its last run ended."""
    seen = status_of_s0(project)
    assert seen.runner is None
    return seen.revisions[0], seen.last_outcome


def finish(project: Project) -> None:
    """Run the same command again; then all is well."""
    command.upgrade(project.config(), "head")

    status = status_of(project.config())
    assert status.is_at_head
    assert [each.last_outcome for each in status.shards] == ["done"] * 4


def wait_until_nobody_is_there(project: Project) -> None:
    """Wait until the server has noticed that its client is dead."""
    wait_until(lambda: ask(project.urls["s0"], RUNNERS_HERE) == [(0,)])


def wait_until(is_so: Callable[[], bool]) -> None:
    until = monotonic() + SECONDS
    while not is_so():
        assert monotonic() < until, "waited in vain"
        sleep(0.01)
