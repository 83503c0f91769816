"""The shard map: which shard each bucket of each keyspace, and each pinned key, lies on.

A map is immutable. Every change makes a new one with a higher version; `diff` says what would have
to move from one to the other. It pickles, and compares by value.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy_shards.errors import ConfigurationError, RoutingError, UnknownShard
from sqlalchemy_shards.topology.canonical import identity_bytes
from sqlalchemy_shards.topology.generated_id import bucket_of_id
from sqlalchemy_shards.topology.key_regions import InBucket, buckets_within, is_in
from sqlalchemy_shards.topology.names import name_fault
from sqlalchemy_shards.topology.partitioners import HashPartitioner
from sqlalchemy_shards.topology.placement import bucket_runs, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy_shards.topology.key_regions import Region
    from sqlalchemy_shards.topology.keyspace import Keyspace
    from sqlalchemy_shards.topology.partitioners import Partitioner

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BucketMove:
    """A bucket, or a single pinned key, that lies elsewhere in another map.

    For a pinned key ``pin`` is the key, and ``bucket`` its bucket or None if it has none; a move of
    a bucket does not include the keys that are pinned in either map.
    """

    keyspace: str
    bucket: int | None
    source: str
    target: str
    pin: tuple[Any, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class KeyspaceMap:
    """One keyspace's part of the map.

    :param placement: the shard of each bucket, by number.
    :param pins: from the tuple of a key's parts to its shard.
    """

    name: str
    partitioner: Partitioner
    placement: tuple[str, ...]
    pins: Mapping[tuple[Any, ...], str] = field(default_factory=dict, compare=False)
    _pinned: Mapping[bytes, str] = field(init=False)
    _beside: Mapping[int, frozenset[str]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.placement) != self.partitioner.bucket_count:
            raise ConfigurationError(
                f"keyspace {self.name!r} has {self.partitioner.bucket_count} buckets, "
                f"but {len(self.placement)} are placed",
                "place each bucket on one shard",
            )
        pinned = {identity_bytes(key): shard for key, shard in self.pins.items()}
        object.__setattr__(self, "pins", MappingProxyType(dict(self.pins)))
        object.__setattr__(self, "_pinned", pinned)
        object.__setattr__(self, "_beside", _shards_of_pins(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyspaceMap, (self.name, self.partitioner, self.placement, dict(self.pins))

    def __repr__(self) -> str:
        held = ", ".join(f"{shard} ({n})" for shard, n in Counter(self.placement).items())
        pins = f", {len(self.pins)} pinned" if self.pins else ""
        return f"<KeyspaceMap {self.name!r}: {self.partitioner.describe()}, on {held}{pins}>"

    def bucket_for(self, key: tuple[Any, ...]) -> int:
        """Return the bucket of a key; a pinned key has one too.

        :raises RoutingError: if it has none; see `Partitioner.bucket_of`.
        """
        bucket = self.partitioner.bucket_of(key)
        if 0 <= bucket < len(self.placement):
            return bucket
        raise self._no_bucket(bucket)

    def shard_for(self, key: tuple[Any, ...]) -> str:
        """Return the shard of a key, pins considered.

        :raises RoutingError: if it has none; see `Partitioner.bucket_of`.
        """
        if self._pinned:
            shard = self._pinned.get(identity_bytes(key))
            if shard is not None:
                return shard
        bucket = self.partitioner.bucket_of(key)
        if 0 <= bucket < len(self.placement):
            return self.placement[bucket]
        raise self._no_bucket(bucket)

    def finder(self, kind: type) -> Callable[[Any], str]:
        """Return what finds the shard of a key of one part, whose value is of exactly this type.

        As `shard_for`, in fewer steps where keys are hashed; there it may fail otherwise than by
        `RoutingError` where a key has no shard, or needs more steps.
        """
        partitioner = self.partitioner
        if type(partitioner) is HashPartitioner and not self._pinned:
            return partitioner.chooser(kind, self.placement)
        return lambda value: self.shard_for((value,))

    def shards_of_values(self, values: Sequence[Any]) -> Sequence[str | None] | None:
        """Return the shards of many keys of one part, in their order; of a key without one, None.

        As `shard_for`, but quicker where keys are hashed. None in place of all: one of them is no
        key, or the application's own partitioner fails.
        """
        partitioner, placement = self.partitioner, self.placement
        try:
            is_alike = len(set(map(type, values))) == 1
            if is_alike and type(partitioner) is HashPartitioner and not self._pinned:
                return [placement[bucket] for bucket in partitioner.buckets_of(values)]
            return [_found(self.shard_for, (value,)) for value in values]
        except RoutingError:
            return None

    def shards_within(self, region: Region) -> frozenset[str] | None:
        """Return the shards that may hold rows with keys of a region, or None: any of them.

        That is the shards of the buckets that its keys can have, and of each pinned key in it.
        """
        last = region[-1]
        if type(last) is InBucket:
            return self._shards_of_bucket(last.bucket)
        runs = buckets_within(self.partitioner, region)
        if runs is None:
            return None
        found = {shard for run in runs for shard in self.placement[run.start : run.stop]}
        found.update(shard for key, shard in self.pins.items() if _may_be_in(key, region))
        return frozenset(found)

    def shards_of_id(self, value: int) -> frozenset[str] | None:
        """Return the shards that may hold the row with a generated id, or None: any of them.

        That is the shard of the bucket that the id carries, and of each pinned key in that bucket.
        """
        bucket = bucket_of_id(value)
        return None if bucket is None else self._shards_of_bucket(bucket)

    def _shards_of_bucket(self, bucket: int) -> frozenset[str] | None:
        if bucket >= len(self.placement):
            return None
        return frozenset((self.placement[bucket],)) | self._beside.get(bucket, frozenset())

    def ranges(self) -> list[tuple[str, str]]:
        """Return a label and its shard for each run of buckets, in the order of the buckets.

        Numbered buckets are joined into runs (``"0-511"``); labels stand alone. The labels are such
        that the pairs, as a mapping, are the placement of an equal keyspace.
        """
        return bucket_runs(self.partitioner, enumerate(self.placement))

    def _no_bucket(self, bucket: int) -> RoutingError:
        return RoutingError(
            f"the partitioner of keyspace {self.name!r} answered bucket {bucket!r}, "
            f"but has {len(self.placement)}",
            "make its bucket_of() return a number from 0 to below its bucket_count",
        )


@dataclass(frozen=True, slots=True, repr=False)
class ShardMap:
    """Every keyspace's part of the map, under one version.

    :param version: counts up with every change.
    :param keyspaces: by name.
    :param shards: all shards of the cluster, in its order; they may hold nothing yet. Without it,
        those that hold something.
    """

    version: int
    keyspaces: Mapping[str, KeyspaceMap]
    shards: Sequence[str] = ()
    _maps: dict[str, KeyspaceMap] = field(init=False, compare=False)
    _holders: dict[str, tuple[str, ...]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        held = {name: _held(keyspace) for name, keyspace in self.keyspaces.items()}
        shards = self.shards or dict.fromkeys(shard for of in held.values() for shard in of)
        unknown = sorted({shard for of in held.values() for shard in of} - set(shards))
        if unknown:
            raise ConfigurationError(
                f"the shard map places buckets or pins on unknown shards: {', '.join(unknown)}",
                "name all shards of the cluster",
            )
        holders = {name: tuple(s for s in shards if s in of) for name, of in held.items()}
        object.__setattr__(self, "_maps", dict(self.keyspaces))  # faster to ask than a proxy
        object.__setattr__(self, "keyspaces", MappingProxyType(self._maps))
        object.__setattr__(self, "shards", tuple(shards))
        object.__setattr__(self, "_holders", holders)

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardMap, (self.version, dict(self.keyspaces), self.shards)

    def __repr__(self) -> str:
        return f"<ShardMap version {self.version}: {list(self.keyspaces.values())}>"

    @classmethod
    def build(cls, keyspaces: Mapping[str, Keyspace], shards: Sequence[str]) -> ShardMap:
        """Return the first version of the map for keyspaces as they are declared.

        :param shards: the names of all shards, in the order of the cluster.
        :raises ConfigurationError: with every fault of every placement and pin.
        """
        faults = _faults_of_shards(shards)
        faults += [f for name in keyspaces if (f := name_fault("keyspace", name)) is not None]
        maps = {}
        for name, keyspace in keyspaces.items():
            placement, found = place(keyspace, shards)
            faults += [f"keyspace {name!r}: {fault}" for fault in found]
            if not faults:
                maps[name] = KeyspaceMap(name, keyspace.partitioner, placement, keyspace.pins or {})
        if faults:
            raise ConfigurationError(
                "the buckets cannot be placed on the shards",
                "correct the shards, placements and pins",
                faults=faults,
            )
        return cls(1, maps, tuple(shards))

    def shard_for(self, keyspace: str, key: tuple[Any, ...]) -> str:
        """Return the shard of a key, given as the tuple of its parts.

        :raises RoutingError: if it has none; see `Partitioner.bucket_of`.
        :raises ConfigurationError: if there is no such keyspace.
        """
        found = self._maps.get(keyspace)
        if found is None:
            raise self._no_keyspace(keyspace)
        return found.shard_for(key)

    def shards_of_values(self, keyspace: str, values: Sequence[Any]) -> Sequence[str | None] | None:
        """Return the shards of many keys of one part; see `KeyspaceMap.shards_of_values`.

        :raises ConfigurationError: if there is no such keyspace.
        """
        return self._keyspace(keyspace).shards_of_values(values)

    def bucket_for(self, keyspace: str, key: tuple[Any, ...]) -> int:
        """Return the bucket of a key; raises as `shard_for` does."""
        return self._keyspace(keyspace).bucket_for(key)

    def shards_of_id(self, keyspace: str, value: int) -> frozenset[str] | None:
        """Return the shards that may hold the row with a generated id, or None: any of them.

        :raises ConfigurationError: if there is no such keyspace.
        """
        return self._keyspace(keyspace).shards_of_id(value)

    def shards_within(self, keyspace: str, region: Region) -> frozenset[str] | None:
        """Return the shards that may hold rows with keys of a region, or None: any of them.

        :raises ConfigurationError: if there is no such keyspace.
        """
        return self._keyspace(keyspace).shards_within(region)

    def shards_of(self, keyspace: str) -> tuple[str, ...]:
        """Return the shards that hold buckets or pins of a keyspace, in the cluster's order.

        :raises ConfigurationError: if there is no such keyspace.
        """
        holders = self._holders.get(keyspace)
        if holders is None:
            raise self._no_keyspace(keyspace)
        return holders

    def holds_anything(self, shard: str) -> bool:
        """Whether any bucket or pin is placed on a shard."""
        return any(shard in _held(keyspace) for keyspace in self.keyspaces.values())

    def diff(self, other: ShardMap) -> tuple[BucketMove, ...]:
        """Return what has to move for this map to become ``other``.

        :raises ConfigurationError: if a keyspace is missing in one of the maps, or partitioned
            differently: its rows would have to be placed anew, not moved.
        """
        faults = [
            f"keyspace {name!r}"
            for name in dict.fromkeys([*self.keyspaces, *other.keyspaces])
            if name not in self.keyspaces
            or name not in other.keyspaces
            or self.keyspaces[name].partitioner != other.keyspaces[name].partitioner
        ]
        if faults:
            raise ConfigurationError(
                "the shard maps do not have the same keyspaces with the same partitioners",
                "compare maps that differ in placement and pins only",
                faults=faults,
            )
        return tuple(
            move
            for name, keyspace in self.keyspaces.items()
            for move in _moves(keyspace, other.keyspaces[name])
        )

    def moved(self, keyspace: str, bucket: int, to: str) -> ShardMap:
        """Return the next version of the map, in which a bucket lies on the shard ``to``.

        :raises UnknownShard: if the cluster has no such shard.
        :raises RoutingError: if the keyspace has no such bucket.
        :raises ConfigurationError: if there is no such keyspace.
        """
        found = self.keyspaces.get(keyspace)
        if found is None:
            raise self._no_keyspace(keyspace)
        if to not in self.shards:
            raise UnknownShard(
                f"the cluster has no shard {to!r}", f"use one of {', '.join(self.shards)}"
            )
        if not 0 <= bucket < len(found.placement):
            raise RoutingError(
                f"keyspace {keyspace!r} has no bucket {bucket}",
                f"use a number from 0 to {len(found.placement) - 1}",
            )
        placement = (*found.placement[:bucket], to, *found.placement[bucket + 1 :])
        changed = KeyspaceMap(found.name, found.partitioner, placement, found.pins)
        return ShardMap(self.version + 1, {**self.keyspaces, keyspace: changed}, self.shards)

    def _keyspace(self, name: str) -> KeyspaceMap:
        found = self._maps.get(name)
        if found is None:
            raise self._no_keyspace(name)
        return found

    def _no_keyspace(self, name: str) -> ConfigurationError:
        known = ", ".join(repr(known) for known in self.keyspaces) or "none"
        return ConfigurationError(
            f"there is no keyspace {name!r}", f"declare it with the cluster, or use one of: {known}"
        )


def _shards_of_pins(keyspace: KeyspaceMap) -> dict[int, frozenset[str]]:
    """The shards of pinned keys, by the bucket that the keys would have without their pins."""
    beside: dict[int, frozenset[str]] = {}
    for key, shard in keyspace.pins.items():
        bucket = _found(keyspace.bucket_for, key)
        if bucket is not None:  # else no id was made for it
            beside[bucket] = beside.get(bucket, frozenset()) | {shard}
    return beside


def _may_be_in(key: tuple[Any, ...], region: Region) -> bool:
    try:
        return is_in(key, region)
    except TypeError:  # a pin of another type than the column's, which cannot be compared
        return True


def _held(keyspace: KeyspaceMap) -> dict[str, None]:
    return dict.fromkeys([*keyspace.placement, *keyspace.pins.values()])


def _faults_of_shards(shards: Sequence[str]) -> list[str]:
    if not shards:
        return ["there are no shards"]
    faults = [fault for name in shards if (fault := name_fault("shard", name)) is not None]
    return faults + [
        f"shard {name!r} is named twice" for name, n in Counter(shards).items() if n > 1
    ]


def _moves(old: KeyspaceMap, new: KeyspaceMap) -> Iterator[BucketMove]:
    pairs = zip(old.placement, new.placement, strict=True)
    for bucket, (source, target) in enumerate(pairs):
        if source != target:
            yield BucketMove(old.name, bucket, source, target)
    keys = {identity_bytes(key): key for key in [*old.pins, *new.pins]}
    for key in keys.values():
        from_shard, to_shard = _found(old.shard_for, key), _found(new.shard_for, key)
        # A key without a bucket lies nowhere until it is pinned.
        if from_shard is not None and to_shard is not None and from_shard != to_shard:
            yield BucketMove(old.name, _found(old.bucket_for, key), from_shard, to_shard, pin=key)


def _found(ask: Callable[[tuple[Any, ...]], T], key: tuple[Any, ...]) -> T | None:
    try:
        return ask(key)
    except UnknownShard:
        return None
