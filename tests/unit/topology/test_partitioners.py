from __future__ import annotations

import pickle
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from sqlalchemy_shards.errors import (
    ConfigurationError,
    MissingShardKey,
    RoutingError,
    UnknownShard,
)
from sqlalchemy_shards.topology.partitioners import (
    CompositePartitioner,
    HashPartitioner,
    ListPartitioner,
    Partitioner,
    RangePartitioner,
)

REGIONS = ListPartitioner({"west": ["Goa", "Gujarat"], "south": ["Kerala"]}, default="north")


def first_three_digits(pin_code: int) -> int:
    return pin_code // 1000


def total(one: int, other: int) -> int:
    return one + other


def swapped(one: Any, other: Any) -> tuple[Any, Any]:
    return other, one


def nothing(key: Any) -> None:
    return None


def failing(key: Any) -> Any:
    raise ValueError(key)


ALL = [
    HashPartitioner(16),
    HashPartitioner(16, transform=first_three_digits),
    RangePartitioner([100, 200]),
    RangePartitioner([Decimal("1.5")], transform=first_three_digits),
    REGIONS,
    ListPartitioner({"a": [1]}, transform=first_three_digits),
    CompositePartitioner(REGIONS, HashPartitioner(16)),
]


@pytest.mark.parametrize("partitioner", ALL, ids=lambda p: type(p).__name__)
class TestEveryPartitioner:
    def test_fulfils_the_protocol(self, partitioner: Partitioner) -> None:
        assert isinstance(partitioner, Partitioner)

    def test_survives_pickling(self, partitioner: Partitioner) -> None:
        copy = pickle.loads(pickle.dumps(partitioner))

        assert copy == partitioner
        assert hash(copy) == hash(partitioner)

    def test_gives_each_bucket_a_label_of_its_own(self, partitioner: Partitioner) -> None:
        buckets = range(partitioner.bucket_count)

        assert len({partitioner.bucket_label(bucket) for bucket in buckets}) == len(buckets)

    def test_describes_itself_in_one_line(self, partitioner: Partitioner) -> None:
        assert "\n" not in partitioner.describe()

    def test_is_frozen(self, partitioner: Any) -> None:
        name = next(iter(partitioner.__slots__))
        with pytest.raises(AttributeError):
            setattr(partitioner, name, None)


class TestHashPartitioner:
    @pytest.mark.parametrize("buckets", [0, -1, 65_537, 1.5, True, "8", None])
    def test_refuses_an_impossible_number_of_buckets(self, buckets: Any) -> None:
        with pytest.raises(ConfigurationError, match="buckets"):
            HashPartitioner(buckets)

    def test_hashes_a_key_of_several_parts_as_a_whole(self) -> None:
        partitioner = HashPartitioner(1024)

        assert partitioner.bucket_of((1, 2)) != partitioner.bucket_of((2, 1))

    def test_refuses_none(self) -> None:
        with pytest.raises(MissingShardKey):
            HashPartitioner().bucket_of((None,))

    def test_describes_its_transform(self) -> None:
        partitioner = HashPartitioner(16, transform=first_three_digits)

        assert partitioner.describe() == "hash into 16 buckets, after first_three_digits"


class TestTransform:
    def test_of_one_part_gets_the_part(self) -> None:
        partitioner = HashPartitioner(transform=first_three_digits)

        assert partitioner.bucket_of((403001,)) == HashPartitioner().bucket_of((403,))

    def test_of_several_parts_gets_them_as_arguments(self) -> None:
        partitioner = RangePartitioner([10], transform=total)

        assert partitioner.bucket_of((4, 5)) == 0
        assert partitioner.bucket_of((5, 5)) == 1

    def test_may_return_several_parts(self) -> None:
        partitioner = HashPartitioner(transform=swapped)

        assert partitioner.bucket_of((1, "a")) == HashPartitioner().bucket_of(("a", 1))

    def test_is_not_asked_about_none(self) -> None:
        with pytest.raises(MissingShardKey):
            HashPartitioner(transform=failing).bucket_of((None,))

    def test_that_returns_none_is_named(self) -> None:
        with pytest.raises(RoutingError, match="'nothing' returned None"):
            HashPartitioner(transform=nothing).bucket_of((1,))

    def test_that_fails_is_named_without_the_key(self) -> None:
        with pytest.raises(RoutingError, match="'failing' failed with ValueError") as caught:
            HashPartitioner(transform=failing).bucket_of(("secret",))

        assert "secret" not in str(caught.value)


