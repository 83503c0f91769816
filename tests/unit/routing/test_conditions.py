"""Conditions on keys never promise more than is true: bindings are held against brute force."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlalchemy_shards.models.key_types import KeyFamily, KeyType
from sqlalchemy_shards.routing.conditions import (
    ANYWHERE,
    REGIONS_MAX,
    AllOf,
    AnyOf,
    Anywhere,
    KeyCondition,
    Parameter,
    PartEquals,
    PartIn,
    UnknownValue,
    UnusableValue,
    all_of,
    any_of,
    regions,
)
from sqlalchemy_shards.topology.key_regions import UNBOUND

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INTEGER = KeyType(KeyFamily.INTEGER)
DOMAIN = range(4)


class Values:
    """Values of parameters by name; "unusable" ones are of another type."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given

    def one(self, parameter: Parameter) -> Any:
        value = self.given[parameter.name]
        if value == "unusable":
            raise UnusableValue("str")
        if value == "unknown":
            raise UnknownValue(parameter.name)
        return value

    def many(self, parameter: Parameter) -> Sequence[Any]:
        value = self.given[parameter.name]
        if isinstance(value, str):
            raise UnusableValue("str")
        return [each for each in value if each is not None]


def parameter(name: str) -> Parameter:
    return Parameter(name, INTEGER)


ONES = {"a": 0, "b": 1, "c": 2, "null": None, "bad": "unusable", "none": "unknown"}
MANY = {"ab": [0, 1], "bc": [1, 2, None], "empty": [], "worse": "unusable"}


def conditions(width: int) -> st.SearchStrategy[KeyCondition]:
    part = st.integers(0, width - 1)
    leaf = st.one_of(
        st.just(ANYWHERE),
        st.builds(PartEquals, part, st.sampled_from([parameter(name) for name in ONES])),
        st.builds(PartIn, part, st.sampled_from([parameter(name) for name in MANY])),
    )

    def combined(parts: st.SearchStrategy[KeyCondition]) -> st.SearchStrategy[KeyCondition]:
        several = st.lists(parts, min_size=1, max_size=3)
        return st.builds(all_of, several) | st.builds(any_of, several)

    return st.recursive(leaf, combined, max_leaves=8)


def matches(condition: KeyCondition, key: tuple[int, ...]) -> bool:
    """Whether a row of this key may match; what says nothing may match any row."""
    match condition:
        case PartEquals(part, parameter):
            value = ONES[parameter.name]
            return isinstance(value, str) or key[part] == value
        case PartIn(part, parameter):
            listed = MANY[parameter.name]
            return isinstance(listed, str) or key[part] in listed
        case AllOf(conditions):
            return all(matches(each, key) for each in conditions)
        case AnyOf(conditions):
            return any(matches(each, key) for each in conditions)
        case Anywhere():
            return True


def is_bound(found: Any, key: tuple[int, ...]) -> bool:
    if found is None:
        return True
    return any(
        all(part is UNBOUND or part == value for part, value in zip(binding, key, strict=True))
        for binding in found
    )


@given(st.integers(1, 3).flatmap(lambda width: st.tuples(st.just(width), conditions(width))))
def test_no_key_that_matches_is_missing_from_the_regions(
    case: tuple[int, KeyCondition],
) -> None:
    width, condition = case

    found = regions(condition, width, Values({**ONES, **MANY}))

    for key in product(DOMAIN, repeat=width):
        assert is_bound(found, key) or not matches(condition, key)


def test_bindings_of_one_part_are_exact() -> None:
    condition = all_of([PartIn(0, parameter("ab")), PartIn(0, parameter("bc"))])

    found = regions(condition, 1, Values(MANY))

    assert found == {(1,)}


def test_parts_of_two_conditions_meet_in_one_binding() -> None:
    condition = all_of([PartEquals(0, parameter("a")), PartIn(1, parameter("bc"))])

    found = regions(condition, 2, Values({**ONES, **MANY}))

    assert found == {(0, 1), (0, 2)}


def test_a_null_matches_no_row() -> None:
    found = regions(PartEquals(0, parameter("null")), 1, Values(ONES))

    assert found == set()


@pytest.mark.parametrize("name", ["bad", "none"])
def test_a_value_that_cannot_be_read_may_be_any_key(name: str) -> None:
    found = regions(PartEquals(0, parameter(name)), 1, Values(ONES))

    assert found is None


def test_an_or_with_an_unknown_side_says_nothing() -> None:
    condition = any_of([PartEquals(0, parameter("a")), ANYWHERE])

    assert condition is ANYWHERE


def test_an_or_of_nothing_says_nothing() -> None:
    assert any_of([]) is ANYWHERE


def test_too_many_combinations_drop_one_side_and_no_row() -> None:
    many = list(range(REGIONS_MAX))
    condition = all_of([PartIn(0, parameter("many")), PartIn(1, parameter("ab"))])

    found = regions(condition, 2, Values({"many": many, "ab": [0, 1]}))

    assert found == {(UNBOUND, 0), (UNBOUND, 1)}
