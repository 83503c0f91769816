"""What Alembic's own command prints of errors of ours: a line, as of its own."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.util import CommandError

from sqlalchemy_shards import create_cluster
from sqlalchemy_shards.errors import ConfigurationError, ShardUnavailable
from tests.migrations.commands import alembic
from tests.migrations.project import Project
from tests.migrations.turns import CREATE, DROP, holding

if TYPE_CHECKING:
    from pathlib import Path

ASYNCPG = (
    "shard 's0' has the driver 'postgresql+asyncpg', which has no pipelines, by which a cluster "
    "asks and commits on its shards side by side; write postgresql+psycopg://, which "
    "create_async_cluster() takes for asyncio, too"
)
ENV_WITH_URLS = """\
from alembic import context
from sqlalchemy_shards import create_async_cluster
from sqlalchemy_shards.migrations import run_migrations

cluster = create_async_cluster({{"s0": "postgresql+asyncpg://app:hunter2@db0/shop"}})
run_migrations(context, cluster, {metadata})
"""
ENV_WITH_FILE = """\
from alembic import context
from sqlalchemy_shards import AsyncCluster
from sqlalchemy_shards.migrations import run_migrations

run_migrations(context, AsyncCluster.from_file({config!r}), {metadata})
"""


@pytest.fixture
def nowhere(tmp_path: Path) -> Project:
    """A project whose only shard no server has."""
    project = Project(tmp_path, {"s0": "postgresql+psycopg://app:hunter2@127.0.0.1:1/app"})
    project.write()
    project.revise("r1", None, CREATE, DROP)
    return project


def test_a_command_of_its_own_prints_no_traceback(nowhere: Project) -> None:
    ended = nowhere.run("alembic", "-x", "lock_timeout=soon", "upgrade", "head")

    assert ended.returncode != 0
    assert ended.stdout.splitlines() == [
        "FAILED: -x lock_timeout=soon cannot be read; give a duration, as 500ms, 5s or 2m"
    ]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("env", [ENV_WITH_URLS, ENV_WITH_FILE])
def test_a_driver_that_is_refused_is_told_in_a_sentence(tmp_path: Path, env: str) -> None:
    project = Project(tmp_path, {"s0": "postgresql+asyncpg://app:hunter2@db0/shop"})
    project.write(env=env)

    ended = project.run("alembic", "upgrade", "head")

    assert ended.returncode != 0
    assert (ended.stdout, "Traceback" in ended.stderr) == (f"FAILED: {ASYNCPG}\n", False)


def test_a_configuration_that_is_not_there_is_told_in_a_sentence(nowhere: Project) -> None:
    nowhere.config_file.unlink()

    ended = alembic(nowhere.directory, "current")

    assert ended.output == (
        "FAILED: the configuration file 'DIRECTORY/shards.toml' cannot be read: No such file or "
        "directory; name an existing file, or write one with `shards init`\n"
    )


def test_a_shard_that_is_down_is_told_in_a_sentence(nowhere: Project) -> None:
    ended = alembic(nowhere.directory, "upgrade", "head")

    assert ended.failure == ""
    assert ended.output.startswith("FAILED: shard 's0' at postgresql+psycopg://app:***@127.0.0.1")
    assert len(ended.output.splitlines()) == 1


def test_a_lock_that_is_not_to_be_had_is_told_in_a_sentence(things: Project) -> None:
    things.revise("r2", "r1", DROP)
    with holding(things.urls["s0"], "SELECT FROM things"):
        ended = alembic(things.directory, "-x", "lock_tries=1", "upgrade", "head")

    assert ended.failure == ""
    assert ended.output.startswith("FAILED: shard 's0' could not be migrated: a lock was not to be")


def test_who_calls_alembic_catches_what_it_is(nowhere: Project) -> None:
    with pytest.raises(ShardUnavailable) as caught:
        command.upgrade(nowhere.config(), "head")

    assert isinstance(caught.value, CommandError)
    assert caught.value.shard == "s0"
    assert type(pickle.loads(pickle.dumps(caught.value))) is ShardUnavailable


def test_elsewhere_it_is_ours_alone() -> None:
    with pytest.raises(ConfigurationError) as caught:
        create_cluster({"s0": "postgresql+asyncpg://app@db0/shop"})

    assert type(caught.value) is ConfigurationError


def test_what_a_revision_raises_keeps_its_traceback(project: Project) -> None:
    raised = "from sqlalchemy_shards.errors import ConfigurationError\n"
    project.revise("r1", None, f"{raised}raise ConfigurationError('it is so', 'mend it')")

    ended = alembic(project.directory, "upgrade", "head")

    assert ended.failure == "ConfigurationError: it is so; mend it"


def test_a_bug_keeps_its_traceback(nowhere: Project) -> None:
    nowhere.write(metadata="None, bounds=1")

    ended = alembic(nowhere.directory, "upgrade", "head")

    assert ended.failure.partition(":")[0] == "AttributeError"
