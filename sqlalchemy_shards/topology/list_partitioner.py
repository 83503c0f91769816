"""Lists of shard-key values, each a bucket."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.errors import ConfigurationError, UnknownShard
from sqlalchemy_shards.topology.partitioner import (
    BUCKETS_MAX,
    after,
    configured,
    one_part,
    some,
    transformed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy_shards.topology.canonical import Kind
    from sqlalchemy_shards.topology.partitioner import Transform


@dataclass(frozen=True, slots=True)
class ListPartitioner:
    """Each value is listed under the label of its bucket.

    :param values: label -> the values of that bucket; buckets are numbered in this order.
    :param default: label of the bucket for all other values; it may be one of ``values`` or a new
        one, which comes last. Without it, other values are refused with `UnknownShard`.
    :param transform: pure function of the key's parts; what it returns is looked up instead.
    :raises ConfigurationError: if a value is listed twice, or the values are of several types.
    """

    values: Mapping[str, Sequence[Any]] = field(hash=False)
    _: KW_ONLY
    default: str | None = None
    transform: Transform | None = None
    _kind: Kind = field(init=False, repr=False, compare=False)
    _labels: tuple[str, ...] = field(init=False, repr=False)  # the order of labels is meaning
    _buckets: Mapping[Any, int] = field(init=False, repr=False, compare=False)
    _default_bucket: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_lists(self.values, self.default)
        values = {label: tuple(listed) for label, listed in self.values.items()}
        labels = tuple(dict.fromkeys([*values, *([] if self.default is None else [self.default])]))
        kind, buckets = _numbered(values)
        object.__setattr__(self, "values", MappingProxyType(values))
        object.__setattr__(self, "_kind", kind)
        object.__setattr__(self, "_labels", labels)
        object.__setattr__(self, "_buckets", buckets)
        default_bucket = None if self.default is None else labels.index(self.default)
        object.__setattr__(self, "_default_bucket", default_bucket)

    def __reduce__(self) -> tuple[Any, ...]:
        values, default = dict(self.values), self.default
        return partial(ListPartitioner, values, default=default, transform=self.transform), ()

    @property
    def bucket_count(self) -> int:
        """How many buckets there are: one for each label."""
        return len(self._labels)

    def bucket_of(self, key: tuple[Any, ...]) -> int:
        """Return the bucket of a key of one part; see `Partitioner.bucket_of`."""
        if self.transform is not None:
            key = transformed(self.transform, key)
        bucket = self._buckets.get(one_part(key, self._kind, "list"), self._default_bucket)
        if bucket is None:
            raise UnknownShard(
                "the shard key maps to no bucket: no list of its list partitioner has it",
                "add the value to a list, or give the partitioner a default",
            )
        return bucket

    def bucket_label(self, bucket: int) -> str:
        """Return the label under which the bucket's values are listed."""
        return self._labels[bucket]

    def describe(self) -> str:
        """Return one line about the partitioner."""
        default = "" if self.default is None else f", default {self.default}"
        return f"list of {', '.join(some(self._labels))}{default}{after(self.transform)}"


def _check_lists(values: Mapping[str, Sequence[Any]], default: str | None) -> None:
    labels = [*values, *([] if default is None else [default])]
    if not values or not all(isinstance(label, str) and label for label in labels):
        raise ConfigurationError(
            "a list partitioner needs labels that are text and not empty",
            'write ListPartitioner({"west": ["Goa", "Gujarat"]}, default="north")',
        )
    if len(labels) > BUCKETS_MAX:
        raise ConfigurationError(
            f"a list partitioner cannot have {len(labels)} labels", f"use at most {BUCKETS_MAX}"
        )
    faults = [
        f"{label!r}: not a list of values"
        for label, listed in values.items()
        if isinstance(listed, str | bytes) or not hasattr(listed, "__iter__")
    ]
    faults += [f"{label!r}: no values" for label, listed in values.items() if listed in ((), [])]
    if faults:
        raise ConfigurationError(
            "a list partitioner has faulty lists",
            "give each label one or more values",
            faults=faults,
        )


def _numbered(values: Mapping[str, tuple[Any, ...]]) -> tuple[Kind, Mapping[Any, int]]:
    """The kind of all values, and the bucket of each in the shape in which they are compared."""
    flat = [(bucket, value) for bucket, listed in enumerate(values.values()) for value in listed]
    kind, keys = configured(
        [value for _, value in flat],
        "values",
        "list values of the one type that the shard key's column has",
    )
    labels = list(values)
    buckets: dict[Any, int] = {}
    faults = []
    for (bucket, value), key in zip(flat, keys, strict=True):
        if key in buckets:
            faults.append(
                f"{value!r} is listed under {labels[buckets[key]]!r} and {labels[bucket]!r}"
            )
        buckets.setdefault(key, bucket)
    if faults:
        raise ConfigurationError(
            "a list partitioner has values that are listed twice",
            "list each value once, under one label",
            faults=faults,
        )
    return kind, buckets
