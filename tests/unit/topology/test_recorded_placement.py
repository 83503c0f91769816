from __future__ import annotations

import json

import pytest

from sqlalchemy_shards import (
    CompositePartitioner,
    HashPartitioner,
    Keyspace,
    ListPartitioner,
    RangePartitioner,
)
from sqlalchemy_shards.topology.recorded_placement import added_to, placement_faults, record_of
from sqlalchemy_shards.topology.shard_map import ShardMap

TWO = ("s0", "s1")
THREE = ("s0", "s1", "s2")
HASH = Keyspace(HashPartitioner(8))
NORTH_SOUTH = ListPartitioner({"n": ["a"], "s": ["b"]})
NORTH_SOUTH_WEST = ListPartitioner({"n": ["a"], "s": ["b"], "w": ["c"]})


def shard_map(keyspace: Keyspace, shards: tuple[str, ...] = TWO) -> ShardMap:
    return ShardMap.build({"default": keyspace}, shards)


def faults(before: ShardMap, after: ShardMap) -> list[str]:
    """What is said after a record went through a database."""
    return placement_faults(after, json.loads(json.dumps(record_of(before))))


@pytest.mark.parametrize(
    "keyspace",
    [
        HASH,
        Keyspace(HashPartitioner(1024)),
        Keyspace(RangePartitioner([100, 200])),
        Keyspace(RangePartitioner([1, 2, 3, 10])),
        Keyspace(NORTH_SOUTH, {"n": "s1", "s": "s0"}),
        Keyspace(CompositePartitioner(NORTH_SOUTH, HashPartitioner(16))),
    ],
)
def test_a_map_does_not_contradict_its_own_record(keyspace: Keyspace) -> None:
    assert faults(shard_map(keyspace), shard_map(keyspace)) == []


def test_a_further_shard_that_takes_buckets_is_a_contradiction() -> None:
    found = faults(shard_map(HASH, TWO), shard_map(HASH, THREE))

    assert found == [
        "keyspace 'default': bucket '3' is recorded on s0, not on s2",
        "keyspace 'default': bucket '7' is recorded on s1, not on s2",
    ]


def test_a_further_shard_that_takes_none_is_no_contradiction() -> None:
    placed = Keyspace(HashPartitioner(8), {"0-3": "s0", "4-7": "s1"})

    assert faults(shard_map(placed, TWO), shard_map(placed, THREE)) == []


def test_shards_in_another_order_are_a_contradiction() -> None:
    assert faults(shard_map(HASH, TWO), shard_map(HASH, ("s1", "s0"))) != []


def test_another_number_of_buckets_is_a_contradiction() -> None:
    everything_on_one = [Keyspace(HashPartitioner(n), {f"0-{n - 1}": "s0"}) for n in (8, 16)]

    found = faults(*(shard_map(each) for each in everything_on_one))

    assert found == ["keyspace 'default': it was hash into 8 buckets, and is hash into 16 buckets"]


def test_another_kind_of_partitioner_is_a_contradiction() -> None:
    assert faults(shard_map(HASH), shard_map(Keyspace(RangePartitioner([100])))) != []
    assert faults(shard_map(Keyspace(RangePartitioner([100]))), shard_map(HASH)) != []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            Keyspace(NORTH_SOUTH, {"n": "s0", "s": "s1"}),
            Keyspace(NORTH_SOUTH_WEST, {"n": "s0", "s": "s1", "w": "s1"}),
        ),
        (
            Keyspace(RangePartitioner([100]), {0: "s0", 1: "s1"}),
            Keyspace(RangePartitioner([50, 100]), {0: "s0", 1: "s0", 2: "s1"}),
        ),
        (
            Keyspace(CompositePartitioner(NORTH_SOUTH, HashPartitioner(2)), {"0-3": "s0"}),
            Keyspace(
                CompositePartitioner(NORTH_SOUTH_WEST, HashPartitioner(2)),
                {"0-3": "s0", "4-5": "s1"},
            ),
        ),
    ],
)
def test_new_values_and_bounds_are_no_contradiction_for_old_and_new_processes(
    before: Keyspace, after: Keyspace
) -> None:
    assert faults(shard_map(before), shard_map(after)) == []
    assert faults(shard_map(after), shard_map(before)) == []


def test_a_label_on_another_shard_is_a_contradiction() -> None:
    before = shard_map(Keyspace(NORTH_SOUTH, {"n": "s0", "s": "s1"}))
    after = shard_map(Keyspace(NORTH_SOUTH_WEST, {"n": "s0", "s": "s0", "w": "s1"}))

    assert faults(before, after) == ["keyspace 'default': bucket 's' is recorded on s1, not on s0"]


def test_many_contradictions_are_counted() -> None:
    every_other = Keyspace(HashPartitioner(64), {n: TWO[n % 2] for n in range(64)})
    halves = Keyspace(HashPartitioner(64), {"0-31": "s1", "32-63": "s0"})

    found = faults(shard_map(every_other), shard_map(halves))

    assert found[-1] == "keyspace 'default': and 29 more runs of buckets"


def test_keyspaces_of_one_side_only_are_no_contradiction() -> None:
    before = ShardMap.build({"default": HASH}, TWO)
    after = ShardMap.build({"other": HASH}, TWO)

    assert faults(before, after) == []
    assert added_to(record_of(before), after) == {**record_of(before), **record_of(after)}


def test_what_another_process_knows_beyond_is_kept() -> None:
    old = shard_map(Keyspace(NORTH_SOUTH, {"n": "s0", "s": "s1"}))
    new = shard_map(Keyspace(NORTH_SOUTH_WEST, {"n": "s0", "s": "s1", "w": "s1"}))

    kept = added_to(record_of(new), old)

    assert kept["default"]["buckets"] == {"n": "s0", "s": "s1", "w": "s1"}
