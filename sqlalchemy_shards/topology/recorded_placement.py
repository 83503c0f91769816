"""Where the buckets were when rows were first put there, held against where they are said to be.

A placement that is spread by default follows the list of shards, so a shard more or less in the
configuration would look for rows where they are not. What a database has recorded tells.

- Values are compared by the labels of their buckets. Pins, the values listed under a label and what
  a transform computes are not recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.topology.list_partitioner import ListPartitioner
from sqlalchemy_shards.topology.partitioners import CompositePartitioner
from sqlalchemy_shards.topology.placement import buckets_named, describe_buckets
from sqlalchemy_shards.topology.range_partitioner import RangePartitioner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy_shards.topology.partitioners import Partitioner
    from sqlalchemy_shards.topology.shard_map import KeyspaceMap, ShardMap

FAULTS_SHOWN: Final = 3
"""How many runs of buckets of one keyspace are named."""


def record_of(shard_map: ShardMap) -> dict[str, Any]:
    """What is written down of a shard map: by keyspace its partitioner, and runs of buckets."""
    return {
        name: {
            "partitioner": keyspace.partitioner.describe(),
            "buckets": dict(keyspace.ranges()),
        }
        for name, keyspace in shard_map.keyspaces.items()
    }


def placement_faults(shard_map: ShardMap, record: Mapping[str, Any]) -> list[str]:
    """In what a shard map contradicts a record: one sentence each; none where it only adds to it.

    Keyspaces that only one of them has are no contradiction.
    """
    now = record_of(shard_map)
    return [
        f"keyspace {name!r}: {fault}"
        for name, keyspace in shard_map.keyspaces.items()
        if name in record and record[name] != now[name]
        for fault in _faults(keyspace, record[name])
    ]


def added_to(record: Mapping[str, Any], shard_map: ShardMap) -> dict[str, Any]:
    """A record with what a shard map that does not contradict it knows beyond it."""
    added = dict(record)
    for name, known in record_of(shard_map).items():
        before = record.get(name, {"buckets": {}})["buckets"]
        added[name] = {**known, "buckets": {**before, **known["buckets"]}}
    return added


def _faults(keyspace: KeyspaceMap, recorded: Mapping[str, Any]) -> list[str]:
    partitioner = keyspace.partitioner
    before, now = recorded["partitioner"], partitioner.describe()
    # What may grow says more of itself then, but its kind stays, which stands first.
    known = slice(before.find(" ")) if _may_grow(partitioner) else slice(None)
    if before[known] != now[known]:
        return [f"it was {before}, and is {now}"]
    faults = []
    numbers = {partitioner.bucket_label(n): n for n in range(partitioner.bucket_count)}
    for label, shard in recorded["buckets"].items():
        buckets = buckets_named(label, numbers, partitioner.bucket_count)
        if buckets is None:
            # Another process may know more values or bounds than this one.
            if not _may_grow(partitioner):
                faults.append(f"bucket {label!r}, recorded on {shard}, is gone")
            continue
        moved = [bucket for bucket in buckets if keyspace.placement[bucket] != shard]
        if moved:
            target = ", ".join(sorted({keyspace.placement[bucket] for bucket in moved}))
            faults.append(
                f"{describe_buckets(partitioner, moved)} recorded on {shard}, not on {target}"
            )
    rest = len(faults) - FAULTS_SHOWN
    return faults if rest <= 0 else [*faults[:FAULTS_SHOWN], f"and {rest} more runs of buckets"]


def _may_grow(partitioner: Partitioner) -> bool:
    """Whether it may get further buckets and keep the keys of those that it has."""
    if isinstance(partitioner, CompositePartitioner):
        return any(_may_grow(part) for part in partitioner.parts)
    return isinstance(partitioner, (ListPartitioner, RangePartitioner))
