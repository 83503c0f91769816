"""Ranges of shard-key values, each a bucket."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.partitioner import (
    BUCKETS_MAX,
    after,
    configured,
    one_part,
    shown,
    some,
    transformed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy_shards.topology.canonical import Kind
    from sqlalchemy_shards.topology.partitioner import Transform


@dataclass(frozen=True, slots=True)
class RangePartitioner:
    """Half-open ranges: bounds 100 and 200 mean below 100, 100 to 199, and from 200.

    Text is compared by code point, as PostgreSQL does under the collation "C"; bytes and UUIDs by
    their bytes; datetimes with a time zone as instants.

    :param bounds: the lower bound of each bucket but the first, ascending, of one type.
    :param transform: pure function of the key's parts; what it returns is looked up instead.
    :raises ConfigurationError: if there is no bound, or they are unordered or of several types.
    """

    bounds: Sequence[Any]
    _: KW_ONLY
    transform: Transform | None = None
    _kind: Kind = field(init=False, repr=False, compare=False)
    _comparable: tuple[Any, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        advice = "give one or more bounds of one type, in ascending order"
        is_one_value = isinstance(self.bounds, str | bytes) or not isinstance(self.bounds, Iterable)
        bounds = () if is_one_value else tuple(self.bounds)
        if not 1 <= len(bounds) < BUCKETS_MAX:
            raise ConfigurationError(
                f"a range partitioner cannot be made from {len(bounds)} bounds", advice
            )
        kind, keys = configured(bounds, "bounds", advice)
        if not all(lower < upper for lower, upper in pairwise(keys)):
            raise ConfigurationError("the bounds do not ascend", advice)
        object.__setattr__(self, "bounds", bounds)
        object.__setattr__(self, "_kind", kind)
        object.__setattr__(self, "_comparable", keys)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(RangePartitioner, self.bounds, transform=self.transform), ()

    @property
    def bucket_count(self) -> int:
        """How many buckets there are: one more than bounds."""
        return len(self.bounds) + 1

    @property
    def kind(self) -> Kind:
        """What kind of values it is for."""
        return self._kind

    @property
    def bounds_in_order(self) -> tuple[Any, ...]:
        """The bounds in the shape in which values are compared, as `comparable` makes it."""
        return self._comparable

    def bucket_of(self, key: tuple[Any, ...]) -> int:
        """Return the bucket of a key of one part; see `Partitioner.bucket_of`."""
        if self.transform is not None:
            key = transformed(self.transform, key)
        return bisect_right(self._comparable, one_part(key, self._kind, "range"))

    def bucket_label(self, bucket: int) -> str:
        """Return "below 100", "100 to 199" or "from 200"."""
        if bucket == 0:
            return f"below {shown(self.bounds[0])}"
        lower = self.bounds[bucket - 1]
        if bucket == len(self.bounds):
            return f"from {shown(lower)}"
        upper = self.bounds[bucket]
        if type(lower) is int and type(upper) is int:
            return str(lower) if upper == lower + 1 else f"{lower} to {upper - 1}"
        return f"{shown(lower)} to below {shown(upper)}"

    def describe(self) -> str:
        """Return one line about the partitioner."""
        bounds = ", ".join(some([shown(bound) for bound in self.bounds]))
        return f"range with bounds {bounds}{after(self.transform)}"
