"""Regions of keys hold what they say, and their buckets hold every key in them."""

from __future__ import annotations

from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlalchemy_shards import (
    CompositePartitioner,
    HashPartitioner,
    Keyspace,
    ListPartitioner,
    RangePartitioner,
    ShardMap,
)
from sqlalchemy_shards.errors import UnknownShard
from sqlalchemy_shards.topology.key_regions import UNBOUND, InBucket, Interval, is_in, overlap

SHARDS = ("s0", "s1", "s2", "s3")
TENS = RangePartitioner([0, 10, 20])
VALUES = (*range(-2, 24, 2), 9, 11, 19, 21)
PARTITIONERS = {
    "range": (TENS,),
    "range after a transform": (RangePartitioner([0, 10, 20], transform=lambda key: -key),),
    "hash": (HashPartitioner(8),),
    "list": (ListPartitioner({"a": [0, 2], "b": [4]}, default="c"),),
    "list without default": (ListPartitioner({"a": list(VALUES[:9]), "b": [19]}),),
    "range and hash": (TENS, HashPartitioner(3)),
    "list and range": (ListPartitioner({"a": [0, 2], "b": [4]}, default="c"), TENS),
    "hash and hash": (HashPartitioner(2), HashPartitioner(2)),
}

bounds = st.just(UNBOUND) | st.sampled_from(VALUES)
intervals = st.builds(Interval, bounds, bounds, st.booleans(), st.booleans())
parts = st.just(UNBOUND) | st.sampled_from(VALUES) | intervals


@given(parts, parts)
def test_an_overlap_holds_what_both_hold(one: Any, other: Any) -> None:
    both = overlap(one, other)

    for value in VALUES:
        is_in_both = is_in((value,), (one,)) and is_in((value,), (other,))
        assert is_in_both == (both is not None and is_in((value,), (both,)))


@given(st.sampled_from(sorted(PARTITIONERS)), st.data())
def test_the_shards_of_a_region_hold_every_key_in_it(name: str, data: st.DataObject) -> None:
    partitioners = PARTITIONERS[name]
    width = len(partitioners)
    partitioner = partitioners[0] if width == 1 else CompositePartitioner(*partitioners)
    pins = {tuple([9] * width): "s3", tuple([19] * width): "s0"}
    shard_map = ShardMap.build({"default": Keyspace(partitioner, pins=pins)}, SHARDS)
    region = data.draw(st.tuples(*[parts] * width))

    shards = shard_map.shards_within("default", region)

    for key in product(VALUES, repeat=width):
        if shards is None or not is_in(key, region):
            continue
        try:
            home = shard_map.shard_for("default", key)
        except UnknownShard:
            continue
        assert home in shards


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(high=Decimal(10), is_open_above=True), {"s0", "s1"}),
        (Interval(high=Decimal(10)), {"s0", "s1", "s2"}),
        (Interval(low=Decimal(10)), {"s2", "s3"}),
        (Interval(Decimal("0.5"), Decimal("9.5")), {"s1"}),
        (Interval("a", "b"), None),
    ],
    # A set is written in another order by each worker of a parallel run.
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_an_interval_has_the_buckets_between_its_bounds(
    interval: Interval, expected: set[str] | None
) -> None:
    placement = {0: "s0", 1: "s1", 2: "s2", 3: "s3"}
    shard_map = ShardMap.build({"default": Keyspace(TENS, placement=placement)}, SHARDS)

    assert shard_map.shards_within("default", (interval,)) == expected


def test_a_bucket_has_its_shard_and_those_of_the_pins_in_it() -> None:
    placement = {0: "s0", 1: "s1", 2: "s2", 3: "s3"}
    keyspace = Keyspace(TENS, placement=placement, pins={5: "s3"})
    shard_map = ShardMap.build({"default": keyspace}, SHARDS)

    found = [shard_map.shards_within("default", (UNBOUND, InBucket(n))) for n in (1, 2, 9)]

    assert found == [{"s1", "s3"}, {"s2"}, None]


def test_a_user_s_partitioner_is_only_asked_for_single_keys() -> None:
    class Odd:
        bucket_count = 2

        def bucket_of(self, key: tuple[Any, ...]) -> int:
            return int(key[0]) % 2

        def bucket_label(self, bucket: int) -> str:
            return str(bucket)

        def describe(self) -> str:
            return "odd and even"

    shard_map = ShardMap.build({"default": Keyspace(Odd())}, SHARDS)

    assert shard_map.shards_within("default", (Interval(1, 1),)) is None
    assert shard_map.shards_within("default", (1,)) == {shard_map.shard_for("default", (1,))}
