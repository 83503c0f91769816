"""An ``env.py`` that has an asyncio cluster."""

from __future__ import annotations

import asyncio
import time
from argparse import Namespace
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from sqlalchemy.util import greenlet_spawn

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.turns.lock import MIGRATION_LOCK
from tests.databases import ask
from tests.migrations.turns import ADD, CREATE, DROP, REVISIONS, holding
from tests.shards.asyncio.opened import run, until

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from tests.migrations.project import Project

BATCHES = """\
op.run_batches(
    "more", "UPDATE things SET id = id + 10 WHERE id BETWEEN :first AND :last",
    table="things", key="id", rows=1, pause=0.001,
)"""
ENV = """\
from alembic import context

from sqlalchemy_shards import AsyncCluster
from sqlalchemy_shards.migrations import run_migrations

cluster = AsyncCluster.from_file({config!r})
run_migrations(context, cluster)
"""


@pytest.fixture
def migrated(project: Project) -> Project:
    project.revise("r1", None, CREATE, DROP)
    [env] = project.directory.rglob("env.py")
    [config] = project.directory.rglob("shards.toml")
    env.write_text(ENV.format(config=str(config)), encoding="utf-8")
    return project


def tables(project: Project) -> list[int]:
    query = "SELECT count(*)::int FROM pg_tables WHERE tablename = 'things'"
    return [ask(url, query)[0][0] for url in project.urls.values()]


def test_commands_of_alembic_change_all_shards(migrated: Project) -> None:
    command.upgrade(migrated.config(), "head")
    after_upgrade = tables(migrated)
    command.current(migrated.config())
    command.downgrade(migrated.config(), "base")

    assert set(after_upgrade) == {1}
    assert set(tables(migrated)) == {0}


def test_all_shards_or_none(migrated: Project) -> None:
    config = migrated.config()
    config.cmd_opts = Namespace(x=["atomic=1"])

    command.upgrade(config, "head")

    assert set(tables(migrated)) == {1}


def test_in_a_greenlet_of_a_running_loop(migrated: Project) -> None:
    asyncio.run(greenlet_spawn(command.upgrade, migrated.config(), "head"))

    assert set(tables(migrated)) == {1}


def test_in_a_running_loop_it_is_refused(migrated: Project) -> None:
    async def block() -> None:
        command.upgrade(migrated.config(), "head")

    with pytest.raises(ConfigurationError, match=r"asyncio\.to_thread"):
        asyncio.run(block())

    assert set(tables(migrated)) == {0}


class TestPauses:
    """Other tasks go on while migrations wait."""

    @pytest.fixture(autouse=True)
    def _nothing_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(seconds: float) -> None:
            pytest.fail(f"the event loop is blocked for {seconds} seconds")

        monkeypatch.setattr(time, "sleep", refuse)

    def test_until_another_migration_has_ended(
        self, migrated: Project, caplog: pytest.LogCaptureFixture
    ) -> None:
        with holding(
            migrated.urls["s1"], f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
        ) as other:
            upgrade_and_free(migrated, other, lambda: "is being migrated by" in caplog.text)

        assert set(tables(migrated)) == {1}

    def test_until_a_lock_is_to_be_had(
        self, migrated: Project, caplog: pytest.LogCaptureFixture
    ) -> None:
        command.upgrade(migrated.config(), "head")
        migrated.revise("r2", "r1", ADD)
        with holding(migrated.urls["s1"], "SELECT FROM things") as reader:
            upgrade_and_free(migrated, reader, lambda: "tried again" in caplog.text)

        assert {ask(url, REVISIONS)[0] for url in migrated.urls.values()} == {("r2",)}

    def test_between_batches(self, migrated: Project) -> None:
        command.upgrade(migrated.config(), "head")
        for url in migrated.urls.values():
            ask(url, "INSERT INTO things (id) SELECT generate_series(1, 3)")
        migrated.revise("r2", "r1", BATCHES)

        command.upgrade(migrated.config(), "head")

        assert {
            ask(url, "SELECT sum(id)::int FROM things")[0] for url in migrated.urls.values()
        } == {(36,)}


def upgrade_and_free(
    project: Project, holder: psycopg.Connection[Any], is_waited_for: Callable[[], bool]
) -> None:
    """Upgrade in one task; in another one, end what is in the way as soon as that is noticed."""
    config = project.config()
    config.cmd_opts = Namespace(x=["lock_timeout=100ms", "lock_tries=1000"])

    async def free() -> None:
        await until(is_waited_for, "waiting is told of")
        holder.execute("COMMIT")

    async def both() -> None:
        await asyncio.gather(greenlet_spawn(command.upgrade, config, "head"), free())

    run(both())
