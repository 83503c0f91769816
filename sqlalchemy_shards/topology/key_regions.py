"""Sets of shard keys that are known in part, and the buckets that they can lie in.

A *region* is a tuple with one item for each part of the key: a value, an `Interval` of values, or
`UNBOUND`, which is any value. A last item more, `InBucket`, says that all its keys have that
bucket.

Invariant: every bucket that can hold a key of the region is among those that are told. What is not
known of a partitioner widens: a hash has no order, a transform need not keep it, a partitioner of
the application's own is only ever asked for single keys.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy_shards.errors import RoutingError, UnknownShard
from sqlalchemy_shards.topology.canonical import comparable, kind_of
from sqlalchemy_shards.topology.partitioners import CompositePartitioner
from sqlalchemy_shards.topology.range_partitioner import RangePartitioner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from sqlalchemy_shards.topology.partitioner import Partitioner


class _Unbound(enum.Enum):
    UNBOUND = "unbound"

    def __repr__(self) -> str:
        return "UNBOUND"


UNBOUND: Final = _Unbound.UNBOUND
"""Any value; as a bound of an interval: none."""

Region: TypeAlias = "tuple[Any, ...]"


class InBucket(NamedTuple):
    """What stands behind the parts of a region whose keys all have one bucket."""

    bucket: int


class Interval(NamedTuple):
    """The values between two bounds, each of which may be `UNBOUND`.

    :param is_open_below: the lower bound itself is not in it; likewise above.
    """

    low: Any = UNBOUND
    high: Any = UNBOUND
    is_open_below: bool = False
    is_open_above: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value is in it."""
        if self.low is not UNBOUND and (
            value < self.low or (self.is_open_below and value == self.low)
        ):
            return False
        return self.high is UNBOUND or not (
            value > self.high or (self.is_open_above and value == self.high)
        )


def overlap(one: Any, other: Any) -> Any:
    """What two parts of regions have in common: a part of a region, or None for nothing."""
    if one is UNBOUND:
        return other
    if other is UNBOUND:
        return one
    if type(other) is Interval:
        one, other = other, one
    if type(one) is not Interval:
        return one if one == other else None
    if type(other) is not Interval:
        return other if one.holds(other) else None
    return _between(*_higher(one, other), *_lower(one, other))


def is_in(key: tuple[Any, ...], region: Region) -> bool:
    """Whether a key may be in a region, whatever its bucket."""
    for part, value in zip(region, key, strict=False):
        if part is UNBOUND:
            continue
        if not (part.holds(value) if type(part) is Interval else part == value):
            return False
    return True


def buckets_within(partitioner: Partitioner, region: Region) -> Sequence[range] | None:
    """The buckets that can hold the keys of a region without `InBucket`; None: any of them."""
    if type(partitioner) is CompositePartitioner and len(partitioner.parts) == len(region):
        parts = [_buckets_of_part(*each) for each in zip(partitioner.parts, region, strict=True)]
        return None if all(part is None for part in parts) else _mixed(partitioner, parts)
    return _buckets_of_part(partitioner, region[0]) if len(region) == 1 else None


def _higher(one: Interval, other: Interval) -> tuple[Any, bool]:
    """The lower bound of what both hold, and whether it is open."""
    if one.low is UNBOUND or (other.low is not UNBOUND and other.low > one.low):
        return other.low, other.is_open_below
    return one.low, one.is_open_below or (other.low == one.low and other.is_open_below)


def _lower(one: Interval, other: Interval) -> tuple[Any, bool]:
    if one.high is UNBOUND or (other.high is not UNBOUND and other.high < one.high):
        return other.high, other.is_open_above
    return one.high, one.is_open_above or (other.high == one.high and other.is_open_above)


def _between(low: Any, is_open_below: bool, high: Any, is_open_above: bool) -> Any:
    if low is not UNBOUND and high is not UNBOUND:
        if low > high:
            return None
        if low == high:
            return None if is_open_below or is_open_above else low
    return Interval(low, high, is_open_below, is_open_above)


def _buckets_of_part(partitioner: Partitioner, part: Any) -> Sequence[range] | None:
    if part is UNBOUND:
        return None
    try:
        if type(part) is Interval:
            return _ranges(partitioner, part)
        bucket = partitioner.bucket_of((part,))
    except UnknownShard:
        return ()  # no row has such a key, unless it is pinned
    except RoutingError:
        return None
    return (range(bucket, bucket + 1),) if 0 <= bucket < partitioner.bucket_count else None


def _ranges(partitioner: Partitioner, interval: Interval) -> Sequence[range] | None:
    if type(partitioner) is not RangePartitioner or partitioner.transform is not None:
        return None
    bounds = partitioner.bounds_in_order
    for bound in (interval.low, interval.high):
        if bound is not UNBOUND and kind_of(bound) != partitioner.kind:
            return None
    first, last = 0, len(bounds)
    if interval.low is not UNBOUND:
        first = bisect_right(bounds, comparable(interval.low))
    if interval.high is not UNBOUND:
        find = bisect_left if interval.is_open_above else bisect_right
        last = find(bounds, comparable(interval.high))
    return (range(first, last + 1),)


def _mixed(
    partitioner: CompositePartitioner, parts: Sequence[Sequence[range] | None]
) -> Sequence[range]:
    """The buckets that have the digits of each part, in runs; see `CompositePartitioner`."""
    runs: Sequence[range] = (range(1),)
    for part, digits in zip(partitioner.parts, parts, strict=True):
        count = part.bucket_count
        if digits is None:
            runs = [range(run.start * count, run.stop * count) for run in runs]
        else:
            runs = [
                range(bucket * count + of_digit.start, bucket * count + of_digit.stop)
                for run in runs
                for bucket in run
                for of_digit in digits
            ]
    return runs
