"""What the targets of a run mean: known, and the same for every shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations.workers.targets import (
    check_targets,
    read_scripts,
    settled,
    settled_for_all,
)
from tests.migrations.project import Project

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy_shards.migrations.workers.messages import Command


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A line of three, a branch of two from its first, and what merges both."""
    project = Project(tmp_path, {"s0": "postgresql+psycopg://app@db/app"})
    project.write()
    project.revise("aaaa1", None)
    project.revise("aaaa2", "aaaa1", labels=("main",))
    project.revise("aaaa3", "aaaa2")
    project.revise("bbbb2", "aaaa1", labels=("side",))
    project.revise("bbbb3", "bbbb2")
    project.revise("merged", ("aaaa3", "bbbb3"))
    project.revise("after", "merged")
    project.revise("other1", None, labels=("other",))
    project.revise("other2", "other1")
    return project


@pytest.fixture
def script(project: Project) -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(str(project.directory / "alembic.ini")))


@pytest.mark.parametrize(
    "target",
    [
        "heads",
        "base",
        "aaaa2",
        "bbbb3",
        "other@head",
        "other@base",
        "aaaa1+2",
        "other@head-1",
        "-7",
    ],
)
def test_what_the_scripts_know_is_let_through(script: ScriptDirectory, target: str) -> None:
    check_targets(script, [target])


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nope", "'nope' leads nowhere: no script has it"),
        ("aaaa", "no script has it"),
        ("nope+1", "no script has it"),
        ("nope@head", "no script has it"),
        ("aaaa1:aaaa2", "no script has it"),
        ("head", "leads nowhere: Multiple head revisions"),
    ],
)
def test_what_no_script_has_is_refused(script: ScriptDirectory, target: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_targets(script, ["heads", target])


@pytest.mark.parametrize(
    ("command", "target", "current", "meant"),
    [
        ("upgrade", "main@+1", (), "aaaa1"),
        ("upgrade", "other@+1", ("aaaa2",), "other1"),
        ("upgrade", "other@+1", ("aaaa2", "other1"), "other2"),
        ("upgrade", "+1", ("merged",), "after"),
        ("upgrade", "side@+1", ("aaaa2", "bbbb2"), "bbbb3"),
        ("downgrade", "-1", ("aaaa3",), "aaaa2"),
        ("downgrade", "-2", ("aaaa2",), "base"),
        ("downgrade", "-1", ("after",), "merged"),
        ("downgrade", "other@-1", ("aaaa2", "other2"), "other1"),
        ("downgrade", "other@-2", ("aaaa2", "other2"), "other@base"),
    ],
)
def test_a_relative_one_is_the_revision_that_it_leads_to(
    script: ScriptDirectory, command: Command, target: str, current: tuple[str, ...], meant: str
) -> None:
    assert settled(script, command, target, current) == meant


@pytest.mark.parametrize(
    ("command", "target", "current"),
    [
        ("upgrade", "+1", ("after",)),
        ("upgrade", "+1", ("aaaa1",)),
        ("upgrade", "+1", ("aaaa2", "bbbb2")),
        ("upgrade", "-1", ("aaaa2",)),
        ("upgrade", "nope@+1", ("aaaa2",)),
        ("upgrade", "+1", ("of newer scripts",)),
        ("downgrade", "-1", ("aaaa2", "bbbb2")),
        ("downgrade", "-1", ()),
        ("downgrade", "-9", ("aaaa3",)),
        ("downgrade", "-1", ("merged",)),
        ("downgrade", "nope@-1", ("aaaa3",)),
        ("stamp", "+1", ("aaaa1",)),
    ],
)
def test_one_that_leads_to_no_single_revision_is_refused(
    script: ScriptDirectory, command: Command, target: str, current: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigurationError, match="leads nowhere from"):
        settled(script, command, target, current)


def test_shards_on_which_it_means_different_revisions_are_named(script: ScriptDirectory) -> None:
    found = {"s0": ("aaaa2",), "s1": ("aaaa2",), "s2": ("aaaa1",), "s3": ()}

    with pytest.raises(ConfigurationError, match="shard 's0' is at aaaa2, shard 's2' at aaaa1"):
        settled_for_all(script, "downgrade", "-1", found)


def test_a_shard_on_which_it_leads_nowhere_is_named(script: ScriptDirectory) -> None:
    found = {"s0": ("merged",), "s1": ("gone",)}

    with pytest.raises(ConfigurationError, match="shard 's0' is at merged, shard 's1' at gone"):
        settled_for_all(script, "upgrade", "+1", found)


def test_another_branch_does_not_matter_to_one_that_is_named(script: ScriptDirectory) -> None:
    found = {"s0": ("aaaa2", "other1"), "s1": ("aaaa3", "other1")}

    assert settled_for_all(script, "upgrade", "other@+1", found) == "other2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def upgrade(:", "SyntaxError"),
        ('revision, down_revision = "last", "gone"', "a revision comes after 'gone'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Revision gone referenced")
def test_scripts_that_cannot_be_read_are_told_of(
    project: Project, script: ScriptDirectory, text: str, said: str
) -> None:
    (project.scripts / "versions" / "last.py").write_text(text)

    with pytest.raises(ConfigurationError, match=said):
        read_scripts(script)
