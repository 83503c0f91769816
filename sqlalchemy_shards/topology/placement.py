"""Which shard each bucket is placed on: spread evenly by default, or as the user says.

Invariants of `spread`, which no release may change (rows lie where it put them):

- it is a pure function of the number of buckets and the ordered list of shard names;
- no shard has more than one bucket more than another;
- with a shard appended, exactly ``bucket_count // len(shards)`` buckets change place, all of them
  to the new shard. Putting a shard anywhere but at the end moves more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.topology.keyspace import shown_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy_shards.topology.keyspace import Keyspace
    from sqlalchemy_shards.topology.partitioners import Partitioner

FAULTY_BUCKETS_SHOWN: Final = 5
"""How many runs of unplaced buckets a fault names before it only counts them."""


def spread(bucket_count: int, shards: Sequence[str]) -> tuple[str, ...]:
    """Return the shard of each bucket, spread evenly over ``shards``.

    The shards are added one after the other. The first takes every bucket. Each further one takes
    from the others, always their highest-numbered buckets, so that it has
    ``bucket_count // number_of_shards``; what then remains over is left with the last ones, one
    bucket each, of those that had more.

    >>> spread(8, ["a", "b", "c"])
    ('a', 'a', 'a', 'c', 'b', 'b', 'b', 'c')

    :raises ConfigurationError: without shards, or with one named twice.
    """
    if not shards or len(set(shards)) != len(shards):
        raise ConfigurationError(
            "buckets can only be spread over one or more different shards",
            "name each shard of the cluster once",
        )
    held = [list(range(bucket_count))]
    for _ in shards[1:]:
        held.append(_give_up(held, bucket_count))
    placement = [""] * bucket_count
    for shard, buckets in zip(shards, held, strict=True):
        for bucket in buckets:
            placement[bucket] = shard
    return tuple(placement)


def place(keyspace: Keyspace, shards: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the shard of each bucket of a keyspace, and every fault of its placement and pins.

    The placement is empty if it has a fault, or the shards have.
    """
    pin_faults = [
        f"{shown_key(key)} is pinned to {shard!r}, which is no shard of the cluster"
        for key, shard in (keyspace.pins or {}).items()
        if shard not in shards
    ]
    if keyspace.placement is not None:
        placement, faults = resolve_placement(keyspace.partitioner, keyspace.placement, shards)
        return placement, faults + pin_faults
    if not shards or len(set(shards)) != len(shards):
        return (), pin_faults
    return spread(keyspace.partitioner.bucket_count, shards), pin_faults


def resolve_placement(
    partitioner: Partitioner, placement: Mapping[Any, str], shards: Sequence[str]
) -> tuple[tuple[str, ...], list[str]]:
    """Return the shard of each bucket as the user placed them, and every fault that was found.

    A key of ``placement`` is a bucket's number, its label, or a run of numbered ones (``"0-511"``,
    ``"west/0-15"``). The placement is empty if there is a fault.
    """
    faults: list[str] = []
    placed: dict[int, str] = {}
    numbers = {partitioner.bucket_label(n): n for n in range(partitioner.bucket_count)}
    for key, shard in placement.items():
        if shard not in shards:
            faults.append(f"{key!r} is placed on {shard!r}, which is no shard of the cluster")
        buckets = buckets_named(key, numbers, partitioner.bucket_count)
        if buckets is None:
            faults.append(f"there is no bucket {key!r}")
            continue
        twice = sorted(bucket for bucket in buckets if bucket in placed)
        if twice:
            faults.append(f"{key!r}: {describe_buckets(partitioner, twice)} placed twice")
        placed.update(dict.fromkeys(buckets, shard))
    missing = [n for n in range(partitioner.bucket_count) if n not in placed]
    if missing:
        faults.append(f"{describe_buckets(partitioner, missing)} not placed on any shard")
    return ((), faults) if faults else (tuple(placed[n] for n in sorted(placed)), faults)


def describe_buckets(partitioner: Partitioner, buckets: Sequence[int]) -> str:
    """Return the start of a sentence about some buckets, ending in "is" or "are"."""
    runs = [label for label, _ in bucket_runs(partitioner, ((b, "") for b in buckets))]
    shown = ", ".join(repr(run) for run in runs[:FAULTY_BUCKETS_SHOWN])
    rest = ", ..." if len(runs) > FAULTY_BUCKETS_SHOWN else ""
    if len(buckets) == 1:
        return f"bucket {shown} is"
    return f"buckets {shown}{rest} ({len(buckets)} in all) are"


def bucket_runs(
    partitioner: Partitioner, buckets: Iterable[tuple[int, str]]
) -> list[tuple[str, str]]:
    """Return label and shard of each run of adjacent buckets on one shard.

    Buckets that differ only in a number at the end of their labels form a run: ``"0-511"``,
    ``"west/0-15"``. Others stand alone.
    """
    runs: list[tuple[str, int, int, str]] = []
    for bucket, shard in buckets:
        prefix, number = _split_label(partitioner.bucket_label(bucket))
        if runs and number >= 0:
            last_prefix, first, last, last_shard = runs[-1]
            if (last_prefix, last + 1, last_shard) == (prefix, number, shard) and last >= 0:
                runs[-1] = (prefix, first, number, shard)
                continue
        runs.append((prefix, number, number, shard))
    return [(_run_label(prefix, first, last), shard) for prefix, first, last, shard in runs]


def _give_up(held: list[list[int]], bucket_count: int) -> list[int]:
    """Take a fair share for one more shard out of the lists in ``held``."""
    quota, extra = divmod(bucket_count, len(held) + 1)
    taken: list[int] = []
    for buckets in reversed(held):
        keeps_extra = extra > 0 and len(buckets) > quota
        keep = quota + keeps_extra
        extra -= keeps_extra
        taken += buckets[keep:]
        del buckets[keep:]
    return sorted(taken)


def buckets_named(key: Any, numbers: Mapping[str, int], bucket_count: int) -> list[int] | None:
    """Return the buckets that a number, a label or a run of labels names, or None: there are none.

    :param numbers: the bucket of each label.
    """
    if type(key) is int:
        return [key] if 0 <= key < bucket_count else None
    if not isinstance(key, str):
        return None
    if key in numbers:
        return [numbers[key]]
    if key.isascii() and key.isdigit():
        return buckets_named(_bounded_int(key), {}, bucket_count)
    match = re.fullmatch(r"(|.*/)([0-9]+)-([0-9]+)", key, re.DOTALL)
    if match is None:
        return None
    first, last = _bounded_int(match[2]), _bounded_int(match[3])
    if not 0 <= first <= last < bucket_count:
        return None
    run = [numbers.get(f"{match[1]}{number}", -1) for number in range(first, last + 1)]
    if match[1] == "" and -1 in run:  # labels are not numbers here, so the numbers are buckets
        return list(range(first, last + 1))
    return None if -1 in run else run


def _bounded_int(digits: str) -> int:
    """An int, or -1 where it has more digits than any bucket."""
    return int(digits) if len(digits) <= 9 else -1


def _split_label(label: str) -> tuple[str, int]:
    """The label's part up to the last slash and the number behind it, or the label and -1."""
    prefix, slash, number = label.rpartition("/")
    if number.isascii() and number.isdigit() and len(number) <= 9 and number == str(int(number)):
        return prefix + slash, int(number)
    return label, -1


def _run_label(prefix: str, first: int, last: int) -> str:
    if first < 0:
        return prefix
    return f"{prefix}{first}" if first == last else f"{prefix}{first}-{last}"
