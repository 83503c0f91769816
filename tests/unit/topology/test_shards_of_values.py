"""Many keys at once lie where each of them lies alone."""

from __future__ import annotations

import struct
import uuid
from decimal import Decimal
from typing import Any

import pytest

from sqlalchemy_shards.topology.keyspace import Keyspace
from sqlalchemy_shards.topology.partitioners import HashPartitioner, RangePartitioner
from sqlalchemy_shards.topology.shard_map import KeyspaceMap, ShardMap

SHARDS = ("s0", "s1", "s2")
INTEGERS = [*range(-500, 500), 2**31, -(2**63), 2**63 - 1]


def keyspace(**declared: Any) -> KeyspaceMap:
    return ShardMap.build({"default": Keyspace(**declared)}, SHARDS).keyspaces["default"]


class Reversed(HashPartitioner):
    """An application's own, which counts the buckets from the other end."""

    def bucket_of(self, key: tuple[Any, ...]) -> int:
        return self.buckets - 1 - HashPartitioner.bucket_of(self, key)


DECLARED: dict[str, dict[str, Any]] = {
    "hash": {"partitioner": HashPartitioner(1000)},
    "transform": {"partitioner": HashPartitioner(64, transform=lambda key: ("same",))},
    "pins": {"partitioner": HashPartitioner(64), "pins": {7: "s2", "key 7": "s1"}},
    "subclass": {"partitioner": Reversed(1000)},
}
OF_ONE_TYPE: list[list[Any]] = [
    INTEGERS,
    [True, False],
    [Decimal(number) / 2 for number in range(-50, 50)],
    [f"key {number}" for number in range(100)],
    [uuid.UUID(int=number) for number in range(100)],
]


@pytest.mark.parametrize(
    "keys",
    [
        INTEGERS,
        [*INTEGERS, 2**63],
        [*INTEGERS, True],
        [*INTEGERS, Decimal(5)],
        [f"key {number}" for number in range(100)],
        [uuid.UUID(int=number) for number in range(100)],
        [],
    ],
    ids=["integers", "a long one", "a bool", "a decimal", "text", "UUIDs", "none"],
)
@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED.keys())
def test_all_lie_where_each_lies(declared: dict[str, Any], keys: list[Any]) -> None:
    spread = keyspace(**declared)

    assert spread.shards_of_values(keys) == [spread.shard_for((key,)) for key in keys]


@pytest.mark.parametrize("keys", OF_ONE_TYPE, ids=lambda keys: type(keys[0]).__name__)
@pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED.keys())
def test_one_after_the_other_is_found_where_it_lies(
    declared: dict[str, Any], keys: list[Any]
) -> None:
    spread = keyspace(**declared)
    shard_of = spread.finder(type(keys[0]))

    assert [shard_of(key) for key in keys] == [spread.shard_for((key,)) for key in keys]


def test_a_number_of_more_than_eight_bytes_is_left_to_others() -> None:
    shard_of = keyspace(partitioner=HashPartitioner(16)).finder(int)

    with pytest.raises(struct.error):
        shard_of(2**63)


def test_none_is_told_where_one_is_no_key() -> None:
    spread = keyspace(partitioner=RangePartitioner([10, 20]), placement=None)

    assert spread.shards_of_values([1, "x"]) is None
