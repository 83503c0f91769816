"""From a shard key to a bucket: by hash, by range, by list, or by several of these at once."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

from mmh3 import mmh3_32_uintdigest

from sqlalchemy_shards.errors import ConfigurationError, RoutingError
from sqlalchemy_shards.topology.canonical import form_of_type, forms_of_values, key_bytes
from sqlalchemy_shards.topology.list_partitioner import ListPartitioner
from sqlalchemy_shards.topology.partitioner import BUCKETS_MAX, Partitioner, after, transformed
from sqlalchemy_shards.topology.range_partitioner import RangePartitioner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy_shards.topology.partitioner import Transform

__all__ = [
    "BUCKETS_MAX",
    "Partitioner",
    "HashPartitioner",
    "RangePartitioner",
    "ListPartitioner",
    "CompositePartitioner",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HashPartitioner:
    """Spreads keys evenly: murmur3 of the canonical byte form, modulo ``buckets``.

    The same in every process, release and in SQL; see `docs/hashing.md`.

    :param buckets: how many; more than the cluster will ever have shards, and never to be changed.
    :param transform: pure function of the key's parts; what it returns is hashed instead.
    :raises ConfigurationError: if ``buckets`` is not a whole number from 1 to `BUCKETS_MAX`.
    """

    buckets: int = 1024
    _: KW_ONLY
    transform: Transform | None = None

    def __post_init__(self) -> None:
        if type(self.buckets) is not int or not 1 <= self.buckets <= BUCKETS_MAX:
            raise ConfigurationError(
                f"a hash partitioner cannot have {self.buckets!r} buckets",
                f"give a whole number from 1 to {BUCKETS_MAX}",
            )

    @property
    def bucket_count(self) -> int:
        """How many buckets there are."""
        return self.buckets

    def bucket_of(self, key: tuple[Any, ...]) -> int:
        """Return the bucket of a key of any number of parts; see `Partitioner.bucket_of`."""
        if self.transform is not None:
            key = transformed(self.transform, key)
        return mmh3_32_uintdigest(key_bytes(key)) % self.buckets

    def chooser(self, kind: type, items: Sequence[T]) -> Callable[[Any], T]:
        """Return what chooses the item of a key's bucket, for keys of one part of exactly a type.

        One short function, as it is called for each statement. It raises as `bucket_of` does, or
        `struct.error` for a number of more than eight bytes.

        :param items: one for each bucket.
        """
        if self.transform is not None:
            return lambda value: items[self.bucket_of((value,))]
        form, digest, count = form_of_type(kind), mmh3_32_uintdigest, self.buckets
        return lambda value: items[digest(form(value)) % count]

    def buckets_of(self, values: Sequence[Any]) -> Sequence[int]:
        """Return the buckets of many keys of one part, which are all of one type.

        Raises as `bucket_of` does.
        """
        if self.transform is not None:
            return [self.bucket_of((value,)) for value in values]
        count, digest = self.buckets, mmh3_32_uintdigest
        return [digest(form) % count for form in forms_of_values(values)]

    def bucket_label(self, bucket: int) -> str:
        """Return the bucket's number."""
        return str(bucket)

    def describe(self) -> str:
        """Return one line about the partitioner."""
        return f"hash into {self.buckets} buckets{after(self.transform)}"


@dataclass(frozen=True, slots=True, init=False)
class CompositePartitioner:
    """One partitioner for each part of the key; their buckets are combined.

    Bucket numbers are mixed radix, the last part counting fastest: with parts of 3 and 16 buckets,
    (2, 5) is bucket 2 * 16 + 5. Labels are joined with a slash: ``west/5``.

    :param parts: two or more partitioners.
    :raises ConfigurationError: if there are fewer, or more than `BUCKETS_MAX` buckets in all.
    """

    parts: tuple[Partitioner, ...]
    bucket_count: int = field(repr=False, compare=False)

    def __init__(self, *parts: Partitioner) -> None:
        count = prod(part.bucket_count for part in _checked_parts(parts))
        if count > BUCKETS_MAX:
            raise ConfigurationError(
                f"a composite partitioner cannot have {count} buckets",
                f"choose parts whose buckets multiplied are at most {BUCKETS_MAX}",
            )
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "bucket_count", count)

    def __reduce__(self) -> tuple[Any, ...]:
        return CompositePartitioner, self.parts

    def bucket_of(self, key: tuple[Any, ...]) -> int:
        """Return the bucket of a key with as many parts as this has; see `Partitioner`."""
        if len(key) != len(self.parts):
            raise RoutingError(
                f"the shard key has {_counted(len(key), 'part')}, "
                f"but its composite partitioner has {len(self.parts)}",
                "give a key with one value for each part",
            )
        bucket = 0
        for part, value in zip(self.parts, key, strict=True):
            bucket = bucket * part.bucket_count + part.bucket_of((value,))
        return bucket

    def bucket_label(self, bucket: int) -> str:
        """Return the labels of the parts, joined with a slash."""
        labels = []
        for part in reversed(self.parts):
            bucket, digit = divmod(bucket, part.bucket_count)
            labels.append(part.bucket_label(digit))
        return "/".join(reversed(labels))

    def describe(self) -> str:
        """Return one line about the partitioner."""
        parts = " and ".join(f"({part.describe()})" for part in self.parts)
        return f"composite of {parts}, {self.bucket_count} buckets"


def _checked_parts(parts: tuple[Any, ...]) -> tuple[Partitioner, ...]:
    if len(parts) < 2 or not all(isinstance(part, Partitioner) for part in parts):
        raise ConfigurationError(
            "a composite partitioner needs two or more partitioners",
            "write CompositePartitioner(ListPartitioner(...), HashPartitioner(16))",
        )
    if any(isinstance(part, CompositePartitioner) for part in parts):
        raise ConfigurationError(
            "a composite partitioner cannot be a part of another",
            "give the parts of both to one CompositePartitioner",
        )
    return parts


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
