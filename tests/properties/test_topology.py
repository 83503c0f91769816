"""Properties of placement, partitioners and the canonical form."""

from __future__ import annotations

import pickle
from collections import Counter
from datetime import timedelta, timezone
from decimal import Decimal, localcontext
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sqlalchemy_shards.topology.canonical import (
    canonical_bytes,
    comparable,
    identity_bytes,
    kind_of,
)
from sqlalchemy_shards.topology.config import mask_password
from sqlalchemy_shards.topology.keyspace import Keyspace
from sqlalchemy_shards.topology.partitioners import (
    CompositePartitioner,
    HashPartitioner,
    ListPartitioner,
    Partitioner,
    RangePartitioner,
)
from sqlalchemy_shards.topology.placement import spread
from sqlalchemy_shards.topology.shard_map import ShardMap

bucket_counts = st.integers(1, 3000)
shard_lists = st.lists(
    st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=40, unique=True
)
zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=None)
short_decimals = st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent),
    st.integers(-(10**6), 10**6),
    st.integers(-8, 8),
)
scalars = st.one_of(
    st.integers(),
    st.integers(-3, 3),
    texts,
    st.uuids(),
    st.binary(max_size=12),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=zones),
    short_decimals,
    st.booleans(),
)
keys = st.lists(scalars, min_size=1, max_size=3).map(tuple)


@given(bucket_counts, shard_lists)
def test_spread_is_even(bucket_count: int, shards: list[str]) -> None:
    held = Counter(dict.fromkeys(shards, 0))
    held.update(spread(bucket_count, shards))

    assert sum(held.values()) == bucket_count
    assert max(held.values()) - min(held.values()) <= 1


@given(bucket_counts, shard_lists, st.integers(0, 40))
def test_appending_a_shard_moves_only_its_share_and_only_to_it(
    bucket_count: int, shards: list[str], kept: int
) -> None:
    old = shards[: max(1, kept % len(shards))]
    new = [*old, "new"]

    moves = [
        target
        for source, target in zip(spread(bucket_count, old), spread(bucket_count, new), strict=True)
        if source != target
    ]

    assert moves == ["new"] * (bucket_count // len(new))


@given(bucket_counts, shard_lists)
def test_spread_depends_on_the_order_of_the_shards_and_not_on_their_names(
    bucket_count: int, shards: list[str]
) -> None:
    renamed = [f"s{number}" for number in range(len(shards))]
    names = dict(zip(shards, renamed, strict=True))

    placement = spread(bucket_count, shards)

    assert tuple(names[shard] for shard in placement) == spread(bucket_count, renamed)
    assert placement == spread(bucket_count, tuple(shards))


@given(keys, keys)
def test_keys_share_an_identity_if_and_only_if_they_are_equal(one: Any, other: Any) -> None:
    equal = [kind_of(v) for v in one] == [kind_of(v) for v in other] and [
        comparable(v) for v in one
    ] == [comparable(v) for v in other]

    assert (identity_bytes(one) == identity_bytes(other)) == equal
    if equal:
        assert canonical_bytes(one) == canonical_bytes(other)


@given(short_decimals, st.integers(0, 20))
def test_zeros_at_the_end_of_a_decimal_do_not_matter(number: Decimal, zeros: int) -> None:
    with localcontext() as context:
        context.prec = 100
        longer = number.quantize(Decimal(1).scaleb(min(0, number.adjusted() - 7) - zeros))

    assert longer == number
    assert canonical_bytes(longer) == canonical_bytes(number)


@given(st.integers(), st.integers(0, 5))
def test_whole_numbers_have_one_form_whatever_their_type(number: int, zeros: int) -> None:
    assert canonical_bytes(Decimal(f"{number}.{'0' * zeros}")) == canonical_bytes(number)


@given(st.datetimes(timezones=zones), zones)
def test_an_instant_has_one_form_in_every_time_zone(moment: Any, zone: Any) -> None:
    try:
        elsewhere = moment.astimezone(zone)
    except OverflowError:
        return

    assert canonical_bytes(elsewhere) == canonical_bytes(moment)


@given(keys, st.integers(1, 65_536))
def test_every_key_has_a_bucket_and_equal_partitioners_agree(key: Any, buckets: int) -> None:
    partitioner = HashPartitioner(buckets)

    bucket = partitioner.bucket_of(key)

    assert 0 <= bucket < buckets
    assert pickle.loads(pickle.dumps(partitioner)).bucket_of(key) == bucket


@given(st.sets(st.integers(-50, 50), min_size=1), st.integers(-60, 60))
def test_a_value_lies_between_the_bounds_of_its_range(bounds: set[int], value: int) -> None:
    ascending = sorted(bounds)

    bucket = RangePartitioner(ascending).bucket_of((value,))

    assert bucket == sum(bound <= value for bound in bounds)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(), texts)
def test_composite_buckets_are_a_bijection_of_the_parts_buckets(
    first: int, second: int, number: int, text: str
) -> None:
    one, other = HashPartitioner(first), HashPartitioner(second)
    partitioner = CompositePartitioner(one, other)

    bucket = partitioner.bucket_of((number, text))

    assert divmod(bucket, second) == (one.bucket_of((number,)), other.bucket_of((text,)))
    assert partitioner.bucket_label(bucket) == "/".join(map(str, divmod(bucket, second)))


@given(bucket_counts, shard_lists, st.data())
def test_applying_the_moves_of_a_diff_gives_the_other_map(
    bucket_count: int, shards: list[str], data: st.DataObject
) -> None:
    partitioner = HashPartitioner(bucket_count)
    one = ShardMap.build({"default": Keyspace(partitioner)}, shards)
    placed = data.draw(
        st.dictionaries(st.integers(0, bucket_count - 1), st.sampled_from(shards), max_size=9)
    )
    placement = {**dict(enumerate(one.keyspaces["default"].placement)), **placed}
    other = ShardMap.build({"default": Keyspace(partitioner, placement)}, shards)

    moved = one
    for move in one.diff(other):
        moved = moved.moved(move.keyspace, move.bucket or 0, move.target)

    assert moved.keyspaces == other.keyspaces
    assert moved.diff(other) == ()


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.sampled_from("hlc"))
def test_ranges_are_a_placement_that_gives_the_same_map(places: list[int], kind: str) -> None:
    shards = ["s0", "s1", "s2"]
    hashed = HashPartitioner(len(places))
    listed = ListPartitioner({f"v{number}": [number] for number in range(len(places))})
    composite = CompositePartitioner(ListPartitioner({"a": [1]}, default="b"), hashed)
    partitioners: dict[str, Partitioner] = {"h": hashed, "l": listed, "c": composite}
    partitioner = partitioners[kind]
    placement = [shards[place] for place in places] * (2 if kind == "c" else 1)
    one = ShardMap.build({"default": Keyspace(partitioner, dict(enumerate(placement)))}, shards)

    ranges = one.keyspaces["default"].ranges()

    assert ShardMap.build({"default": Keyspace(partitioner, dict(ranges))}, shards) == one


@given(st.text("abcXYZ019:/@?#[]%&= '\"\\$", max_size=20))
def test_no_password_survives_masking_whatever_it_is_made_of(noise: str) -> None:
    password = f"{noise}hunter2{noise}"

    masked = mask_password(f"postgresql+psycopg://app:{password}@db0:5432/app")

    assert "hunter2" not in masked