class TestRangePartitioner:
    @pytest.mark.parametrize(
        ("value", "bucket"), [(-5, 0), (99, 0), (100, 1), (199, 1), (200, 2), (10**30, 2)]
    )
    def test_ranges_begin_with_their_bound(self, value: int, bucket: int) -> None:
        assert RangePartitioner([100, 200]).bucket_of((value,)) == bucket

    def test_numbers_of_both_types_are_compared(self) -> None:
        partitioner = RangePartitioner([100, 200])

        assert partitioner.bucket_of((Decimal("99.99"),)) == 0
        assert partitioner.bucket_of((Decimal("100.0"),)) == 1

    def test_text_is_compared_by_code_point(self) -> None:
        partitioner = RangePartitioner(["Z", "z"])

        assert [partitioner.bucket_of((text,)) for text in ("Aa", "Z", "a", "z", "ä")] == [
            0,
            1,
            1,
            2,
            2,
        ]

    def test_datetimes_are_compared_as_instants(self) -> None:
        noon = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
        in_india = noon.astimezone(timezone(timedelta(hours=5, minutes=30)))
        partitioner = RangePartitioner([noon])

        assert partitioner.bucket_of((in_india,)) == 1
        assert partitioner.bucket_of((in_india - timedelta(microseconds=1),)) == 0

    @pytest.mark.parametrize(
        "bounds",
        [
            *([], [2, 1], [1, 1], [1, "a"], [1, True], [None], [1.5], 5, "ab", [Decimal("NaN")]),
            [datetime(2024, 1, 1), datetime(2025, 1, 1, tzinfo=timezone.utc)],
            [date.min, datetime.max],
        ],
        ids=repr,
    )
    def test_refuses_bounds_that_are_not_ascending_or_of_one_type(self, bounds: Any) -> None:
        with pytest.raises(ConfigurationError, match="bound"):
            RangePartitioner(bounds)

    @pytest.mark.parametrize("value", ["150", True, b"1", date.min, 1.5])
    def test_refuses_a_value_of_another_type(self, value: Any) -> None:
        with pytest.raises(RoutingError):
            RangePartitioner([100]).bucket_of((value,))

    def test_refuses_none(self) -> None:
        with pytest.raises(MissingShardKey):
            RangePartitioner([100]).bucket_of((None,))

    def test_refuses_a_key_of_several_parts(self) -> None:
        with pytest.raises(RoutingError, match="a shard key of one part, this one has 2"):
            RangePartitioner([100]).bucket_of((1, 2))

    @pytest.mark.parametrize(
        ("bounds", "labels"),
        [
            ([100, 200], ["below 100", "100 to 199", "from 200"]),
            ([1, 2], ["below 1", "1", "from 2"]),
            (["a", "m"], ["below 'a'", "'a' to below 'm'", "from 'm'"]),
            ([date(2024, 1, 1)], ["below 2024-01-01", "from 2024-01-01"]),
            ([UUID(int=1)], [f"below {UUID(int=1)}", f"from {UUID(int=1)}"]),
        ],
    )
    def test_labels_say_the_range(self, bounds: list[Any], labels: list[str]) -> None:
        partitioner = RangePartitioner(bounds)

        assert [partitioner.bucket_label(n) for n in range(partitioner.bucket_count)] == labels

    def test_description_of_many_bounds_is_cut(self) -> None:
        partitioner = RangePartitioner(range(1000))

        assert partitioner.describe() == "range with bounds 0, 1, 2, 3, ... (1000 in all)"


