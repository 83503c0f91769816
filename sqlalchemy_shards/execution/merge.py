"""The rows of several shards, made one result, in constant memory where the order allows.

Every function takes row iterators, one per shard, and returns one row iterator.
"""

from __future__ import annotations

import heapq
from decimal import Decimal
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from psycopg.errors import NumericValueOutOfRange
from typing_extensions import assert_never

from sqlalchemy_shards.plan import (
    Aggregate,
    AggregateRow,
    Concatenate,
    FirstCopy,
    ForeignOrder,
    Gather,
    GivenOrder,
    OrderedMerge,
    SumOfCounts,
)

from .sorting import (
    EXACTLY_ORDERED,
    INTEGERS,
    TIMESTAMPTZ,
    NotMergeable,
    moment,
    row_key,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy_shards.plan import Merge, Window

BIGINT_MAX: Final = 2**63 - 1
NUMERIC: Final = 1700
OID: Final = 26


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
        case AggregateRow(functions):
            return iter((_aggregate_row(functions, list(chain.from_iterable(rows)), type_oids),))
        case SumOfCounts():
            return chain.from_iterable(rows)
        case GivenOrder(places):
            return iter(_in_given_order([list(each) for each in rows], places))
        case FirstCopy():
            return iter(rows[0])
        case Gather() | ForeignOrder():
            raise AssertionError("the workspace does this")
        case _:
            assert_never(merge)


def check_order(merge: Merge | None, type_oids: Sequence[int]) -> None:
    """Tell before the first row is read that rows cannot be put in order.

    :raises NotMergeable: a sort key has a type that Python orders otherwise.
    """
    if isinstance(merge, OrderedMerge):
        row_key(merge.keys, type_oids)


def visible_columns(merge: Merge | None) -> int | None:
    """How many of the shards' columns belong to the result; None: all."""
    return merge.visible if isinstance(merge, (OrderedMerge, ForeignOrder)) else None


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


def _aggregate_row(
    functions: Sequence[Aggregate], rows: Sequence[tuple[Any, ...]], type_oids: Sequence[int]
) -> tuple[Any, ...]:
    return tuple(
        _aggregate(function, [row[column] for row in rows], type_oids[column])
        for column, function in enumerate(functions)
    )


def _aggregate(function: Aggregate, partials: list[Any], type_oid: int) -> Any:
    known = [value for value in partials if value is not None]
    if function is Aggregate.COUNT:
        return sum(known)
    if function is Aggregate.SUM:
        return _sum(known, type_oid) if known else None
    # An aggregate of `regtype` and its like is an oid, which means something else on each server.
    if type_oid == OID or (type_oid not in EXACTLY_ORDERED and type_oid != TIMESTAMPTZ):
        raise _unmergeable(function, type_oid)
    if not known:
        return None
    key = moment if type_oid == TIMESTAMPTZ else None
    return min(known, key=key) if function is Aggregate.MIN else max(known, key=key)


def _sum(known: list[Any], type_oid: int) -> Any:
    """Sum as PostgreSQL does: of integers bigint, of bigints numeric without a fraction."""
    if type_oid in INTEGERS:
        total = sum(known)
        if not -BIGINT_MAX - 1 <= total <= BIGINT_MAX:
            raise NumericValueOutOfRange("bigint out of range")
        return total
    if type_oid == NUMERIC and all(
        isinstance(value, Decimal) and value.as_tuple().exponent == 0 for value in known
    ):
        return Decimal(sum(int(value) for value in known))
    raise _unmergeable(Aggregate.SUM, type_oid)


def _unmergeable(function: Aggregate, type_oid: int) -> NotMergeable:
    return NotMergeable(
        f"{function.value}() of the PostgreSQL type {type_name(type_oid)} over several shards is "
        "not supported yet",
        "give the shard key so that one shard answers, or aggregate in the application",
    )
