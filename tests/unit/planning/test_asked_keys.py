"""Which parts are narrowed by keys that are asked for first: where it pays, and in no circle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Integer, MetaData, Table, func, select

from sqlalchemy_shards import shard_table
from sqlalchemy_shards.catalog.columns import ColumnType
from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.planning.asked_keys import (
    KEYS_MAX,
    Expected,
    Judged,
    askable,
    judged,
    source_of,
)
from sqlalchemy_shards.planning.gathering import plan_gathering

if TYPE_CHECKING:
    from sqlalchemy_shards.planning.ties import Ties

METADATA = MetaData()
INTEGER = ColumnType("pg_catalog.int4", None, "integer")
ALL = ("s0", "s1", "s2")


def table(name: str) -> Table:
    columns = (Column(name, Integer) for name in ("n", "m"))
    return Table(
        name, METADATA, Column("id", Integer, primary_key=True, autoincrement=False), *columns
    )


A, B, C = (shard_table(table(name), key="id") for name in "abc")
COUNTED = select(func.count(A.c.id.distinct()), func.count(B.c.id))
JOINED = COUNTED.join_from(A, B, A.c.n == B.c.n)
CHAINED = JOINED.join(C, C.c.m == B.c.m)
CIRCLE = JOINED.join(C, (C.c.m == B.c.m) & (C.c.n == A.c.m))


def ties_of(statement: Any) -> Ties:
    gathering = plan_gathering(
        statement.compile(dialect=ShardsDialect()),
        types_of=lambda table: {column.name: INTEGER for column in table.c},
        depending=lambda _names: [],
    )
    assert gathering.ties is not None
    return gathering.ties


def verdicts(
    statement: Any, rows: dict[int, int], keys: dict[int, int], least: int = 1000
) -> dict[int, Judged]:
    """Part -> what was decided about it.

    :param rows: part -> how many a shard has.
    :param keys: part -> how many different values each of its columns has, filters applied.
    """
    ties = ties_of(statement)
    numbers = askable(ties, [ALL] * 3)
    numbers = [number for number in numbers if ties.all[number].part in rows]
    expected = Expected(
        rows,
        {part: [count] * len(ties.needs_all_rows(part)) for part, count in rows.items()},
        {source_of(ties.all[n]): keys[ties.all[n].other] for n in numbers},
        dict.fromkeys(numbers, 1000),
    )
    return {each.part: each for each in judged(ties, numbers, expected, least, ())}


def narrowed(found: dict[int, Judged]) -> set[int]:
    return {part for part, each in found.items() if each.numbers}


class TestWhetherItIsWorthIt:
    def test_few_keys_choose_among_many_rows(self) -> None:
        found = verdicts(JOINED, {1: 50_000}, {0: 20})

        assert narrowed(found) == {1}
        assert found[1].rows == 1_000

    def test_rows_that_most_keys_have_are_shipped(self) -> None:
        assert not narrowed(verdicts(JOINED, {1: 50_000}, {0: 990}))

    def test_what_is_saved_must_be_more_than_the_keys(self) -> None:
        assert narrowed(verdicts(JOINED, {1: 2_000}, {0: 300}))
        assert not narrowed(verdicts(JOINED, {1: 1_800}, {0: 300}))

    def test_too_many_keys_are_not_asked_for_whatever_is_saved(self) -> None:
        assert not narrowed(verdicts(JOINED, {1: 10**9}, {0: KEYS_MAX + 1}))
        assert not narrowed(verdicts(JOINED, {1: 10**9}, {0: KEYS_MAX + 1}, least=-(10**9)))

    def test_it_can_be_forced(self) -> None:
        assert narrowed(verdicts(JOINED, {1: 3}, {0: 1_000}, least=-KEYS_MAX)) == {1}

    def test_every_occurrence_must_be_narrowed(self) -> None:
        other = B.alias()
        also = JOINED.where(other.c.id == A.c.m)

        assert narrowed(verdicts(also, {1: 50_000}, {0: 20})) == {1}
        assert not verdicts(also.where(select(B.c.id).exists()), {1: 50_000}, {0: 20})


class TestCircles:
    def test_of_two_sides_one_is_narrowed(self) -> None:
        keys = {0: 20, 1: 20}

        assert narrowed(verdicts(JOINED, {0: 40_000, 1: 50_000}, keys)) == {1}
        assert narrowed(verdicts(JOINED, {0: 50_000, 1: 40_000}, keys)) == {0}

    def test_a_chain_is_narrowed_link_by_link(self) -> None:
        found = verdicts(CHAINED, {1: 40_000, 2: 50_000}, {0: 20, 1: 500, 2: 500})

        assert narrowed(found) == {1, 2}

    def test_no_way_leads_back(self) -> None:
        rows = {0: 30_000, 1: 40_000, 2: 50_000}

        assert narrowed(verdicts(CIRCLE, rows, dict.fromkeys(rows, 20))) == {1, 2}

    def test_keys_that_are_waited_for_count_as_well(self) -> None:
        ties = ties_of(JOINED)
        (number,) = (n for n in askable(ties, [ALL] * 2) if ties.all[n].part == 1)
        (back,) = (tie for tie in ties.all if tie.part == 0)
        expected = Expected(
            {1: 50_000}, {1: [50_000]}, {source_of(ties.all[number]): 20}, {number: 1000}
        )

        assert judged(ties, [number], expected, 1000, [])[0].numbers == (number,)
        assert judged(ties, [number], expected, 1000, [back]) == []

    def test_a_table_is_not_narrowed_by_itself(self) -> None:
        other = A.alias()
        statement = select(func.count(A.c.id), func.count(other.c.m)).where(
            A.c.n == other.c.m, other.c.n == 3
        )

        assert askable(ties_of(statement), [ALL]) == []


class TestWhichTies:
    def test_a_part_on_one_shard_is_not_asked(self) -> None:
        ties = ties_of(JOINED)

        assert {ties.all[n].part for n in askable(ties, [("s1",), ALL])} == {0}

    def test_a_part_without_rows_needs_no_keys(self) -> None:
        assert askable(ties_of(JOINED), [ALL, ()]) == []

    def test_a_second_partner_is_asked_if_it_pays(self) -> None:
        both = JOINED.join(C, C.c.m == B.c.m)

        few = verdicts(both, {1: 50_000}, {0: 500, 2: 500})
        more = verdicts(both, {1: 50_000}, {0: 5, 2: 500})

        assert [len(found[1].numbers) for found in (few, more)] == [2, 1]
