"""Targets that count from where a shard is mean the same on every shard, or nothing is changed."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.util import CommandError

from tests.databases import ask
from tests.migrations.commands import alembic
from tests.migrations.runs import all_heads
from tests.migrations.turns import CREATE, DROP, give_bounds, holding

if TYPE_CHECKING:
    from tests.migrations.project import Project


@pytest.fixture
def five(project: Project) -> Project:
    """The project, with five revisions that do nothing, the third of them on all shards."""
    for number in range(1, 6):
        project.revise(f"r{number}", f"r{number - 1}" if number > 1 else None)
    command.upgrade(project.config(), "r3")
    return project


def move(project: Project, shard: str, target: str) -> None:
    config = project.config()
    config.cmd_opts = Namespace(x=[f"shard={shard}"])
    command.stamp(config, target)


@pytest.mark.parametrize(
    ("arguments", "after"),
    [
        ("upgrade +1", "r4"),
        ("downgrade -2", "r1"),
        ("upgrade head-1", "r4"),
        ("downgrade r4-2", "r2"),
        ("-x atomic=1 upgrade +2", "r5"),
        ("-x atomic=1 downgrade -1", "r2"),
    ],
)
def test_shards_at_the_same_revision_are_counted_alike(
    five: Project, arguments: str, after: str
) -> None:
    ended = alembic(five.directory, *arguments.split())

    assert (ended.code, ended.failure, ended.output) == (0, "", "")
    assert all_heads(five) == [[after]] * 4


@pytest.mark.parametrize("command_", ["upgrade +1", "downgrade -1", "-x atomic=1 downgrade -1"])
def test_shards_at_different_revisions_are_refused_before_one_is_changed(
    five: Project, command_: str
) -> None:
    move(five, "s2", "r2")

    ended = alembic(five.directory, *command_.split())

    assert ended.output == (
        f"FAILED: {command_.split()[-1]} would mean different revisions: shard 's0' is at r3, shard"
        " 's2' at r2; no shard was changed; name the revision that all of them shall have, or one "
        "shard by -x shard=s2\n"
    )
    assert all_heads(five) == [["r3"], ["r3"], ["r2"], ["r3"]]


def test_a_shard_that_could_not_go_so_far_is_found_before_the_others_go(five: Project) -> None:
    move(five, "s3", "r5")

    ended = alembic(five.directory, "upgrade", "+1")

    assert "shard 's0' is at r3, shard 's3' at r5; no shard was changed" in ended.output
    assert all_heads(five) == [["r3"], ["r3"], ["r3"], ["r5"]]


def test_a_shard_without_revisions_is_at_base(five: Project) -> None:
    move(five, "s1", "base")

    ended = alembic(five.directory, "upgrade", "+1")

    assert "shard 's0' is at r3, shard 's1' at base" in ended.output


def test_a_shard_that_has_an_unknown_revision_is_named(five: Project) -> None:
    ask(five.urls["s1"], "UPDATE alembic_version SET version_num = 'gone'")

    ended = alembic(five.directory, "upgrade", "+1")

    assert "shard 's0' is at r3, shard 's1' at gone" in ended.output
    assert all_heads(five) == [["r3"], ["gone"], ["r3"], ["r3"]]


@pytest.mark.parametrize(
    ("command_", "after"), [("upgrade head-1", "r4"), ("downgrade r3-1", "r2")]
)
def test_what_counts_from_a_revision_brings_different_shards_to_the_same(
    five: Project, command_: str, after: str
) -> None:
    move(five, "s2", "r2")

    ended = alembic(five.directory, *command_.split())

    assert (ended.code, ended.failure, ended.output) == (0, "", "")
    assert all_heads(five) == [[after]] * 4


def test_one_shard_is_counted_by_itself(five: Project) -> None:
    move(five, "s2", "r2")

    alembic(five.directory, "-x", "shard=s2", "upgrade", "+1")
    ended = alembic(five.directory, "-x", "shards=s0,s2", "downgrade", "-1")

    assert (ended.code, ended.output) == (0, "")
    assert all_heads(five) == [["r2"], ["r3"], ["r2"], ["r3"]]


def test_another_branch_does_not_matter_to_one_that_is_named(five: Project) -> None:
    five.revise("b1", None, labels=("side",))
    five.revise("b2", "b1")
    command.upgrade(five.config(), "b1")
    config = five.config()
    config.cmd_opts = Namespace(x=["shard=s2"])
    command.upgrade(config, "r5")

    ended = alembic(five.directory, "upgrade", "side@+1")

    assert (ended.code, ended.failure) == (0, "")
    assert all_heads(five) == [["b2", "r3"], ["b2", "r3"], ["b2", "r5"], ["b2", "r3"]]


def test_what_alembic_says_of_all_shards_is_said_as_of_one(five: Project) -> None:
    ended = alembic(five.directory, "upgrade", "+9")

    assert ended.output == "FAILED: Relative revision +9 didn't produce 9 migrations\n"
    assert all_heads(five) == [["r3"]] * 4


@pytest.mark.parametrize("target", ["-1", "+1", "head-1"])
def test_stamp_takes_none_as_ever(five: Project, target: str) -> None:
    move(five, "s2", "r2")

    ended = alembic(five.directory, "stamp", "--", target)

    assert ended.output == f"FAILED: Can't locate revision identified by '{target}'\n"
    assert all_heads(five) == [["r3"], ["r3"], ["r2"], ["r3"]]


def test_a_shard_that_moves_meanwhile_is_not_counted_anew(five: Project) -> None:
    five.revise(
        "r4", "r3", 'from alembic import context\ncontext.config.attributes["move"](op.get_bind())'
    )
    config = five.config()

    def move_next(bind: object) -> None:
        ask(five.urls["s3"], "UPDATE alembic_version SET version_num = 'r2'")

    config.attributes["move"] = move_next

    with pytest.raises(CommandError, match=r"shard 's3' is at r2 by now, and \+1 was counted from"):
        command.upgrade(config, "+1")

    assert all_heads(five) == [["r4"], ["r4"], ["r4"], ["r2"]]


def test_another_try_does_not_count_from_what_the_first_has_committed(project: Project) -> None:
    give_bounds(
        project, "transaction_per_migration=True, bounds=Bounds(lock_timeout=0.1, lock_tries=3)"
    )
    for number in range(1, 6):
        project.revise(f"r{number}", f"r{number - 1}" if number > 1 else None)
    project.revise("r1", None, CREATE, DROP)
    project.revise("r3", "r2", 'op.add_column("things", sa.Column("more", sa.Integer))')
    command.upgrade(project.config(), "r1")
    with (
        holding(project.urls["s1"], "SELECT FROM things"),
        pytest.raises(CommandError, match=r"'s1' is at r2 by now, and \+2 was counted from r1"),
    ):
        command.upgrade(project.config(), "+2")

    assert all_heads(project) == [["r3"], ["r2"], ["r1"], ["r1"]]
