"""How far every shard is, as data and as ``shards migrate status``."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.util import CommandError
from sqlalchemy import MetaData

from sqlalchemy_shards import Cluster
from sqlalchemy_shards.cluster.schema import prepare_shard
from sqlalchemy_shards.migrations import join_shard
from sqlalchemy_shards.migrations.joining import announce_shard
from sqlalchemy_shards.migrations.standing import Standing
from sqlalchemy_shards.migrations.status import ClusterStatus, status_of
from tests.databases import ask, connect

if TYPE_CHECKING:
    from sqlalchemy_shards.testing.servers import PostgresServers
    from tests.migrations.project import Project


def line(project: Project, *revisions: str) -> None:
    """Revisions, one after the other, that each create a table of their name."""
    for down, revision in zip([None, *revisions], revisions, strict=False):
        project.revise(
            revision,
            down,
            f'op.create_table("t_{revision}", sa.Column("id", sa.Integer, primary_key=True))',
            f'op.drop_table("t_{revision}")',
        )


def standings(status: ClusterStatus) -> dict[str, tuple[str, int | None]]:
    return {
        each.shard: (each.distance.standing.value, each.distance.behind) for each in status.shards
    }


def test_shards_are_behind_by_the_revisions_that_they_lack(project: Project) -> None:
    line(project, "r1", "r2", "r3")
    command.upgrade(project.config(), "head")
    ask(project.urls["s1"], "UPDATE alembic_version SET version_num = 'r1'")
    ask(project.urls["s2"], "DROP TABLE alembic_version")

    status = status_of(project.config())

    assert not status.is_at_head
    assert standings(status) == {
        "s0": ("at head", 0),
        "s1": ("behind", 2),
        "s2": ("behind", 3),
        "s3": ("at head", 0),
    }


def test_a_version_table_of_another_name_and_schema_is_read(project: Project) -> None:
    line(project, "r1")
    for url in project.urls.values():
        ask(url, 'CREATE SCHEMA IF NOT EXISTS "My meta"')
    options = "version_table='\"versions\"%d', version_table_schema='My meta'"
    env = (project.scripts / "env.py").read_text().replace("None)", f"None, {options})")
    (project.scripts / "env.py").write_text(env)
    command.upgrade(project.config(), "head")

    status = status_of(project.config())

    assert status.is_at_head
    for url in project.urls.values():
        ask(url, 'DROP SCHEMA "My meta" CASCADE')


def test_what_answers_is_told_while_a_shard_is_down(
    project: Project, servers: PostgresServers
) -> None:
    line(project, "r1")
    command.upgrade(project.config(), "head")
    servers.stop(2)

    status = status_of(project.config())

    assert [each.shard for each in status.shards] == ["s0", "s1", "s3"]
    assert list(status.unreachable) == ["s2"]
    assert not status.is_at_head


def test_a_shard_ahead_of_the_scripts_is_told_apart(project: Project) -> None:
    line(project, "r1", "r2")
    command.upgrade(project.config(), "head")
    (project.scripts / "versions" / "r2.py").unlink()
    ask(project.urls["s3"], "UPDATE alembic_version SET version_num = 'r1'")

    status = status_of(project.config())

    assert [each.distance.standing for each in status.shards] == [
        *[Standing.AHEAD] * 3,
        Standing.AT_HEAD,
    ]
    assert status.shards[0].distance.unknown == ("r2",)


def test_it_counts_in_what_shards_at_the_same_revisions_differ(project: Project) -> None:
    line(project, "r1", "r2")
    command.upgrade(project.config(), "head")
    ask(project.urls["s1"], "ALTER TABLE t_r1 ADD more int; CREATE INDEX by_more ON t_r1 (more)")
    ask(project.urls["s1"], "CREATE TABLE another (id int)")
    config = project.config()
    config.cmd_opts = Namespace(x=["shard=s3"])
    command.downgrade(config, "r1")

    status = status_of(project.config())

    assert {each.shard: each.drift for each in status.shards} == {
        "s0": 0,
        "s1": 3,
        "s2": 0,
        "s3": None,
    }


def test_locked_tables_hide_only_in_what_a_shard_differs(project: Project) -> None:
    line(project, "r1")
    command.upgrade(project.config(), "head")
    ask(project.urls["s1"], "ALTER TABLE t_r1 ADD more int")
    with connect(project.urls["s0"]) as holder:
        holder.execute(b"BEGIN; LOCK TABLE t_r1")
        status = status_of(project.config())

    assert [(each.shard, each.revisions, each.last_outcome) for each in status.shards] == [
        (shard, ("r1",), "done") for shard in project.urls
    ]
    assert {each.shard: each.drift for each in status.shards} == {
        "s0": None,
        "s1": 1,
        "s2": 0,
        "s3": 0,
    }
    assert status.is_at_head


def test_the_command_points_to_the_check_where_shards_differ(project: Project) -> None:
    line(project, "r1")
    command.upgrade(project.config(), "head")
    ask(project.urls["s1"], "ALTER TABLE t_r1 ADD more int")

    result = project.shards("migrate", "status")

    assert result.exit_code == 0
    assert "shards migrate check" in result.stdout


def test_the_command_prints_a_table_and_fails_unless_all_is_at_head(project: Project) -> None:
    line(project, "r1", "r2")
    before = project.shards("migrate", "status")
    command.upgrade(project.config(), "head")
    after = project.shards("migrate", "status")

    assert (before.exit_code, after.exit_code) == (1, 0)
    assert "4 behind" in before.stdout
    assert "shards migrate upgrade" in before.stdout
    assert "4 at head" in after.stdout


def test_the_command_prints_json(project: Project) -> None:
    line(project, "r1")

    result = project.run("sqlalchemy_shards", "migrate", "status", "--json")
    assert not result.stderr
    found = json.loads(result.stdout)

    assert (found["heads"], found["is_at_head"]) == (["r1"], False)
    assert found["shards"][0]["behind"] == 1


def test_without_a_configuration_of_alembic_the_command_says_where_it_is_looked_for(
    project: Project,
) -> None:
    (project.directory / "alembic.ini").unlink()

    result = project.shards("migrate", "status")

    assert result.exit_code == 1
    assert "--alembic-config" in result.stderr


def test_a_script_that_cannot_be_read_is_named_in_one_sentence(project: Project) -> None:
    (project.directory / "migrations" / "versions" / "broken.py").write_text("revision = = 1\n")
    result = project.shards("migrate", "status")

    assert result.exit_code == 1
    assert "the revision scripts cannot be read: " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_shard_ahead_fails_by_itself_and_is_finished_with_its_scripts(project: Project) -> None:
    line(project, "r1", "r2")
    command.upgrade(project.config(), "r1")
    ask(project.urls["s1"], "UPDATE alembic_version SET version_num = 'r9'")

    with pytest.raises(CommandError, match="r9"):
        command.upgrade(project.config(), "head")

    s0, s1, s2, _ = status_of(project.config()).shards
    assert (s0.last_outcome, s1.last_outcome, s2.distance.behind) == ("done", "failed", 1)
    assert (s1.distance.standing, s1.revisions) == (Standing.AHEAD, ("r9",))
    project.revise("r9", "r1")
    project.revise("merged", ("r2", "r9"))
    command.upgrade(project.config(), "head")
    assert status_of(project.config()).is_at_head


def test_a_shard_on_another_branch_is_told_apart_and_brought_to_the_others(
    project: Project,
) -> None:
    line(project, "r1", "r2")
    project.revise("b2", "r1")
    for shard in project.urls:
        target = "b2" if shard == "s2" else "r2"
        config = project.config()
        config.cmd_opts = Namespace(x=[f"shard={shard}"])
        command.upgrade(config, target)

    status = status_of(project.config())

    assert [each.distance.standing.value for each in status.shards] == [
        "behind",
        "behind",
        "other branch",
        "behind",
    ]
    command.upgrade(project.config(), "heads")
    assert status_of(project.config()).is_at_head


@pytest.fixture
def growing(project: Project) -> Project:
    """Three shards that are a cluster, and a fourth that only the configuration names."""
    line(project, "r1")
    every = project.config_file.read_text().replace('"hash"\nbuckets = 64', '"range"\nbounds = [0]')
    every += 'placement = { "below 0" = "s0", "from 0" = "s1" }\n'
    project.config_file.write_text(every)
    cluster = Cluster.from_file(project.config_file)
    for shard in ("s0", "s1"):
        with cluster.connect(shard):
            prepare_shard(cluster, shard)
    cluster.dispose()
    config = project.config()
    config.cmd_opts = Namespace(x=["shards=s0,s1"])
    command.upgrade(config, "head")
    ask(project.urls["s2"], "CREATE TABLE alembic_version AS SELECT 'r1' AS version_num")
    return project


class TestAShardThatHasNotJoined:
    def test_it_is_told_of_until_it_has_joined(self, growing: Project) -> None:
        def told() -> list[tuple[str, bool, bool]]:
            found = status_of(growing.config()).newcomers
            return [(each.shard, each.is_announced, each.is_certain) for each in found]

        cluster = Cluster.from_file(growing.config_file)
        new = told()
        announce_shard(cluster, "s3")
        announced = told()
        config = growing.config()
        config.cmd_opts = Namespace(x=["shards=s2,s3"])
        command.upgrade(config, "head")
        join_shard(cluster, "s3", MetaData())
        cluster.dispose()

        assert new == [("s2", False, True), ("s3", False, True)]
        assert announced == [("s2", False, False), ("s3", True, True)]
        assert told() == [("s2", False, False)]

    def test_the_command_says_how_to_let_it_join(self, growing: Project) -> None:
        result = growing.shards("migrate", "status")
        told = json.loads(growing.shards("migrate", "status", "--json").stdout)

        assert "3 at head, 1 behind; not joined: s2, s3; head" in result.stdout
        assert "s3 is new, and has not joined yet; shards migrate join s3" in result.stdout
        assert "migrate upgrade" not in result.stdout
        assert [each["shard"] for each in told["newcomers"]] == ["s2", "s3"]

    def test_it_is_told_of_by_a_configuration_that_does_not_name_it(
        self, growing: Project, servers: PostgresServers
    ) -> None:
        cluster = Cluster.from_file(growing.config_file)
        announce_shard(cluster, "s3")
        cluster.dispose()
        lines = growing.config_file.read_text().splitlines(keepends=True)
        growing.config_file.write_text("".join(each for each in lines if each[:2] != "s3"))
        servers.stop(1)

        (_, new) = status_of(growing.config()).newcomers

        assert (new.shard, new.is_announced, new.is_configured) == ("s3", True, False)


class TestAnInterruptedRun:
    @pytest.fixture
    def interrupted(self, project: Project) -> Project:
        line(project, "r1")
        command.upgrade(project.config(), "head")
        project.revise("r2", "r1", "raise KeyboardInterrupt")
        config = project.config()
        config.cmd_opts = Namespace(x=["shard=s1"])
        with pytest.raises(KeyboardInterrupt):
            command.upgrade(config, "r2")
        return project

    def test_it_is_written_down_and_told_as_such(self, interrupted: Project) -> None:
        shard = status_of(interrupted.config()).shards[1]
        screen = interrupted.shards("migrate", "status").stdout

        assert (shard.last_outcome, shard.was_killed) == ("interrupted", False)
        assert shard.last is not None
        assert (shard.last.error, shard.last.after) == ("interrupted", ("r1",))
        assert "s1: upgrade r2 was interrupted (Ctrl-C, or a signal)" in screen
        assert "→ go on with shards migrate upgrade r2, and the options that it had" in screen

    def test_one_that_was_killed_is_told_apart(self, interrupted: Project) -> None:
        ask(
            interrupted.urls["s1"],
            "UPDATE shards.migrations SET outcome = 'running', finished_at = NULL, error = NULL"
            " WHERE outcome = 'interrupted'",
        )

        shard = status_of(interrupted.config()).shards[1]
        screen = interrupted.shards("migrate", "status").stdout

        assert (shard.last_outcome, shard.was_killed) == ("interrupted", True)
        assert "s1: upgrade r2 ended without a word" in screen
