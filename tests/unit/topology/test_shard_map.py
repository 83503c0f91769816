from __future__ import annotations

import pickle
from decimal import Decimal
from typing import Any

import pytest

from sqlalchemy_shards.errors import (
    ConfigurationError,
    MissingShardKey,
    RoutingError,
    UnknownShard,
)
from sqlalchemy_shards.topology.keyspace import Keyspace
from sqlalchemy_shards.topology.partitioners import (
    CompositePartitioner,
    HashPartitioner,
    ListPartitioner,
    RangePartitioner,
)
from sqlalchemy_shards.topology.shard_map import BucketMove, KeyspaceMap, ShardMap

SHARDS = ("s0", "s1", "s2")
REGIONS = ListPartitioner({"west": ["Goa"]}, default="north")


def shard_map(**keyspaces: Keyspace) -> ShardMap:
    return ShardMap.build(keyspaces, SHARDS)


class Wayward:
    """Answers buckets that it does not have."""

    bucket_count = 4

    def bucket_of(self, key: tuple[Any, ...]) -> int:
        return int(key[0])

    def bucket_label(self, bucket: int) -> str:
        return str(bucket)

    def describe(self) -> str:
        return "wayward"


class TestLookingUp:
    def test_key_lies_where_its_bucket_is_placed(self) -> None:
        placed = shard_map(default=Keyspace(RangePartitioner([10]), {0: "s2", 1: "s1"}))

        assert placed.shard_for("default", (9,)) == "s2"
        assert placed.shard_for("default", (10,)) == "s1"
        assert placed.bucket_for("default", (10,)) == 1

    def test_pinned_key_lies_where_it_is_pinned(self) -> None:
        keyspace = Keyspace(RangePartitioner([10]), {0: "s0", 1: "s0"}, {Decimal("1.0"): "s1"})

        placed = shard_map(default=keyspace)

        assert placed.shard_for("default", (1,)) == "s1"
        assert placed.shard_for("default", (Decimal("1.00"),)) == "s1"
        assert placed.shard_for("default", (2,)) == "s0"
        assert placed.bucket_for("default", (1,)) == 0

    def test_pin_is_only_for_keys_of_its_kind(self) -> None:
        placed = shard_map(default=Keyspace(HashPartitioner(1), {0: "s0"}, {1: "s1"}))

        assert placed.shard_for("default", ("1",)) == "s0"
        assert placed.shard_for("default", (True,)) == "s0"

    def test_missing_key_is_refused_with_and_without_pins(self) -> None:
        placed = shard_map(
            a=Keyspace(HashPartitioner()), b=Keyspace(HashPartitioner(), pins={1: "s0"})
        )

        for name in ("a", "b"):
            with pytest.raises(MissingShardKey):
                placed.shard_for(name, (None,))

    def test_unknown_keyspace_is_refused_naming_the_known(self) -> None:
        placed = shard_map(default=Keyspace(HashPartitioner()))

        for ask in (
            lambda: placed.shard_for("x", (1,)),
            lambda: placed.bucket_for("x", (1,)),
            lambda: placed.shards_of("x"),
            lambda: placed.moved("x", 0, "s0"),
        ):
            with pytest.raises(ConfigurationError, match=r"no keyspace 'x'.*'default'"):
                ask()

    @pytest.mark.parametrize("key", [-1, 4])
    def test_bucket_that_a_partitioner_does_not_have_is_refused(self, key: int) -> None:
        placed = shard_map(default=Keyspace(Wayward()))

        for ask in (placed.shard_for, placed.bucket_for):
            with pytest.raises(RoutingError, match=f"answered bucket {key}, but has 4"):
                ask("default", (key,))

    def test_shards_of_a_keyspace_are_those_that_hold_something_in_the_clusters_order(self) -> None:
        placed = shard_map(
            default=Keyspace(REGIONS, {"west": "s2", "north": "s2"}, {"Goa": "s0"}),
            spread=Keyspace(HashPartitioner()),
        )

        assert placed.shards_of("default") == ("s0", "s2")
        assert placed.shards_of("spread") == SHARDS


