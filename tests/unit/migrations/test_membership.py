"""Which shards have not joined, by what the shards say."""

from __future__ import annotations

import doctest
from typing import Any
from uuid import UUID

import pytest

from sqlalchemy_shards.catalog.identity import Identity
from sqlalchemy_shards.migrations import membership
from sqlalchemy_shards.migrations.membership import Newcomer, newcomers

SHARDS = ("s0", "s1", "s2")
RECORD = {"default": {"partitioner": "hash into 2 buckets", "buckets": {"0": "s0", "1": "s1"}}}


def identity(name: str, record: dict[str, Any] = RECORD, **told: bool) -> Identity:
    """A shard that has been told of newcomers."""
    return Identity(UUID(int=1), "app", UUID(int=2), name, 5, record, False, told)


def found(
    seen: dict[str, Identity | None], *, holding: set[str] | None = None
) -> tuple[Newcomer, ...]:
    placed = {"s0", "s1"} if holding is None else holding
    return newcomers(seen, SHARDS, founders={"s0"}, holding=placed)


def test_examples() -> None:
    assert doctest.testmod(membership).failed == 0


def test_shards_on_which_keys_were_placed_are_members_before_they_have_a_schema() -> None:
    assert not found({"s0": identity("s0"), "s1": None, "s2": identity("s2")}, holding=set(SHARDS))


def test_nobody_is_new_where_no_shard_belongs_to_a_cluster_yet() -> None:
    assert not found({"s0": None, "s1": None, "s2": None})


def test_one_without_a_schema_that_nobody_knows_is_new() -> None:
    (new,) = found({"s0": identity("s0"), "s1": identity("s1"), "s2": None})

    assert new == Newcomer("s2", False, True, False, False)
    assert new.is_certain
    assert "s2 is new" in new.sentence()


def test_an_announced_one_has_not_joined_whoever_tells_it() -> None:
    (new,) = found({"s1": identity("s1", s2=False), "s0": identity("s0")})

    assert new == Newcomer("s2", True, True, None, False)


@pytest.mark.parametrize(
    ("own", "others", "is_out"),
    [(True, False, False), (False, True, True), (False, False, True)],
    ids=["others not told yet", "an old copy", "announced"],
)
def test_the_word_of_the_shard_itself_wins(own: bool, others: bool, is_out: bool) -> None:
    seen = {"s0": identity("s0", s2=others), "s2": identity("s2", s2=own)}

    assert bool(found(seen)) is is_out


def test_one_that_does_not_answer_has_joined_if_others_were_told_so() -> None:
    assert not found({"s0": identity("s0", s2=True), "s1": identity("s1", s2=False)})


def test_one_that_the_configuration_does_not_name_is_told_of_as_such() -> None:
    (new,) = found({"s0": identity("s0", s9=False)})

    assert (new.shard, new.is_configured) == ("s9", False)
    assert "does not name it" in new.sentence()


def test_an_empty_one_with_a_schema_may_be_of_the_beginning() -> None:
    (new,) = found({name: identity(name) for name in SHARDS})

    assert (new.shard, new.is_certain) == ("s2", False)
    assert "if it was added" in new.sentence()


def test_the_first_and_the_global_one_never_join() -> None:
    record = {"default": {"partitioner": "hash", "buckets": {"0": "s1", "1": "s2"}}}

    assert not found({"s0": None, "s1": identity("s1", record)})


def test_keys_that_are_placed_too_early_are_told_of() -> None:
    (announced,) = found({"s0": identity("s0", s2=False)}, holding=set(SHARDS))
    (unknown,) = found({"s0": identity("s0"), "s2": None}, holding=set(SHARDS))

    assert "take them off it" in announced.sentence()
    assert (unknown.is_certain, "if they have data" in unknown.sentence()) == (False, True)