class TestListPartitioner:
    def test_finds_the_label_of_a_value(self) -> None:
        found = [REGIONS.bucket_label(REGIONS.bucket_of((v,))) for v in ("Goa", "Kerala", "Delhi")]

        assert found == ["west", "south", "north"]

    def test_default_may_be_a_label_with_values(self) -> None:
        partitioner = ListPartitioner({"a": [1], "b": [2]}, default="a")

        assert partitioner.bucket_count == 2
        assert partitioner.bucket_of((3,)) == 0

    def test_without_a_default_an_unlisted_value_maps_to_no_bucket(self) -> None:
        with pytest.raises(UnknownShard, match="maps to no bucket") as caught:
            ListPartitioner({"west": ["Goa"]}).bucket_of(("Delhi",))

        assert "Delhi" not in str(caught.value)

    def test_equal_numbers_are_one_value(self) -> None:
        assert ListPartitioner({"a": [Decimal("1.0")]}).bucket_of((1,)) == 0

    @pytest.mark.parametrize(
        "values",
        [{"a": [1], "b": [1]}, {"a": [1, 1]}, {"a": [1], "b": [Decimal("1.0")]}],
        ids=["two labels", "one label", "equal numbers"],
    )
    def test_refuses_a_value_that_is_listed_twice(self, values: Any) -> None:
        with pytest.raises(ConfigurationError, match="listed under") as caught:
            ListPartitioner(values)

        assert len(caught.value.faults) == 1

    @pytest.mark.parametrize(
        "values", [{}, {"a": []}, {"a": "Goa"}, {"a": 5}, {1: ["Goa"]}, {"": [1]}], ids=repr
    )
    def test_refuses_what_is_not_lists_under_labels(self, values: Any) -> None:
        with pytest.raises(ConfigurationError, match="list"):
            ListPartitioner(values)

    def test_refuses_values_of_several_types(self) -> None:
        with pytest.raises(ConfigurationError, match="several types: number, text"):
            ListPartitioner({"a": [1], "b": ["x"]})

    def test_refuses_a_key_of_another_type(self) -> None:
        with pytest.raises(RoutingError, match=r"'number'.*'text'"):
            REGIONS.bucket_of((1,))

    def test_differs_when_its_labels_are_in_another_order(self) -> None:
        assert ListPartitioner({"a": [1], "b": [2]}) != ListPartitioner({"b": [2], "a": [1]})

    def test_is_not_changed_through_the_mapping_it_was_made_from(self) -> None:
        values = {"a": [1]}
        partitioner = ListPartitioner(values)
        values["a"].append(2)

        with pytest.raises(UnknownShard):
            partitioner.bucket_of((2,))


class TestCompositePartitioner:
    def test_combines_the_buckets_of_the_parts(self) -> None:
        hashed = HashPartitioner(16)
        partitioner = CompositePartitioner(REGIONS, hashed)

        bucket = partitioner.bucket_of(("Kerala", 42))

        assert partitioner.bucket_count == 48
        assert bucket == 1 * 16 + hashed.bucket_of((42,))
        assert partitioner.bucket_label(bucket) == f"south/{hashed.bucket_of((42,))}"

    @pytest.mark.parametrize("key", [("Goa",), ("Goa", 1, 2)])
    def test_refuses_a_wrong_number_of_parts(self, key: tuple[Any, ...]) -> None:
        with pytest.raises(RoutingError, match="its composite partitioner has 2"):
            CompositePartitioner(REGIONS, HashPartitioner(16)).bucket_of(key)

    @pytest.mark.parametrize(
        "parts",
        [
            (),
            (HashPartitioner(),),
            (HashPartitioner(), 5),
            (HashPartitioner(1024), HashPartitioner(1024)),
            (HashPartitioner(2), CompositePartitioner(HashPartitioner(2), HashPartitioner(2))),
        ],
        ids=["none", "one", "no partitioner", "too many buckets", "nested"],
    )
    def test_refuses_faulty_parts(self, parts: Any) -> None:
        with pytest.raises(ConfigurationError):
            CompositePartitioner(*parts)
