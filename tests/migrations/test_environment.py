"""Alembic's own commands, over every shard."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from alembic import command

from sqlalchemy_shards.migrations.turns.run import RUN_KEY, Task, Turn
from tests.databases import ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy_shards import Cluster
    from tests.migrations.project import Project

CREATE = 'op.create_table("things", sa.Column("id", sa.Integer, primary_key=True))'
DROP = 'op.drop_table("things")'
REVISIONS = "SELECT version_num FROM alembic_version"
TABLES = "SELECT count(*) FROM pg_tables WHERE tablename = 'things'"


class TestUpgrading:
    def test_every_shard_is_upgraded(self, project: Project) -> None:
        project.revise("r1", None, CREATE, DROP)

        command.upgrade(project.config(), "head")

        for url in project.urls.values():
            assert (ask(url, REVISIONS), ask(url, TABLES)) == ([("r1",)], [(1,)])

    def test_every_shard_is_downgraded(self, project: Project) -> None:
        project.revise("r1", None, CREATE, DROP)
        command.upgrade(project.config(), "head")

        command.downgrade(project.config(), "base")

        for url in project.urls.values():
            assert (ask(url, REVISIONS), ask(url, TABLES)) == ([], [(0,)])

    def test_the_environment_and_the_runner_are_both_told_of_each_step(
        self, project: Project
    ) -> None:
        told: list[str] = []
        note = "lambda **step: context.config.attributes['told'].append('env')"
        project.write(f"None, on_version_apply={note}")
        project.revise("r1", None, CREATE, DROP)
        config = project.config()
        config.attributes.update({"told": told, RUN_KEY: Telling(told)})

        command.upgrade(config, "head")

        assert told == ["run", "env"]

    def test_a_shard_that_is_not_due_is_left_alone(self, project: Project) -> None:
        project.revise("r1", None, CREATE, DROP)
        config = project.config()
        config.attributes[RUN_KEY] = Telling([], is_due=False)

        command.upgrade(config, "head")

        assert ask(project.urls["s0"], "SELECT to_regclass('alembic_version')") == [(None,)]


class Telling:
    """A run over one shard that notes its steps."""

    def __init__(self, told: list[str], *, is_due: bool = True) -> None:
        self._told = told
        self._is_due = is_due

    def turns(self, cluster: Cluster, task: Task) -> Iterator[AbstractContextManager[Turn]]:
        yield self._turn(cluster)

    @contextmanager
    def _turn(self, cluster: Cluster) -> Iterator[Turn]:
        options = {"on_version_apply": lambda **step: self._told.append("run")}
        with cluster.shards["s0"].engine.connect() as connection:
            yield Turn("s0", connection, options, lambda context: self._is_due)
