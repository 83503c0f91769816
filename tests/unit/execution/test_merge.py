"""Merging is what PostgreSQL would have done with the rows of all shards together."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import cmp_to_key
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.errors import NumericValueOutOfRange

from sqlalchemy_shards.errors import UnsupportedStatement
from sqlalchemy_shards.execution.merge import check_types, merged, visible_columns
from sqlalchemy_shards.plan import (
    Aggregate,
    AggregateRow,
    Concatenate,
    FirstCopy,
    GroupedMerge,
    GroupKey,
    OrderedMerge,
    SortKey,
    SumOfCounts,
    Window,
)

BIGINT, SMALLINT, INTEGER, NUMERIC, TEXT, FLOAT, DATE = 20, 21, 23, 1700, 25, 701, 1082
BOOLEAN, BYTEA, BPCHAR, TIMESTAMPTZ, ENUM = 16, 17, 1042, 1184, 99_999

numbers = st.none() | st.integers(-2, 2)
rows_of_shards = st.lists(st.lists(st.tuples(numbers, numbers), max_size=6), min_size=1, max_size=4)
sort_keys = st.lists(
    st.builds(
        SortKey,
        column=st.integers(0, 1),
        descending=st.booleans(),
        nulls_first=st.booleans(),
        is_byte_order=st.just(False),
    ),
    min_size=1,
    max_size=3,
)
counts = st.none() | st.integers(0, 8)


def postgresql_order(keys: list[SortKey]) -> Any:
    """ORDER BY as PostgreSQL's manual defines it, written another way than the code does."""

    def compare(one: Any, other: Any) -> int:
        for key in keys:
            left, right = one[key.column], other[key.column]
            if left == right:
                continue
            if left is None or right is None:
                is_first = (left is None) == key.nulls_first
                return -1 if is_first else 1
            return -1 if (left < right) != key.descending else 1
        return 0

    return cmp_to_key(compare)


@given(rows_of_shards, sort_keys, counts, counts)
def test_an_ordered_merge_is_the_sorted_union(
    shards: list[list[Any]], keys: list[SortKey], limit: int | None, offset: int | None
) -> None:
    order = postgresql_order(keys)
    merge = OrderedMerge(tuple(keys), 2, Window("n", "m"))
    parts = [sorted(rows, key=order) for rows in shards]

    found = list(merged(merge, parts, [INTEGER, BIGINT], {"n": limit, "m": offset}))

    whole = sorted((row for rows in shards for row in rows), key=order)
    start = offset or 0
    window = whole[start:] if limit is None else whole[start : start + limit]
    chosen = [key.column for key in keys]
    assert [[row[i] for i in chosen] for row in found] == [
        [row[i] for i in chosen] for row in window
    ]


@given(rows_of_shards, counts, counts)
def test_a_concatenation_holds_all_rows_or_as_many_as_asked_for(
    shards: list[list[Any]], limit: int | None, offset: int | None
) -> None:
    values = {"n": limit, "m": offset}

    found = list(merged(Concatenate(Window("n", "m")), shards, [INTEGER, INTEGER], values))

    whole = [row for rows in shards for row in rows]
    start = offset or 0
    assert found == (whole[start:] if limit is None else whole[start : start + limit])


def test_hidden_columns_are_cut_off() -> None:
    merge = OrderedMerge((SortKey(1, False, False, False),), visible=1)

    found = list(merged(merge, [[("b", 1)], [("a", 0), ("c", 2)]], [TEXT, INTEGER], {}))

    assert found == [("a",), ("b",), ("c",)]
    assert visible_columns(merge) == 1


def test_the_largest_window() -> None:
    window = Concatenate(Window("n", "m"))

    found = list(merged(window, [[(1,)], [(2,)]], [INTEGER], {"n": 2**63 - 1, "m": 1}))

    assert found == [(2,)]


