"""A keyspace as it is declared: a partitioner, where its buckets go, and single keys apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.errors import ConfigurationError, RoutingError, UnknownShard
from sqlalchemy_shards.topology.canonical import identity_bytes
from sqlalchemy_shards.topology.partitioners import BUCKETS_MAX, Partitioner

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Keyspace:
    """How the tables of one keyspace are spread over the shards of a cluster.

    Whether the shards exist and every bucket is placed is checked by `ShardMap.build`, which knows
    the shards.

    :param partitioner: from a shard key to a bucket.
    :param placement: from each bucket to its shard. A bucket is given by its number, its label, or,
        where labels are or end in numbers, as a run (``"0-511"``, ``"west/0-15"``). Without it,
        buckets are spread evenly over the shards in their order; then a new shard must come last,
        and the buckets that `ShardMap.diff` shows must be moved.
    :param pins: from single keys to their shards; a key of one part may be given as such, others
        are tuples. A pin holds for all equal keys: one of ``Decimal("1")`` for ``Decimal("1.0")``.
    :raises ConfigurationError: if a pin is no possible key, or given twice.
    """

    partitioner: Partitioner
    placement: Mapping[Any, str] | None = None
    pins: Mapping[Any, str] | None = None

    def __post_init__(self) -> None:
        _check_partitioner(self.partitioner)
        if self.placement is not None:
            object.__setattr__(self, "placement", MappingProxyType(dict(self.placement)))
        pins = _normalised(self.pins or {}, self.partitioner)
        object.__setattr__(self, "pins", MappingProxyType(pins))

    def __reduce__(self) -> tuple[Any, ...]:
        placement = None if self.placement is None else dict(self.placement)
        return partial(Keyspace, self.partitioner, placement, dict(self.pins or {})), ()


def shown_key(key: tuple[Any, ...]) -> str:
    """Return a configured key as it was most likely written: one of one part without its tuple."""
    return repr(key[0] if len(key) == 1 else key)


def _check_partitioner(partitioner: object) -> None:
    if not isinstance(partitioner, Partitioner):
        raise ConfigurationError(
            f"a keyspace needs a partitioner, not {type(partitioner).__qualname__!r}",
            "give one of the package's, or a class with all members of Partitioner",
        )
    count = partitioner.bucket_count
    if type(count) is not int or not 1 <= count <= BUCKETS_MAX:
        raise ConfigurationError(
            f"a keyspace cannot have {count!r} buckets",
            f"choose a partitioner with 1 to {BUCKETS_MAX} buckets",
        )


def _normalised(pins: Mapping[Any, str], partitioner: Partitioner) -> dict[tuple[Any, ...], str]:
    faults = []
    keys: dict[bytes, tuple[Any, ...]] = {}
    for pinned in pins:
        key = pinned if type(pinned) is tuple else (pinned,)
        try:
            identity = identity_bytes(key)
            _check_key(key, partitioner)
        except RoutingError as error:
            faults.append(f"{shown_key(key)}: {error.problem}")
            continue
        if identity in keys:
            faults.append(f"{shown_key(key)}: pinned twice, also as {shown_key(keys[identity])}")
        keys[identity] = key
    if faults:
        raise ConfigurationError(
            "a keyspace has faulty pins",
            "pin each key once, in the type of the shard key's column",
            faults=faults,
        )
    return dict(zip(keys.values(), pins.values(), strict=True))


def _check_key(key: tuple[Any, ...], partitioner: Partitioner) -> None:
    try:
        partitioner.bucket_of(key)
    except UnknownShard:
        return  # a pin may give a place to a key that has no bucket
