from __future__ import annotations

from pathlib import Path

import pytest
from alembic.util import CommandError

from sqlalchemy_shards.migrations.env.selection import Selection, read_selection

SHARDS = ("s0", "s1", "s2")


def test_all_shards_are_meant_where_none_is_named() -> None:
    assert read_selection([], SHARDS) == Selection(SHARDS)


@pytest.mark.parametrize(
    ("argument", "shards"),
    [
        ("shard=s1", ("s1",)),
        ("shards=s2,s0", ("s2", "s0")),
        ("shards= s2 , s0 ", ("s2", "s0")),
        ("shards=s1", ("s1",)),
    ],
)
def test_shards_are_named_in_the_order_of_their_turns(
    argument: str, shards: tuple[str, ...]
) -> None:
    assert read_selection([argument], SHARDS).shards == shards


def test_arguments_of_the_application_are_left_to_it() -> None:
    arguments = ["tenant=7", "verbose", "shardless=1", "shard=s1", "tenant=8"]

    assert read_selection(arguments, SHARDS).shards == ("s1",)


def test_scripts_go_to_a_directory() -> None:
    found = read_selection(["sql_directory=a/b=c"], SHARDS, is_offline=True)

    assert found == Selection(SHARDS, Path("a/b=c"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shard=s9"], "there is no shard 's9'; there are: s0, s1, s2"),
        (["shards=s0,s9"], "there is no shard 's9'; there are: s0, s1, s2"),
        (["shard=s0,s1"], "there is no shard 's0,s1'; there are: s0, s1, s2"),
        (["shards=s0,,s1"], "there is no shard ''; there are: s0, s1, s2"),
        (["shard="], "-x shard= names nothing; write -x shard=s0"),
        (["shard"], "-x shard= names nothing; write -x shard=s0"),
        (["shards= "], "-x shards= names nothing; write -x shards=s0,s1"),
        (["shard=s0", "shard=s1"], "-x shard= is given twice; name several with -x shards=s0,s1"),
        (["shards=s0", "shards=s1"], "-x shards= is given twice; give it once"),
        (["shard=s0", "shards=s1"], "-x shard= and -x shards= are both given; give one of them"),
        (["shards=s0,s1,s0"], "the shard 's0' is named twice; name it once"),
        (["sql_directory=x"], "-x sql_directory= is for --sql; nothing is written without it"),
        (["sql_directory="], "-x sql_directory= names nothing; write -x sql_directory=DIRECTORY"),
        (["atomic=yes"], "-x atomic=yes means nothing; write -x atomic=1"),
    ],
)
def test_what_cannot_be_meant_is_said(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError) as raised:
        read_selection(arguments, SHARDS)

    assert str(raised.value) == message
