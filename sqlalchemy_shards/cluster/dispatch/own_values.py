"""Each shard is asked for its own values only, of a list that a shard key is compared with.

A row on a shard has a key that lives there, so ``key IN (...)`` can be true of it by no other
value. Where the comparison is one of the conditions that every row must meet, the others may be
left out; it then matches the same rows on each shard.

Invariants: a value stays wherever it may live, NULL and what lives nowhere included; no list is cut
to nothing; a parameter that the SQL names twice is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy_shards import _compat
from sqlalchemy_shards.routing.conditions import AllOf, IdIn, PartIn, PartsIn, regions
from sqlalchemy_shards.routing.router import shards_of_regions

from .values import ExecutionValues

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sqlalchemy.sql.compiler import SQLCompiler

    from sqlalchemy_shards.routing.conditions import KeyCondition
    from sqlalchemy_shards.routing.route import Route
    from sqlalchemy_shards.routing.sources import StatementSources
    from sqlalchemy_shards.topology.shard_map import ShardMap


class KeyList(NamedTuple):
    """A list parameter that keys are compared with.

    :param condition: the comparison, which every row must meet.
    """

    name: str
    keyspace: str
    width: int
    condition: KeyCondition


def key_lists(sources: StatementSources, compiled: SQLCompiler) -> tuple[KeyList, ...]:
    """The list parameters of a statement that can be given to each shard in part."""
    if len(sources.roots) != 1 or compiled.literal_execute_params:
        return ()
    (root,) = sources.roots
    return tuple(
        KeyList(name, root.keyspace, root.width, condition)
        for condition in _conjuncts(root.condition)
        if (name := _list_name(condition)) is not None
        and _compat.times_expanded(compiled, name) == 1
    )


def own_values(
    lists: Collection[KeyList], values: ExecutionValues, route: Route, shard_map: ShardMap
) -> Mapping[str, Mapping[str, list[Any]]]:
    """Shard -> parameter -> the values for it, where these are fewer than all."""
    own: dict[str, dict[str, list[Any]]] = {}
    for key_list in lists:
        listed = values.parameters.get(key_list.name)
        if not isinstance(listed, list):
            continue
        of_shards = _spread(key_list, listed, values, shard_map)
        anywhere = of_shards.pop(None, [])
        for shard in route.shards:
            kept = of_shards.get(shard, []) + anywhere
            if kept and len(kept) < len(listed):
                own.setdefault(shard, {})[key_list.name] = kept
    return own


def _spread(
    key_list: KeyList, listed: list[Any], values: ExecutionValues, shard_map: ShardMap
) -> dict[str | None, list[Any]]:
    """Shard -> the values that may live there; None: those that live nowhere, or cannot be told."""
    found: dict[str | None, list[Any]] = {}
    keys = _keys(key_list, listed, values)
    homes = None if keys is None else shard_map.shards_of_values(key_list.keyspace, keys)
    if homes is not None:
        for value, home in zip(listed, homes, strict=True):
            try:
                found[home].append(value)
            except KeyError:
                found[home] = [value]
        return found
    for value in listed:
        for home in _homes(key_list, value, values, shard_map) or (None,):
            found.setdefault(home, []).append(value)
    return found


def _keys(key_list: KeyList, listed: list[Any], values: ExecutionValues) -> Sequence[Any] | None:
    """The shard key of each value of a list, None: it has to be looked for value by value."""
    condition = key_list.condition
    if key_list.width > 1:
        return None
    if isinstance(condition, PartIn):
        parameter, keys = condition.parameter, listed
    elif isinstance(condition, PartsIn) and len(condition.parts) == 1:
        (parameter,) = condition.parameters
        keys = [row[parameter.item] for row in listed]
    else:
        return None
    plain = None if parameter.compared_as else values.plain(parameter, keys)
    return plain if plain is not None and len(plain) == len(listed) else None


def _homes(
    key_list: KeyList, value: Any, values: ExecutionValues, shard_map: ShardMap
) -> frozenset[str]:
    """The shards where a value may live; none: it lives nowhere, or it cannot be told."""
    alone = ExecutionValues({key_list.name: [value]}, values.processors)
    found = regions(key_list.condition, key_list.width, alone)
    known = shards_of_regions(key_list.keyspace, found, shard_map)
    return frozenset() if known is None else known[0]


def _conjuncts(condition: KeyCondition) -> Iterator[KeyCondition]:
    if isinstance(condition, AllOf):
        for each in condition.conditions:
            yield from _conjuncts(each)
    else:
        yield condition


def _list_name(condition: KeyCondition) -> str | None:
    if isinstance(condition, PartsIn):
        return condition.parameters[0].name
    if isinstance(condition, PartIn) or (isinstance(condition, IdIn) and condition.is_list):
        return condition.parameter.name
    return None
