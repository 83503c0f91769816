from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlalchemy_shards import HashPartitioner, Keyspace, ListPartitioner, ShardMap
from sqlalchemy_shards.topology import generated_id
from sqlalchemy_shards.topology.generated_id import (
    BUCKETS_WITH_IDS_MAX,
    FIRST_MILLISECOND,
    IDS_PER_MILLISECOND,
    LAST_MILLISECOND,
    WORKERS_MAX,
    IdParts,
    bucket_of_id,
    id_of,
    parts_of,
)

SHARDS = ("s0", "s1", "s2", "s3")
FIRST = IdParts(FIRST_MILLISECOND, 0, 0, 0)
LAST = IdParts(LAST_MILLISECOND, BUCKETS_WITH_IDS_MAX - 1, WORKERS_MAX - 1, IDS_PER_MILLISECOND - 1)

parts = st.builds(
    IdParts,
    st.integers(FIRST_MILLISECOND, LAST_MILLISECOND),
    st.integers(0, BUCKETS_WITH_IDS_MAX - 1),
    st.integers(0, WORKERS_MAX - 1),
    st.integers(0, IDS_PER_MILLISECOND - 1),
)


@given(parts)
def test_an_id_gives_back_what_it_was_made_of(made: IdParts) -> None:
    value = id_of(made)

    assert parts_of(value) == made
    assert bucket_of_id(value) == made.bucket
    assert 0 < value < 2**63


@given(parts, parts)
def test_ids_are_in_the_order_of_their_times(one: IdParts, other: IdParts) -> None:
    assert (one.milliseconds < other.milliseconds) <= (id_of(one) < id_of(other))
    assert (one == other) == (id_of(one) == id_of(other))


def test_the_layout_is_that_of_the_first_release() -> None:
    made = IdParts(milliseconds=200_000_000_000, bucket=1023, worker=77, sequence=6)

    assert id_of(made) == 838860800001048174
    assert id_of(FIRST) == 662082630451200000
    assert id_of(LAST) == 2**63 - 1


@pytest.mark.parametrize("value", [-(2**63), -1, 0, 1, 2**31, id_of(FIRST) - 1, 2**63, 2**70])
def test_a_number_that_was_not_generated_carries_no_bucket(value: int) -> None:
    assert parts_of(value) is None
    assert bucket_of_id(value) is None


@pytest.mark.parametrize("bounds", [FIRST, LAST])
def test_the_first_and_the_last_id_carry_their_bucket(bounds: IdParts) -> None:
    assert parts_of(id_of(bounds)) == bounds


def test_ids_last_until_2089() -> None:
    assert LAST.time.year == 2089
    assert FIRST.time.isoformat() == "2025-01-01T00:00:00+00:00"


def test_the_map_tells_the_shard_of_an_id() -> None:
    shard_map = ShardMap.build({"default": Keyspace(HashPartitioner(64))}, SHARDS)

    for key in range(200):
        made = id_of(FIRST._replace(bucket=shard_map.bucket_for("default", (key,))))
        assert shard_map.shards_of_id("default", made) == {shard_map.shard_for("default", (key,))}


def test_the_shards_of_an_id_include_those_of_pins_in_its_bucket() -> None:
    pinned = ShardMap.build({"default": Keyspace(HashPartitioner(2), pins={5: "s3"})}, SHARDS)
    bucket = pinned.bucket_for("default", (5,))
    others = pinned.keyspaces["default"].placement

    here = pinned.shards_of_id("default", id_of(FIRST._replace(bucket=bucket)))
    there = pinned.shards_of_id("default", id_of(FIRST._replace(bucket=1 - bucket)))

    assert here == {others[bucket], "s3"}
    assert there == {others[1 - bucket]}


def test_a_pinned_key_without_a_bucket_concerns_no_id() -> None:
    partitioner = ListPartitioner({"west": ["Goa"], "south": ["Kerala"]})
    shard_map = ShardMap.build({"default": Keyspace(partitioner, pins={"Delhi": "s3"})}, SHARDS)

    found = [shard_map.shards_of_id("default", id_of(FIRST._replace(bucket=n))) for n in (0, 1)]

    assert found == [{shard} for shard in shard_map.keyspaces["default"].placement]


def test_an_id_may_lie_anywhere_if_its_bucket_is_none_of_the_keyspace() -> None:
    shard_map = ShardMap.build({"default": Keyspace(HashPartitioner(64))}, SHARDS)

    assert shard_map.shards_of_id("default", id_of(FIRST._replace(bucket=64))) is None
    assert shard_map.shards_of_id("default", 12) is None


def test_the_examples_of_the_layout_hold() -> None:
    assert doctest.testmod(generated_id).failed == 0
