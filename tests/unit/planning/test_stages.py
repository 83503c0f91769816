"""In which stage each shard ships: no shard gives keys and waits for some, and each ships once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, func, select

from sqlalchemy_shards import global_table, shard_table
from sqlalchemy_shards.catalog.columns import ColumnType
from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.planning.gathering import plan_gathering
from sqlalchemy_shards.planning.stages import Shipment, candidates_of, staged

METADATA = MetaData()
INTEGER = ColumnType("pg_catalog.int4", None, "integer")
S0, S1, S2 = "s0", "s1", "s2"
ALL = (S0, S1, S2)


def table(name: str) -> Table:
    return Table(
        name,
        METADATA,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("n", Integer),
        Column("m", Integer),
    )


A, B, C = (shard_table(table(name), key="id") for name in "abc")
FLAGS = global_table(table("flags"))
JOINED = select(func.count(A.c.id.distinct()), func.count(B.c.id)).join_from(A, B, A.c.n == B.c.n)


def shipments(
    statement: Any,
    shards: list[tuple[str, ...]],
    rows: dict[int, int],
    types: dict[str, ColumnType] | None = None,
) -> dict[str, Shipment]:
    """Shard -> what it ships, where the parts have these shards and so many rows."""
    gathering = plan_gathering(
        statement.compile(dialect=ShardsDialect()),
        types_of=lambda table: {
            column.name: (types or {}).get(f"{table.name}.{column.name}", INTEGER)
            for column in table.c
        },
        depending=lambda _names: [],
    )
    assert gathering.ties is not None
    candidates = candidates_of(gathering.ties, shards)
    return {each.shard: each for each in staged(candidates, shards, rows)}


def lists(found: dict[str, Shipment]) -> dict[str, int]:
    return {shard: len(each.lists) for shard, each in found.items()}


class TestStages:
    def test_rows_of_several_shards_wait_for_those_of_one(self) -> None:
        found = shipments(JOINED, [(S1,), ALL], {1: 5000})

        assert lists(found) == {S1: 0, S0: 1, S2: 1}
        assert {shard: each.indexes for shard, each in found.items()} == {
            S1: (0, 1),
            S0: (1,),
            S2: (1,),
        }

    def test_the_shard_with_the_keys_looks_itself(self) -> None:
        found = shipments(JOINED, [(S1,), ALL], {1: 5000})

        assert {shard: len(each.beside) for shard, each in found.items()} == {S1: 1, S0: 0, S2: 0}

    def test_nothing_waits_where_few_rows_are_expected(self) -> None:
        found = shipments(JOINED, [(S1,), ALL], {})

        assert lists(found) == {S1: 0, S0: 0, S2: 0}
        assert len(found[S1].beside) == 1

    def test_nothing_waits_for_rows_of_several_shards(self) -> None:
        assert lists(shipments(JOINED, [ALL, ALL], {0: 5000, 1: 5000})) == dict.fromkeys(ALL, 0)

    def test_of_two_single_shards_the_one_with_more_rows_waits(self) -> None:
        found = shipments(JOINED, [(S1,), (S2,)], {0: 2000, 1: 5000})

        assert lists(found) == {S1: 0, S2: 1}

    def test_keys_of_two_shards(self) -> None:
        statement = JOINED.join(C, C.c.m == A.c.m)

        assert lists(shipments(statement, [ALL, (S1,), (S2,)], {0: 9000})) == {S0: 2, S1: 0, S2: 0}

    def test_no_shard_waits_that_others_wait_for(self) -> None:
        statement = JOINED.join(C, C.c.m == A.c.m)

        found = lists(shipments(statement, [(S1, S2), (S1,), (S2,)], {0: 9000}))

        assert sorted(found.values()) == [0, 1]

    def test_an_occurrence_that_needs_all_rows_needs_no_keys(self) -> None:
        other = B.alias()
        statement = JOINED.add_columns(func.count(other.c.id)).where(other.c.m < A.c.m)

        assert lists(shipments(statement, [(S1,), ALL], {1: 5000})) == dict.fromkeys(ALL, 0)

    def test_another_collation_is_not_given_with_keys(self) -> None:
        plain, other = (
            ColumnType("pg_catalog.text", collation, "text")
            for collation in (None, 'pg_catalog."C"')
        )
        by_default = {"a.n": plain, "b.n": other}
        by_other = {"a.n": other, "b.n": plain}

        assert lists(shipments(JOINED, [(S1,), ALL], {1: 5000}, by_default))[S0] == 1
        assert lists(shipments(JOINED, [(S1,), ALL], {1: 5000}, by_other))[S0] == 0

    def test_arrays_are_no_keys(self) -> None:
        array = ColumnType("pg_catalog._int4", None, "integer[]")
        types = {"a.n": array, "b.n": array}

        assert lists(shipments(JOINED, [(S1,), ALL], {1: 5000}, types))[S0] == 0
