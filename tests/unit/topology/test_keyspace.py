from __future__ import annotations

import pickle
from typing import Any

import pytest

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.keyspace import Keyspace
from sqlalchemy_shards.topology.partitioners import (
    CompositePartitioner,
    HashPartitioner,
    ListPartitioner,
    RangePartitioner,
)


class Endless:
    bucket_count = 10**6

    def bucket_of(self, key: tuple[Any, ...]) -> int:
        return 0

    def bucket_label(self, bucket: int) -> str:
        return str(bucket)

    def describe(self) -> str:
        return "endless"


def test_pins_of_one_part_become_tuples() -> None:
    keyspace = Keyspace(HashPartitioner(), pins={42: "s1", ("a", 7): "s0"})

    assert keyspace.pins == {(42,): "s1", ("a", 7): "s0"}


def test_pin_may_place_a_key_that_no_list_names() -> None:
    keyspace = Keyspace(ListPartitioner({"west": ["Goa"]}), pins={"Delhi": "s1"})

    assert keyspace.pins == {("Delhi",): "s1"}


@pytest.mark.parametrize(
    ("partitioner", "pin"),
    [
        (HashPartitioner(), None),
        (HashPartitioner(), 1.5),
        (RangePartitioner([100]), "a"),
        (CompositePartitioner(HashPartitioner(), HashPartitioner(2)), 5),
    ],
)
def test_pin_that_can_be_no_key_is_refused(partitioner: Any, pin: Any) -> None:
    with pytest.raises(ConfigurationError, match="faulty pins"):
        Keyspace(partitioner, pins={pin: "s0"})


def test_every_faulty_pin_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Keyspace(HashPartitioner(), pins={1: "a", (1,): "b", 1.5: "a"})

    assert caught.value.faults == (
        "1: pinned twice, also as 1",
        "1.5: a shard key cannot be of the type 'float'",
    )


@pytest.mark.parametrize("partitioner", [None, "hash", HashPartitioner, Endless()])
def test_partitioner_that_is_none_is_refused(partitioner: Any) -> None:
    with pytest.raises(ConfigurationError, match="keyspace"):
        Keyspace(partitioner)


def test_survives_pickling() -> None:
    keyspace = Keyspace(HashPartitioner(2), {"0-1": "s0"}, {7: "s1"})

    assert pickle.loads(pickle.dumps(keyspace)) == keyspace


def test_is_not_changed_through_the_mappings_it_was_made_from() -> None:
    placement = {"0-1": "s0"}
    keyspace = Keyspace(HashPartitioner(2), placement)
    placement.clear()

    assert keyspace.placement == {"0-1": "s0"}
