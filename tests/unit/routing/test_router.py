"""From sources and values to shards."""

from __future__ import annotations

from typing import Any

import pytest

from sqlalchemy_shards.errors import MissingShardKey, RoutingError, UnknownShard
from sqlalchemy_shards.models.key_types import KeyFamily, KeyType
from sqlalchemy_shards.routing.conditions import (
    ANYWHERE,
    Parameter,
    PartEquals,
    PartIn,
    UnknownValue,
    UnusableValue,
)
from sqlalchemy_shards.routing.route import Reason
from sqlalchemy_shards.routing.router import Territory, route_of, shard_of_row
from sqlalchemy_shards.routing.sources import (
    InsertedKey,
    ShardedSource,
    StatementKind,
    StatementSources,
)
from sqlalchemy_shards.topology.keyspace import Keyspace
from sqlalchemy_shards.topology.list_partitioner import ListPartitioner
from sqlalchemy_shards.topology.shard_map import ShardMap

SHARDS = ("s0", "s1", "s2")
BY_NAME = Keyspace(
    ListPartitioner({"x": ["x"], "y": ["y"], "z": ["z"]}),
    placement={"x": "s0", "y": "s1", "z": "s1"},
)
TERRITORY = Territory(SHARDS, ShardMap.build({"default": BY_NAME}, SHARDS), "s2")
KEY = Parameter("key", KeyType(KeyFamily.TEXT))
KEYS = Parameter("keys", KeyType(KeyFamily.TEXT))


class Values:
    def __init__(self, **given: Any) -> None:
        self.given = given

    def one(self, parameter: Parameter) -> Any:
        if parameter.name not in self.given:
            raise UnknownValue(parameter.name)
        if isinstance(self.given[parameter.name], int):
            raise UnusableValue("int")
        return self.given[parameter.name]

    def many(self, parameter: Parameter) -> Any:
        return self.given[parameter.name]


def source(condition: Any = ANYWHERE, **keywords: Any) -> ShardedSource:
    return ShardedSource("t", "default", 1, condition, **keywords)


def selecting(*roots: ShardedSource, **keywords: Any) -> StatementSources:
    return StatementSources(StatementKind.SELECT, roots, **keywords)


BY_KEY, BY_KEYS = source(PartEquals(0, KEY)), source(PartIn(0, KEYS))


def test_a_key_leads_to_its_shard() -> None:
    route = route_of(selecting(BY_KEY), TERRITORY, Values(key="y"))

    assert route.shards == ("s1",)
    assert route.reason is Reason.KEY


def test_keys_lead_to_their_shards_in_the_order_of_the_cluster() -> None:
    route = route_of(selecting(BY_KEYS), TERRITORY, Values(keys=["z", "y", "x"]))

    assert route.shards == ("s0", "s1")


def test_without_a_key_all_shards_of_the_keyspace_are_asked() -> None:
    route = route_of(selecting(source()), TERRITORY, Values())

    assert route.shards == ("s0", "s1")
    assert route.reason is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("values", [Values(key=5), Values()], ids=["other type", "no value"])
def test_a_value_that_says_nothing_leads_everywhere(values: Values) -> None:
    route = route_of(selecting(BY_KEY), TERRITORY, values)

    assert route.shards == ("s0", "s1")


@pytest.mark.parametrize("key", [None, "nowhere"])
def test_a_key_that_no_row_can_have_is_asked_of_one_shard(key: str | None) -> None:
    route = route_of(selecting(BY_KEY), TERRITORY, Values(key=key), enlisted=("s1",))

    assert route.shards == ("s1",)
    assert route.reason is Reason.NO_MATCH


def test_tables_that_are_not_joined_need_the_shards_of_all() -> None:
    route = route_of(selecting(BY_KEY, source()), TERRITORY, Values(key="x"))

    assert route.shards == ("s0", "s1")


def test_a_table_without_matching_rows_does_not_hide_another() -> None:
    route = route_of(selecting(BY_KEYS, BY_KEY), TERRITORY, Values(keys=[], key="y"))

    assert route.shards == ("s1",)


def test_a_global_table_needs_its_shard_too() -> None:
    route = route_of(selecting(BY_KEY, reads_global=True), TERRITORY, Values(key="x"))

    assert route.shards == ("s0", "s2")


def test_a_global_table_is_read_on_its_shard() -> None:
    route = route_of(selecting(reads_global=True, reads_reference=True), TERRITORY, Values())

    assert route.shards == ("s2",)


def test_a_reference_table_is_read_where_the_transaction_is() -> None:
    route = route_of(selecting(reads_reference=True), TERRITORY, Values(), enlisted=("s1", "s0"))

    assert route.shards == ("s0",)
    assert route.reason is Reason.REFERENCE


def test_the_locator_is_asked_where_the_key_is_not_known() -> None:
    named = source(primary_key=(KEY,))

    route = route_of(selecting(named), TERRITORY, Values(key=1), locator=lambda _: ("y",))

    assert route.shards == ("s1",)
    assert route.reason is Reason.LOCATOR


def test_the_locator_is_not_asked_where_the_key_says_it() -> None:
    named = source(PartEquals(0, KEY), primary_key=(KEY,))

    route = route_of(selecting(named), TERRITORY, Values(key="x"), locator=lambda _: ("y",))

    assert route.shards == ("s0",)


def test_a_locator_that_knows_nothing_or_nonsense_leads_everywhere() -> None:
    named = source(primary_key=(KEY,))

    for answer in (None, ("nowhere",)):
        route = route_of(selecting(named), TERRITORY, Values(key=1), locator=lambda _, a=answer: a)

        assert route.shards == ("s0", "s1")


def test_named_shards_are_in_the_order_of_the_cluster() -> None:
    assert TERRITORY.named(("s2", "s0", "s2")).shards == ("s0", "s2")
    assert TERRITORY.named("*").shards == SHARDS


@pytest.mark.parametrize("option", ["s9", ("s0", "s9"), ()])
def test_an_unknown_shard_is_refused(option: Any) -> None:
    with pytest.raises(UnknownShard):
        TERRITORY.named(option)


def inserted(parameter: Parameter | None) -> InsertedKey:
    return InsertedKey("t", "default", ("name",), (parameter,))


def test_a_row_goes_to_the_shard_of_its_key() -> None:
    assert shard_of_row(inserted(KEY), TERRITORY.shard_map, Values(key="z")) == "s1"


@pytest.mark.parametrize(
    ("parameter", "values", "error"),
    [
        (None, Values(), MissingShardKey),
        (KEY, Values(key=None), MissingShardKey),
        (KEY, Values(), MissingShardKey),
        (KEY, Values(key=5), RoutingError),
        (KEY, Values(key="nowhere"), UnknownShard),
    ],
    ids=["expression", "null", "no value", "other type", "no bucket"],
)
def test_a_row_without_a_usable_key_is_refused(
    parameter: Parameter | None, values: Values, error: type[Exception]
) -> None:
    with pytest.raises(error):
        shard_of_row(inserted(parameter), TERRITORY.shard_map, values)
