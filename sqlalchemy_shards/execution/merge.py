"""The rows of several shards, made one result, in constant memory where the order allows.

Groups are held in memory, all of the result's; everything else flows through.

Every function takes row iterators, one per shard, and returns one row iterator.
"""

from __future__ import annotations

import heapq
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import assert_never

from sqlalchemy_shards.plan import (
    AggregateRow,
    Concatenate,
    FirstCopy,
    ForeignOrder,
    Gather,
    GivenOrder,
    GroupedMerge,
    Moved,
    OrderedMerge,
    SumOfCounts,
)

from .groups import check_columns, grouped, put_together
from .sorting import row_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy_shards.plan import Merge, Window

BIGINT_MAX: Final = 2**63 - 1


def merged(
    merge: Merge,
    rows: Sequence[Iterable[tuple[Any, ...]]],
    type_oids: Sequence[int],
    values: Mapping[str, Any],
) -> Iterator[tuple[Any, ...]]:
    """Put the shards' rows together as the plan says.

    :param rows: one iterable per shard.
    :param type_oids: PostgreSQL types of the columns of the shards' rows.
    :param values: parameter values by name, for LIMIT and OFFSET.
    :raises NotMergeable: the types do not allow an exact merge.
    """
    match merge:
        case Concatenate(window):
            return windowed(chain.from_iterable(rows), window, values)
        case OrderedMerge(keys, visible, window):
            ordered = heapq.merge(*rows, key=row_key(keys, type_oids))
            return windowed((row[:visible] for row in ordered), window, values)
        case AggregateRow(functions, window):
            row = put_together(functions, chain.from_iterable(rows), type_oids)
            return windowed(iter((row,)), window, values)
        case GroupedMerge(_, visible, order, window):
            groups = grouped(merge.columns, rows, type_oids)
            if order:
                groups.sort(key=row_key(order, type_oids))
            return windowed((row[:visible] for row in groups), window, values)
        case SumOfCounts():
            return chain.from_iterable(rows)
        case GivenOrder(places):
            return iter(_in_given_order([list(each) for each in rows], places))
        case FirstCopy():
            return iter(rows[0])
        case Gather() | ForeignOrder() | Moved():
            raise AssertionError("the workspace does this, or each batch of rows")
        case _:
            assert_never(merge)


def check_types(merge: Merge | None, type_oids: Sequence[int]) -> None:
    """Tell before the first row is read that rows cannot be merged.

    :raises NotMergeable: Python would order, compare or add up values of a type otherwise.
    """
    if isinstance(merge, OrderedMerge):
        row_key(merge.keys, type_oids)
    elif isinstance(merge, AggregateRow):
        check_columns(merge.functions, type_oids)
    elif isinstance(merge, GroupedMerge):
        check_columns(merge.columns, type_oids)
        row_key(merge.order, type_oids)


def is_merged_whole(merge: Merge | None) -> bool:
    """Whether all rows are read before the first one of the result is there."""
    return isinstance(merge, (AggregateRow, GroupedMerge))


def visible_columns(merge: Merge | None) -> int | None:
    """How many of the shards' columns belong to the result; None: all."""
    has_hidden = isinstance(merge, (OrderedMerge, ForeignOrder, GroupedMerge))
    return merge.visible if has_hidden else None  # type: ignore[union-attr]


def _in_given_order(
    rows: Sequence[list[tuple[Any, ...]]], places: Sequence[Sequence[int]]
) -> list[tuple[Any, ...]]:
    if any(len(mine) != len(own) for mine, own in zip(rows, places, strict=True)):
        return list(chain.from_iterable(rows))
    placed = zip(chain.from_iterable(places), chain.from_iterable(rows), strict=True)
    return [row for _, row in sorted(placed, key=itemgetter(0))]


def windowed(
    rows: Iterator[tuple[Any, ...]], window: Window, values: Mapping[str, Any]
) -> Iterator[tuple[Any, ...]]:
    """Rows without those that OFFSET and LIMIT leave out."""
    limit = None if window.limit is None else values[window.limit]
    offset = None if window.offset is None else values[window.offset]
    start = int(offset or 0)
    return islice(rows, start, None if limit is None else min(start + int(limit), BIGINT_MAX))