class TestBuilding:
    def test_begins_with_version_1(self) -> None:
        assert shard_map(default=Keyspace(HashPartitioner())).version == 1

    def test_finds_every_fault(self) -> None:
        keyspaces = {
            "a": Keyspace(HashPartitioner(4), {"0-2": "s0", 7: "s9"}),
            "b c": Keyspace(REGIONS, pins={"Goa": "s8"}),
        }

        with pytest.raises(ConfigurationError) as caught:
            ShardMap.build(keyspaces, SHARDS)

        assert caught.value.faults == (
            "'b c' cannot be the name of a keyspace: "
            "letters, digits, '_', '-' and '.' only, at most 40",
            "keyspace 'a': 7 is placed on 's9', which is no shard of the cluster",
            "keyspace 'a': there is no bucket 7",
            "keyspace 'a': bucket '3' is not placed on any shard",
            "keyspace 'b c': 'Goa' is pinned to 's8', which is no shard of the cluster",
        )

    @pytest.mark.parametrize(
        ("shards", "fault"),
        [
            ((), "there are no shards"),
            (("a", "b", "a"), "shard 'a' is named twice"),
            (("a", "*"), "'*' cannot be the name of a shard"),
            (("x" * 41,), "cannot be the name of a shard"),
        ],
    )
    def test_refuses_faulty_shards(self, shards: tuple[str, ...], fault: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            ShardMap.build({"default": Keyspace(HashPartitioner())}, shards)

        assert fault in caught.value.faults[0]

    def test_refuses_a_placement_of_another_number_of_buckets(self) -> None:
        with pytest.raises(ConfigurationError, match="has 4 buckets, but 1 are placed"):
            KeyspaceMap("default", HashPartitioner(4), ("s0",))

    def test_refuses_shards_that_it_was_not_told_of(self) -> None:
        keyspace = KeyspaceMap("default", HashPartitioner(1), ("s7",))

        with pytest.raises(ConfigurationError, match="unknown shards: s7"):
            ShardMap(1, {"default": keyspace}, SHARDS)


class TestChanging:
    def test_moved_bucket_lies_elsewhere_in_the_next_version_only(self) -> None:
        before = shard_map(default=Keyspace(RangePartitioner([10]), {0: "s0", 1: "s0"}))

        after = before.moved("default", 1, "s2")

        assert (before.version, after.version) == (1, 2)
        assert before.shard_for("default", (10,)) == "s0"
        assert after.shard_for("default", (10,)) == "s2"
        assert after.shards_of("default") == ("s0", "s2")

    def test_move_to_an_unknown_shard_is_refused(self) -> None:
        with pytest.raises(UnknownShard, match="no shard 's9'"):
            shard_map(default=Keyspace(HashPartitioner())).moved("default", 0, "s9")

    @pytest.mark.parametrize("bucket", [-1, 1024])
    def test_move_of_an_unknown_bucket_is_refused(self, bucket: int) -> None:
        with pytest.raises(RoutingError, match=f"no bucket {bucket}"):
            shard_map(default=Keyspace(HashPartitioner())).moved("default", bucket, "s0")

    def test_diff_lists_the_buckets_that_lie_elsewhere(self) -> None:
        before = shard_map(a=Keyspace(HashPartitioner(4)), b=Keyspace(REGIONS))

        after = before.moved("a", 3, "s0").moved("b", 0, "s2")

        assert before.diff(after) == (
            BucketMove("a", 3, before.keyspaces["a"].placement[3], "s0"),
            BucketMove("b", 0, before.keyspaces["b"].placement[0], "s2"),
        )
        assert before.diff(before) == ()

    def test_diff_after_a_shard_was_appended_moves_its_share_only(self) -> None:
        keyspaces = {"default": Keyspace(HashPartitioner(1024))}
        before = ShardMap.build(keyspaces, ["s0", "s1", "s2"])

        moves = before.diff(ShardMap.build(keyspaces, ["s0", "s1", "s2", "s3"]))

        assert len(moves) == 256
        assert {move.target for move in moves} == {"s3"}

    @pytest.mark.parametrize(
        ("old_pins", "new_pins", "source", "target"),
        [
            ({}, {5: "s1"}, "s0", "s1"),
            ({5: "s1"}, {}, "s1", "s0"),
            ({5: "s1"}, {5: "s2"}, "s1", "s2"),
        ],
        ids=["pinned", "released", "pinned elsewhere"],
    )
    def test_diff_lists_pinned_keys_that_lie_elsewhere(
        self, old_pins: Any, new_pins: Any, source: str, target: str
    ) -> None:
        def pinned(pins: Any) -> ShardMap:
            return shard_map(default=Keyspace(RangePartitioner([10]), {"0-1": "s0"}, pins))

        moves = pinned(old_pins).diff(pinned(new_pins))

        assert moves == (BucketMove("default", 0, source, target, pin=(5,)),)

    def test_diff_leaves_out_a_pin_that_changes_nothing(self) -> None:
        plain = shard_map(default=Keyspace(RangePartitioner([10]), {"0-1": "s0"}))
        pinned = shard_map(default=Keyspace(RangePartitioner([10]), {"0-1": "s0"}, {5: "s0"}))

        assert plain.diff(pinned) == ()

    def test_diff_of_a_pinned_key_that_has_no_bucket(self) -> None:
        def pinned(pins: Any) -> ShardMap:
            return shard_map(default=Keyspace(ListPartitioner({"west": ["Goa"]}), pins=pins))

        moves = pinned({"Delhi": "s0"}).diff(pinned({"Delhi": "s1"}))

        assert moves == (BucketMove("default", None, "s0", "s1", pin=("Delhi",)),)
        assert pinned({"Delhi": "s0"}).diff(pinned({})) == ()

    def test_diff_of_maps_with_other_partitioners_is_refused(self) -> None:
        one = shard_map(a=Keyspace(HashPartitioner(4)), b=Keyspace(REGIONS))
        other = shard_map(a=Keyspace(HashPartitioner(8)), c=Keyspace(REGIONS))

        with pytest.raises(ConfigurationError) as caught:
            one.diff(other)

        assert caught.value.faults == ("keyspace 'a'", "keyspace 'b'", "keyspace 'c'")


class TestAsAValue:
    def test_survives_pickling(self) -> None:
        keyspace = Keyspace(
            CompositePartitioner(REGIONS, HashPartitioner(2)), pins={("Goa", 1): "s1"}
        )
        placed = shard_map(default=keyspace)

        copy = pickle.loads(pickle.dumps(placed))

        assert copy == placed
        assert copy.shard_for("default", ("Goa", 1)) == "s1"
        assert copy.shards_of("default") == placed.shards_of("default")

    def test_differs_by_pins_of_another_kind(self) -> None:
        one = shard_map(default=Keyspace(HashPartitioner(), pins={1: "s0"}))
        other = shard_map(default=Keyspace(HashPartitioner(), pins={True: "s0"}))

        assert one != other
        assert one == shard_map(default=Keyspace(HashPartitioner(), pins={Decimal("1.0"): "s0"}))

    def test_cannot_be_changed(self) -> None:
        placed: Any = shard_map(default=Keyspace(HashPartitioner()))

        with pytest.raises(AttributeError):
            placed.version = 2
        with pytest.raises(TypeError):
            placed.keyspaces["default"] = None
        with pytest.raises(TypeError):
            placed.keyspaces["default"].pins[(1,)] = "s0"

    def test_repr_is_short_and_shows_no_pinned_keys(self) -> None:
        keyspace = Keyspace(HashPartitioner(1024), pins={"secret": "s1"})

        text = repr(shard_map(default=keyspace))

        assert text == (
            "<ShardMap version 1: [<KeyspaceMap 'default': hash into 1024 buckets, "
            "on s0 (341), s2 (341), s1 (342), 1 pinned>]>"
        )


class TestRanges:
    @pytest.mark.parametrize(
        ("keyspace", "ranges"),
        [
            (
                Keyspace(HashPartitioner(8), {"0-3": "s0", "4-6": "s1", "7": "s0"}),
                [("0-3", "s0"), ("4-6", "s1"), ("7", "s0")],
            ),
            (
                Keyspace(RangePartitioner([100, 200]), {"0-2": "s0"}),
                [("below 100", "s0"), ("100 to 199", "s0"), ("from 200", "s0")],
            ),
            (Keyspace(REGIONS), [("west", "s0"), ("north", "s1")]),
            (
                Keyspace(
                    CompositePartitioner(REGIONS, HashPartitioner(4)),
                    {"west/0-3": "s0", "north/0-1": "s0", "north/2-3": "s1"},
                ),
                [("west/0-3", "s0"), ("north/0-1", "s0"), ("north/2-3", "s1")],
            ),
        ],
        ids=["hash", "range", "list", "composite"],
    )
    def test_join_numbered_buckets_and_keep_labels_apart(
        self, keyspace: Keyspace, ranges: list[tuple[str, str]]
    ) -> None:
        placed = shard_map(default=keyspace)

        assert placed.keyspaces["default"].ranges() == ranges

    def test_are_a_placement_of_their_own(self) -> None:
        spread = shard_map(default=Keyspace(HashPartitioner(1024)))

        written_out = Keyspace(HashPartitioner(1024), dict(spread.keyspaces["default"].ranges()))

        assert shard_map(default=written_out) == spread
