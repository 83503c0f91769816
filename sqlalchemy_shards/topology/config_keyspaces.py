"""The keyspaces of a configuration file.

What needs Python cannot be said there: a ``transform``, a partitioner of one's own, and keys that
TOML has no type for (UUID, Decimal, bytes) as bounds, list values or pins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy_shards.topology.config_section import Section
from sqlalchemy_shards.topology.keyspace import Keyspace
from sqlalchemy_shards.topology.names import name_fault
from sqlalchemy_shards.topology.partitioners import (
    CompositePartitioner,
    HashPartitioner,
    ListPartitioner,
    Partitioner,
    RangePartitioner,
)
from sqlalchemy_shards.topology.placement import place

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTITIONERS: Final = ("hash", "range", "list", "composite")


def read_keyspaces(section: Section, shards: Sequence[str]) -> dict[str, Keyspace]:
    """Return the keyspaces of the table ``[keyspaces]``, as far as they have no faults.

    :param shards: names of the cluster's shards; without them placements are not checked.
    """
    keyspaces = {}
    for name, table in section.sections():
        fault = name_fault("keyspace", name)
        if fault is not None:
            section.fault(name, fault)
        keyspace = _read_keyspace(table, shards)
        if keyspace is not None:
            keyspaces[name] = keyspace
    return keyspaces


def _read_keyspace(section: Section, shards: Sequence[str]) -> Keyspace | None:
    partitioner = _read_partitioner(section, PARTITIONERS)
    placement = section.value("placement", (dict,))
    pins = _read_pins(section)
    section.close()
    if partitioner is None:
        for shard in [*(placement or {}).values(), *pins.values()]:
            if shards and shard not in shards:
                section.faults.add(section.path, f"{shard!r} is no shard of the cluster")
        return None
    keyspace = section.tried("", lambda: Keyspace(partitioner, placement, pins))
    # The pins are at fault; the placement is checked all the same.
    keyspace = keyspace or Keyspace(partitioner, placement)
    for fault in place(keyspace, shards)[1] if shards else ():
        section.faults.add(section.path, fault)
    return keyspace


def _read_partitioner(section: Section, known: Sequence[str]) -> Partitioner | None:
    kind = section.required("partitioner", str) and section.choice("partitioner", known)
    if section.anything("partitioner") not in known:
        for key in ("buckets", "bounds", "values", "default", "parts"):
            section.anything(key)
        return None
    if kind == "hash":
        buckets = section.value("buckets", (int,), 1024)
        return section.tried("buckets", lambda: HashPartitioner(buckets or 0))
    if kind == "range":
        return _read_range(section)
    return _read_list(section) if kind == "list" else _read_composite(section)


def _read_range(section: Section) -> Partitioner | None:
    bounds = section.required("bounds", list)
    if bounds is None:
        return None
    return section.tried("bounds", lambda: RangePartitioner(bounds))


def _read_list(section: Section) -> Partitioner | None:
    values = section.required("values", dict)
    default = section.value("default", (str,))
    if values is None:
        return None
    return section.tried("values", lambda: ListPartitioner(values, default=default))


def _read_composite(section: Section) -> Partitioner | None:
    tables = section.required("parts", list) or []
    parts = []
    for number, table in enumerate(tables):
        part = Section(table, f"{section.path_of('parts')}[{number}]", section.faults)
        parts.append(_read_partitioner(part, PARTITIONERS[:-1]))
        part.close()
    if None in parts or "parts" not in section:
        return None
    return section.tried("parts", lambda: CompositePartitioner(*[p for p in parts if p]))


def _read_pins(section: Section) -> dict[Any, str]:
    pins: dict[Any, str] = {}
    for number, table in enumerate(section.value("pins", (list,)) or []):
        pin = Section(table, f"{section.path_of('pins')}[{number}]", section.faults)
        shard, key = pin.required("shard", str), pin.anything("key")
        pin.close()
        if key is None:
            pin.fault("key", "is missing")
        elif shard is not None:
            identity = tuple(key) if isinstance(key, list) else (key,)
            if identity in pins:
                pin.fault("key", "is pinned twice")
            pins[identity] = shard
    return pins
