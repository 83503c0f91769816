from __future__ import annotations

from collections import Counter

import pytest

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.partitioners import (
    CompositePartitioner,
    HashPartitioner,
    ListPartitioner,
    RangePartitioner,
)
from sqlalchemy_shards.topology.placement import bucket_runs, resolve_placement, spread

REGIONS = ListPartitioner({"west": ["Goa"]}, default="north")


def test_spread_never_changes() -> None:
    assert "".join(spread(16, ["a", "b", "c", "d"])) == "aaaadcccbbbbddcd"


def test_one_shard_takes_every_bucket() -> None:
    assert spread(3, ["a"]) == ("a", "a", "a")


def test_shards_beyond_the_number_of_buckets_get_none() -> None:
    assert Counter(spread(2, ["a", "b", "c"])) == {"a": 1, "b": 1}


@pytest.mark.parametrize("shards", [[], ["a", "a"]])
def test_spread_refuses_no_shards_and_shards_named_twice(shards: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        spread(8, shards)


def test_buckets_are_placed_by_number_label_and_run() -> None:
    partitioner = HashPartitioner(8)

    placed, faults = resolve_placement(
        partitioner, {0: "a", "1": "b", "2-6": "c", 7: "a"}, ["a", "b", "c"]
    )

    assert faults == []
    assert placed == ("a", "b", "c", "c", "c", "c", "c", "a")


def test_buckets_of_a_list_are_placed_by_label() -> None:
    placed, faults = resolve_placement(REGIONS, {"north": "a", "west": "b"}, ["a", "b"])

    assert (placed, faults) == (("b", "a"), [])


def test_buckets_of_a_composite_are_placed_by_runs_behind_a_label() -> None:
    partitioner = CompositePartitioner(REGIONS, HashPartitioner(4))

    placed, faults = resolve_placement(
        partitioner, {"west/0-3": "a", "north/0-1": "a", "north/2": "b", "north/3": "b"}, ["a", "b"]
    )

    assert (placed, faults) == (("a",) * 6 + ("b",) * 2, [])


def test_buckets_of_ranges_are_placed_by_label_or_number() -> None:
    partitioner = RangePartitioner([100, 200])

    placed, faults = resolve_placement(partitioner, {"below 100": "a", "1-2": "b"}, ["a", "b"])

    assert (placed, faults) == (("a", "b", "b"), [])


def test_every_fault_of_a_placement_is_found() -> None:
    placed, faults = resolve_placement(
        HashPartitioner(8), {"0-2": "a", "2-3": "x", "8": "a", "west": "a", -1: "a"}, ["a"]
    )

    assert placed == ()
    assert faults == [
        "'2-3' is placed on 'x', which is no shard of the cluster",
        "'2-3': bucket '2' is placed twice",
        "there is no bucket '8'",
        "there is no bucket 'west'",
        "there is no bucket -1",
        "buckets '4-7' (4 in all) are not placed on any shard",
    ]


@pytest.mark.parametrize("run", ["0-99999999999999999999", "3-1", "0-8", "-1-2", "0-", "1.0", None])
def test_runs_that_are_none_are_refused(run: object) -> None:
    _, faults = resolve_placement(HashPartitioner(8), {run: "a"}, ["a"])

    assert faults[0] == f"there is no bucket {run!r}"


def test_fault_about_many_buckets_is_short() -> None:
    every_other = dict.fromkeys(range(0, 65_536, 2), "a")

    _, faults = resolve_placement(HashPartitioner(65_536), every_other, ["a"])

    assert faults == [
        "buckets '1', '3', '5', '7', '9', ... (32768 in all) are not placed on any shard"
    ]


def test_labels_that_end_in_numbers_form_runs_only_where_these_count_up() -> None:
    partitioner = ListPartitioner({"v/1": [1], "v/2": [2], "v/4": [4], "w/5": [5], "v/06": [6]})

    runs = bucket_runs(partitioner, ((bucket, "a") for bucket in range(5)))

    assert [label for label, _ in runs] == ["v/1-2", "v/4", "w/5", "v/06"]
