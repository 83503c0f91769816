"""What Alembic's commands do, say and log on several shards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.databases import ask
from tests.migrations.commands import alembic
from tests.migrations.project import ENV, Project

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CREATE = 'op.create_table("{0}", sa.Column("id", sa.Integer, primary_key=True))'
DROP = 'op.drop_table("{0}")'
IN_TURN = ["shard s0", "shard s1", "shard s2", "shard s3"]

MODELS = """
from sqlalchemy import BigInteger, Column, MetaData, Table
from sqlalchemy_shards import global_table, shard_table
models = MetaData()
shard_table(Table("users", models, Column("id", BigInteger, primary_key=True, autoincrement=False)))
global_table(Table("flags", models, Column("id", BigInteger, primary_key=True)))
"""

BOOTSTRAP = """
from sqlalchemy_shards import Cluster
Cluster.from_file({config!r}).bootstrap()
"""


@pytest.fixture
def three(project: Project) -> Project:
    """The project, with three revisions."""
    for revision, down, table in (("r1", None, "a"), ("r2", "r1", "b"), ("r3", "r2", "c")):
        project.revise(revision, down, CREATE.format(table), DROP.format(table))
    return project


def revisions(project: Project) -> dict[str, str]:
    """Shard -> its revisions; "-" where there is no version table."""
    return {shard: _revisions(url) for shard, url in project.urls.items()}


def _revisions(url: str) -> str:
    if ask(url, "SELECT to_regclass('alembic_version')") == [(None,)]:
        return "-"
    rows = ask(url, "SELECT version_num FROM alembic_version ORDER BY 1")
    return " ".join(revision for (revision,) in rows)


def turns(log: tuple[str, ...]) -> list[str]:
    return [line.partition("] ")[2] for line in log if "[alembic.shards]" in line]


class TestTurns:
    def test_the_log_says_whose_turn_it_is_before_what_it_does(self, three: Project) -> None:
        ended = alembic(three.directory, "upgrade", "r1")

        assert turns(ended.log) == IN_TURN
        lines = [line for line in ended.log if "shard s" in line or "Running" in line]
        assert lines[:3] == [
            "INFO [alembic.shards] shard s0",
            "INFO [alembic.runtime.migration] Running upgrade  -> r1, r1",
            "INFO [alembic.shards] shard s1",
        ]

    def test_named_shards_have_their_turns_in_their_order(self, three: Project) -> None:
        ended = alembic(three.directory, "-x", "shards=s2,s0", "upgrade", "r1")

        assert turns(ended.log) == ["shard s2", "shard s0"]
        assert revisions(three) == {"s0": "r1", "s1": "-", "s2": "r1", "s3": "-"}

    def test_a_shard_may_be_migrated_alone(self, three: Project) -> None:
        alembic(three.directory, "upgrade", "head")

        alembic(three.directory, "-x", "shard=s1", "downgrade", "r1")

        assert revisions(three) == {"s0": "r3", "s1": "r1", "s2": "r3", "s3": "r3"}

    def test_an_unknown_name_is_an_error_before_anything_runs(self, three: Project) -> None:
        ended = alembic(three.directory, "-x", "shards=s0,s9", "upgrade", "head")

        assert "FAILED: there is no shard 's9'; there are: s0, s1, s2, s3" in ended.output
        assert set(revisions(three).values()) == {"-"}

    @pytest.mark.parametrize(
        ("command", "expected"),
        [
            ("ensure_version", ""),
            ("stamp r2", "r2"),
            ("stamp --purge r1", "r1"),
        ],
    )
    def test_commands_that_write_versions_write_them_everywhere(
        self, three: Project, command: str, expected: str
    ) -> None:
        alembic(three.directory, "-x", "shards=s0,s1", "upgrade", "head")

        alembic(three.directory, *command.split())

        found = revisions(three)
        assert (found["s2"], found["s3"]) == (expected, expected)
        assert found["s0"] == (expected or "r3")

    def test_one_connection_is_open_at_a_time(
        self, tmp_path: Path, one_server_urls: Mapping[str, str]
    ) -> None:
        project = Project(tmp_path, one_server_urls)
        project.write()
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname ~ 'together'"
        project.revise("r1", None, f'print(op.get_bind().exec_driver_sql("{count}").scalar())')

        ended = alembic(project.directory, "upgrade", "head")

        assert len(ended.output.split()) == 4
        assert len(set(ended.output.split())) == 1


class TestAFailure:
    @pytest.fixture
    def failing(self, project: Project) -> Project:
        project.revise("r1", None, CREATE.format("a"))
        project.revise("r2", "r1", 'op.execute("INSERT INTO needed VALUES (1)")')
        for shard in ("s0", "s1", "s3"):
            ask(project.urls[shard], "CREATE TABLE needed (id int)")
        return project

    def test_it_says_which_shard_it_is_and_leaves_those_before_done(self, failing: Project) -> None:
        ended = alembic(failing.directory, "upgrade", "head")

        assert (ended.code, ended.failure.partition(":")[0]) == (1, "ProgrammingError")
        assert ended.log[-1] == "ERROR [alembic.shards] failed on shard s2"
        assert revisions(failing) == {"s0": "r2", "s1": "r2", "s2": "-", "s3": "-"}

    def test_the_error_carries_a_note_where_python_has_notes(self, failing: Project) -> None:
        ended = alembic(failing.directory, "upgrade", "head")

        if hasattr(BaseException, "add_note"):
            assert "on shard 's2'" in ended.notes

    def test_running_it_again_does_only_the_rest(self, failing: Project) -> None:
        alembic(failing.directory, "upgrade", "head")
        ask(failing.urls["s2"], "CREATE TABLE needed (id int)")

        ended = alembic(failing.directory, "upgrade", "head")

        assert ended.code == 0
        assert set(revisions(failing).values()) == {"r2"}
        for url in failing.urls.values():
            assert ask(url, "SELECT count(*) FROM needed") == [(1,)]

    def test_an_error_of_alembics_ends_the_command_as_ever_and_the_log_says_where(
        self, three: Project
    ) -> None:
        alembic(three.directory, "upgrade", "head")
        ask(three.urls["s1"], "UPDATE alembic_version SET version_num = 'gone'")

        ended = alembic(three.directory, "upgrade", "head")

        assert "FAILED: Can't locate revision identified by 'gone'" in ended.output
        assert "ERROR [alembic.shards] failed on shard s1" in ended.log


class TestTelling:
    @pytest.mark.parametrize(
        "command", ["current", "show current", "history -i", "history -r current:"]
    )
    def test_shards_that_agree_are_told_of_as_one_database(
        self, three: Project, command: str
    ) -> None:
        alembic(three.directory, "upgrade", "r2")

        alone = alembic(three.directory, "-x", "shard=s0", *command.split())
        ended = alembic(three.directory, *command.split())

        assert ended.output == alone.output != ""

    def test_shards_that_differ_are_told_of_in_groups(self, three: Project) -> None:
        alembic(three.directory, "-x", "shards=s0,s2", "upgrade", "head")
        alembic(three.directory, "-x", "shard=s1", "upgrade", "r1")

        ended = alembic(three.directory, "current")

        assert ended.output.splitlines() == [
            "Shards s0, s2:",
            "r3 (head)",
            "Shard s1:",
            "r1",
            "Shard s3:",
            "(no revision)",
        ]

    def test_shards_are_called_what_they_are_called(
        self, tmp_path: Path, clean_shards: Mapping[str, str]
    ) -> None:
        project = Project(tmp_path, {"East": clean_shards["s0"], "West_1": clean_shards["s1"]})
        project.write()
        project.revise("r1", None)
        alembic(project.directory, "-x", "shard=East", "upgrade", "head")

        ended = alembic(project.directory, "current")

        assert ended.output == "Shard East:\nr1 (head)\nShard West_1:\n(no revision)\n"

    def test_telling_how_far_shards_are_changes_none(self, three: Project) -> None:
        alembic(three.directory, "current")

        assert set(revisions(three).values()) == {"-"}

    def test_every_database_is_named_on_request(self, three: Project) -> None:
        alembic(three.directory, "upgrade", "head")

        lines = alembic(three.directory, "current", "--verbose").output.splitlines()

        named = [line for line in lines if line.startswith("Current revision(s) for ")]
        assert len(named) == len(three.urls)
        assert lines.count("Rev: r3 (head)") == 1

    def test_shards_that_are_not_at_the_heads_are_named(self, three: Project) -> None:
        alembic(three.directory, "-x", "shards=s0,s2", "upgrade", "head")

        ended = alembic(three.directory, "current", "--check-heads")

        assert ended.code != 0
        assert ended.output.splitlines() == [
            "Shards s0, s2:",
            "r3 (head)",
            "FAILED: Database is not on all head revisions: shards s1, s3",
        ]

    def test_where_none_is_at_the_heads_it_is_said_as_of_one(self, three: Project) -> None:
        alembic(three.directory, "-x", "shards=s0,s2", "upgrade", "r1")

        ended = alembic(three.directory, "current", "--check-heads")

        assert ended.output == "FAILED: Database is not on all head revisions\n"

    def test_the_editor_opens_what_shards_share_once(
        self, three: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        editor = tmp_path / "editor"
        editor.write_text(f'#!/bin/sh\nbasename "$1" >> {tmp_path}/edited\n')
        editor.chmod(0o755)
        monkeypatch.setenv("EDITOR", str(editor))
        alembic(three.directory, "upgrade", "r2")

        alembic(three.directory, "edit", "current")

        assert (tmp_path / "edited").read_text() == "r2.py\n"


class TestComparing:
    @pytest.fixture
    def modelled(self, three: Project) -> Project:
        three.write("models", env=MODELS + ENV)
        return three

    @pytest.mark.parametrize("command", ["check", "revision --autogenerate --rev-id n1"])
    def test_it_needs_every_shard_at_the_heads(self, modelled: Project, command: str) -> None:
        alembic(modelled.directory, "-x", "shards=s0,s2", "upgrade", "head")

        ended = alembic(modelled.directory, *command.split())

        assert ended.output == (
            "FAILED: Target database is not up to date: shards s1, s3 are behind; run alembic "
            "upgrade heads\n"
        )
        assert not [line for line in ended.log if "failed on" in line]
        assert not list((modelled.scripts / "versions").glob("n1*"))

    def test_the_command_that_is_named_means_the_same_shards(self, modelled: Project) -> None:
        alembic(modelled.directory, "-x", "shard=s2", "upgrade", "head")

        one = alembic(modelled.directory, "-x", "shard=s3", "check").output
        two = alembic(modelled.directory, "-x", "shards=s3,s2", "check").output

        sentence = "FAILED: Target database is not up to date: shard s3 is behind; run alembic"
        assert one == f"{sentence} -x shard=s3 upgrade heads\n"
        assert two == f"{sentence} -x shards=s3,s2 upgrade heads\n"

    def test_a_shard_with_an_unknown_revision_is_the_one_that_is_blamed(
        self, modelled: Project
    ) -> None:
        alembic(modelled.directory, "upgrade", "head")
        ask(modelled.urls["s2"], "UPDATE alembic_version SET version_num = 'gone'")

        ended = alembic(modelled.directory, "check")

        assert "FAILED: Can't locate revision identified by 'gone'" in ended.output
        assert [line for line in ended.log if "failed" in line] == [
            "ERROR [alembic.shards] failed on shard s2"
        ]

    def test_a_revision_that_is_written_runs_on_every_shard(self, modelled: Project) -> None:
        alembic(modelled.directory, "upgrade", "head")

        alembic(modelled.directory, "revision", "--autogenerate", "--rev-id", "n1")
        ended = alembic(modelled.directory, "upgrade", "head")

        assert (ended.code, ended.failure) == (0, "")
        assert alembic(modelled.directory, "check").code == 0
        flags = {
            shard: ask(url, "SELECT to_regclass('flags') IS NOT NULL")[0][0]
            for shard, url in modelled.urls.items()
        }
        assert flags == {"s0": True, "s1": False, "s2": False, "s3": False}

    def test_another_shard_is_compared_without_global_tables(self, modelled: Project) -> None:
        alembic(modelled.directory, "upgrade", "head")
        alembic(modelled.directory, "revision", "--autogenerate", "--rev-id", "n1")
        alembic(modelled.directory, "upgrade", "head")

        ended = alembic(modelled.directory, "-x", "shard=s1", "check")

        assert (ended.code, ended.output) == (0, "No new upgrade operations detected.\n")

    def test_what_is_ours_is_never_compared(self, project: Project) -> None:
        project.write("models, include_schemas=True", env=MODELS + BOOTSTRAP + ENV)
        project.revise("r1", None, CREATE.format("mine"))
        alembic(project.directory, "upgrade", "head")

        ended = alembic(project.directory, "check")

        assert "mine" in ended.output
        assert "decisions" not in ended.output


class TestScripts:
    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Project:
        """Three revisions for shards that no server has."""
        urls = {f"s{n}": f"postgresql+psycopg://app:hunter2@db{n}.invalid/app" for n in range(3)}
        project = Project(tmp_path, urls)
        project.write()
        for revision, down, table in (("r1", None, "a"), ("r2", "r1", "b"), ("r3", "r2", "c")):
            project.revise(revision, down, CREATE.format(table), DROP.format(table))
        return project

    def test_the_parts_of_shards_are_marked(self, unreachable: Project) -> None:
        ended = alembic(unreachable.directory, "upgrade", "head", "--sql")

        before, *parts = ended.output.split("-- shard ")
        assert before == ""
        assert [part.partition("\n")[0] for part in parts] == ["s0", "s1", "s2"]
        bodies = {part.partition("\n")[2].strip() for part in parts}
        assert len(bodies) == 1
        assert bodies.pop().startswith("BEGIN;")

    @pytest.mark.parametrize(
        "command", ["upgrade r1:r3", "downgrade r3:base", "stamp r2", "ensure_version"]
    )
    def test_every_command_that_writes_has_its_script(
        self, unreachable: Project, command: str
    ) -> None:
        ended = alembic(unreachable.directory, "-x", "shards=s2,s0", *command.split(), "--sql")

        assert (ended.code, ended.failure) == (0, "")
        marks = [line for line in ended.output.splitlines() if line.startswith("-- shard")]
        assert marks == ["-- shard s2", "-- shard s0"]

    def test_the_parts_differ_where_a_revision_asks_for_the_global_shard(
        self, unreachable: Project
    ) -> None:
        unreachable.revise("r4", "r3", "if op.is_global_shard():\n    op.execute('SELECT 42')")

        ended = alembic(unreachable.directory, "upgrade", "r3:r4", "--sql")

        first, *others = ended.output.split("-- shard ")[1:]
        assert "SELECT 42;" in first
        assert not any("SELECT 42" in other for other in others)

    def test_each_shard_has_a_file_on_request(self, unreachable: Project, tmp_path: Path) -> None:
        into = tmp_path / "deep" / "scripts"

        ended = alembic(
            unreachable.directory, "-x", f"sql_directory={into}", "upgrade", "head", "--sql"
        )

        assert ended.output == ""
        assert {path.name for path in into.iterdir()} == {"s0.sql", "s1.sql", "s2.sql"}
        assert "CREATE TABLE c" in (into / "s1.sql").read_text()

    def test_a_script_that_fails_leaves_no_half_file(
        self, unreachable: Project, tmp_path: Path
    ) -> None:
        unreachable.revise("r4", "r3", "raise RuntimeError('no')")

        ended = alembic(
            unreachable.directory, "-x", f"sql_directory={tmp_path}/x", "upgrade", "head", "--sql"
        )

        assert ended.failure == "RuntimeError: no"
        assert not (tmp_path / "x").exists()

    def test_scripts_do_what_the_command_would_have_done(
        self, three: Project, tmp_path: Path
    ) -> None:
        alembic(three.directory, "-x", f"sql_directory={tmp_path}/x", "upgrade", "head", "--sql")

        for shard, url in three.urls.items():
            ask(url, (tmp_path / "x" / f"{shard}.sql").read_text())

        assert set(revisions(three).values()) == {"r3"}


class TestAsynchronousApplications:
    def test_a_command_may_be_called_while_an_event_loop_runs(self, three: Project) -> None:
        async def main() -> Any:
            return alembic(three.directory, "upgrade", "head")

        ended = asyncio.run(main())

        assert (ended.code, ended.failure) == (0, "")
        assert set(revisions(three).values()) == {"r3"}