def test_text_is_merged_by_code_point_only() -> None:
    rows = [[("B",), ("a",)], [("Z",), ("ä",), ("日",), ("\U0001d4b3",)]]

    found = list(merged(OrderedMerge((SortKey(0, False, False, True),), 1), rows, [TEXT], {}))

    assert [value for (value,) in found] == ["B", "Z", "a", "ä", "日", "\U0001d4b3"]
    assert [value.encode() for (value,) in found] == sorted(v.encode() for (v,) in found)


@pytest.mark.parametrize("oid", [TEXT, FLOAT, 1186, 3802, 1042, 0])
def test_other_types_are_not_ordered_by_python(oid: int) -> None:
    merge = OrderedMerge((SortKey(0, False, False, is_byte_order=False),), 1)

    with pytest.raises(UnsupportedStatement):
        list(merged(merge, [[(1,)]], [oid], {}))


def autumn_in_berlin(minute: int) -> datetime:
    """A moment of the night in which clocks go back from three to two o'clock."""
    start = datetime(2026, 10, 25, 0, 0, tzinfo=timezone.utc)
    return (start + timedelta(minutes=minute)).astimezone(ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize("descending", [False, True])
def test_moments_are_merged_in_the_hour_that_comes_twice(descending: bool) -> None:
    later, earlier, last = (autumn_in_berlin(minute) for minute in (70, 50, 200))
    assert later < earlier  # by the clock on the wall
    rows: list[list[Any]] = [[(later,), (None,)], [(earlier,), (last,)]]
    if descending:
        rows = [list(reversed(each)) for each in rows]
    key = SortKey(0, descending, nulls_first=descending, is_byte_order=False)

    found = [value for (value,) in merged(OrderedMerge((key,), 1), rows, [TIMESTAMPTZ], {})]

    expected = [earlier, later, last, None]
    assert found == (expected[::-1] if descending else expected)


def test_the_first_and_last_moment_of_the_hour_that_comes_twice() -> None:
    later, earlier = autumn_in_berlin(70), autumn_in_berlin(50)

    assert aggregate(Aggregate.MIN, TIMESTAMPTZ, later, None, earlier) is earlier
    assert aggregate(Aggregate.MAX, TIMESTAMPTZ, earlier, later) is later


def aggregate(function: Aggregate, oid: int, *partials: Any) -> Any:
    rows = [[(partial,)] for partial in partials]
    ((value,),) = merged(AggregateRow((function,)), rows, [oid], {})
    return value


@pytest.mark.parametrize(
    ("function", "oid", "partials", "expected"),
    [
        (Aggregate.COUNT, BIGINT, (0, 3, 4), 7),
        (Aggregate.COUNT, BIGINT, (0, 0), 0),
        (Aggregate.SUM, BIGINT, (None, None), None),
        (Aggregate.SUM, BIGINT, (None, 3, -4), -1),
        (Aggregate.SUM, BIGINT, (2**62, 2**62 - 1), 2**63 - 1),
        (Aggregate.SUM, NUMERIC, (Decimal(2**63), None, Decimal(2**63)), Decimal(2**64)),
        (Aggregate.SUM, NUMERIC, (Decimal(10**40 + 1), Decimal(1)), Decimal(10**40 + 2)),
        (Aggregate.SUM, NUMERIC, (Decimal("1.5"), Decimal(1)), Decimal("2.5")),
        (Aggregate.SUM, NUMERIC, (Decimal("0.50"), None, Decimal("-0.5")), Decimal("0.00")),
        (Aggregate.SUM, NUMERIC, (Decimal("Infinity"), Decimal(1)), Decimal("Infinity")),
        (
            Aggregate.SUM,
            NUMERIC,
            (Decimal("1e-60"), Decimal(10**60)),
            Decimal(f"1{'0' * 60}.{1:060}"),
        ),
        (Aggregate.BOOL_AND, BOOLEAN, (None, True, True), True),
        (Aggregate.EVERY, BOOLEAN, (True, False), False),
        (Aggregate.BOOL_OR, BOOLEAN, (None, False, True), True),
        (Aggregate.BOOL_OR, BOOLEAN, (None, None), None),
        (Aggregate.BIT_AND, INTEGER, (-1, 6, None), 6),
        (Aggregate.BIT_OR, INTEGER, (-8, 1), -7),
        (Aggregate.BIT_XOR, INTEGER, (6, 3), 5),
        (Aggregate.ANY_VALUE, TEXT, (None, "a", "a"), "a"),
        (Aggregate.MIN, INTEGER, (None, 3, -4), -4),
        (Aggregate.MAX, INTEGER, (None, 3, -4), 3),
        (Aggregate.MAX, INTEGER, (None, None), None),
    ],
)
def test_aggregates_are_put_together(
    function: Aggregate, oid: int, partials: tuple[Any, ...], expected: Any
) -> None:
    found = aggregate(function, oid, *partials)

    assert found == expected
    assert (type(found), str(found)) == (type(expected), str(expected))


@pytest.mark.parametrize(
    "partials", [("NaN", "1.5"), ("Infinity", "NaN"), ("Infinity", "-Infinity")]
)
def test_a_sum_that_is_no_number(partials: tuple[str, ...]) -> None:
    found = aggregate(Aggregate.SUM, NUMERIC, *map(Decimal, partials))

    assert found.is_nan()


@pytest.mark.parametrize("partials", [(2**62, 2**62), (-(2**63), -1)])
def test_a_sum_beyond_bigint_fails_as_in_postgresql(partials: tuple[int, ...]) -> None:
    with pytest.raises(NumericValueOutOfRange):
        aggregate(Aggregate.SUM, BIGINT, *partials)


@pytest.mark.parametrize(
    ("function", "oid", "partials"),
    [
        (Aggregate.SUM, NUMERIC, (1.5, 2.5)),
        (Aggregate.BOOL_OR, INTEGER, (1,)),
        (Aggregate.BIT_OR, NUMERIC, (Decimal(1),)),
        (Aggregate.SUM, FLOAT, (1.5,)),
        (Aggregate.MIN, TEXT, ("a", "b")),
        (Aggregate.MAX, FLOAT, (1.5,)),
        (Aggregate.MIN, NUMERIC, (Decimal(1),)),
        (Aggregate.MAX, TEXT, (None, None)),
    ],
)
def test_aggregates_whose_digits_or_order_differ_are_refused(
    function: Aggregate, oid: int, partials: tuple[Any, ...]
) -> None:
    with pytest.raises(UnsupportedStatement):
        aggregate(function, oid, *partials)


def test_several_aggregates_make_one_row() -> None:
    functions = (Aggregate.COUNT, Aggregate.MIN, Aggregate.SUM)

    found = list(
        merged(AggregateRow(functions), [[(1, 5, 5)], [(2, 3, 4)]], [BIGINT, DATE, BIGINT], {})
    )

    assert found == [(3, 3, 9)]


def test_an_aggregate_row_can_be_cut_off() -> None:
    merge = AggregateRow((Aggregate.COUNT,), Window("n", "m"))

    assert list(merged(merge, [[(1,)], [(2,)]], [BIGINT], {"n": 1, "m": 0})) == [(3,)]
    assert not list(merged(merge, [[(1,)], [(2,)]], [BIGINT], {"n": 0, "m": 0}))
    assert not list(merged(merge, [[(1,)], [(2,)]], [BIGINT], {"n": None, "m": 1}))


def test_numbers_are_merged_with_nan_as_the_greatest() -> None:
    numbers_of_shards = [
        [["-Infinity"], ["1.5"], ["NaN"]],
        [["-2.50"], ["1.50"], ["Infinity"], [None]],
    ]
    rows = [[(n and Decimal(n),) for (n,) in shard] for shard in numbers_of_shards]
    key = SortKey(0, descending=False, nulls_first=False, is_byte_order=False)

    found = [value for (value,) in merged(OrderedMerge((key,), 1), rows, [NUMERIC], {})]

    assert list(map(str, found)) == ["-Infinity", "-2.50", "1.5", "1.50", "Infinity", "NaN", "None"]


def test_numbers_in_another_form_are_not_ordered() -> None:
    key = SortKey(0, descending=False, nulls_first=False, is_byte_order=False)

    with pytest.raises(UnsupportedStatement):
        list(merged(OrderedMerge((key,), 1), [[(1.5,)]], [NUMERIC], {}))


@given(rows_of_shards, counts, counts)
def test_groups_are_those_of_all_rows(
    shards: list[list[Any]], limit: int | None, offset: int | None
) -> None:
    def groups_of(rows: list[Any]) -> list[tuple[Any, ...]]:
        """SELECT k, count(*), sum(v), max(v) GROUP BY k, by the book."""
        found = []
        for key in dict.fromkeys(key for key, _ in rows):
            mine = [value for k, value in rows if k == key]
            known = [value for value in mine if value is not None]
            total = (sum(known), max(known)) if known else (None, None)
            found.append((key, len(mine), *total))
        return found

    columns = (GroupKey(), Aggregate.COUNT, Aggregate.SUM, Aggregate.MAX)
    order = [SortKey(1, True, True, False), SortKey(0, False, False, False)]
    merge = GroupedMerge(columns, 3, tuple(order), Window("n", "m"))

    found = list(
        merged(
            merge,
            [groups_of(rows) for rows in shards],
            [INTEGER, BIGINT, BIGINT, INTEGER],
            {"n": limit, "m": offset},
        )
    )

    whole = groups_of([row for rows in shards for row in rows])
    whole.sort(key=postgresql_order(order))
    start = offset or 0
    window = whole[start:] if limit is None else whole[start : start + limit]
    assert found == [row[:3] for row in window]
    assert visible_columns(merge) == 3


def test_two_moments_of_the_hour_that_comes_twice_are_two_groups() -> None:
    later, earlier = autumn_in_berlin(60), autumn_in_berlin(0)
    assert later == earlier  # by the clock on the wall
    merge = GroupedMerge((GroupKey(), GroupKey()), 2)

    found = list(
        merged(
            merge, [[(later, 1), (None, 1)], [(earlier, 1), (None, 1)]], [TIMESTAMPTZ, INTEGER], {}
        )
    )

    assert [moment for moment, _ in found] == [later, None, earlier]


@pytest.mark.parametrize(
    ("key", "oid", "values"),
    [
        (GroupKey(is_exact_text=True), TEXT, ["a", "a "]),
        (GroupKey(is_enum=True), ENUM, ["a", "b"]),
        (GroupKey(), BYTEA, [b"a", b"b"]),
    ],
)
def test_keys_whose_equality_is_that_of_python(key: GroupKey, oid: int, values: list[Any]) -> None:
    rows = [[(value,) for value in values] for _ in range(2)]

    found = list(merged(GroupedMerge((key,), 1), rows, [oid], {}))

    assert [value for (value,) in found] == values


@pytest.mark.parametrize(
    ("key", "oid"),
    [
        (GroupKey(), TEXT),
        (GroupKey(is_exact_text=True), BPCHAR),
        (GroupKey(is_exact_text=True), ENUM),
        (GroupKey(), NUMERIC),
        (GroupKey(), FLOAT),
        (GroupKey(), 3802),
    ],
)
def test_keys_whose_equality_is_known_to_postgresql_alone_are_refused(
    key: GroupKey, oid: int
) -> None:
    merge = GroupedMerge((key,), 1)

    with pytest.raises(UnsupportedStatement):
        check_types(merge, [oid])
    with pytest.raises(UnsupportedStatement):
        list(merged(merge, [[(1,)]], [oid], {}))


def test_a_sum_of_one_group_may_fail_alone() -> None:
    merge = GroupedMerge((GroupKey(), Aggregate.SUM), 2)

    with pytest.raises(NumericValueOutOfRange):
        list(merged(merge, [[(1, 2**62)], [(1, 2**62)]], [INTEGER, BIGINT], {}))


def test_returned_rows_follow_each_other_and_copies_stand_for_all() -> None:
    rows = [[(1,)], [(2,)]]

    assert list(merged(SumOfCounts(), rows, [INTEGER], {})) == [(1,), (2,)]
    assert list(merged(FirstCopy(), rows, [INTEGER], {})) == [(1,)]
