"""The sources that decide a statement's route, found from the edges between its sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conditions import all_of
from .sources import ShardedSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

    from .conditions import Parameter
    from .scopes import Occurrence


def choose_roots(
    occurrences: Sequence[Occurrence],
    edges: Set[tuple[int, int]],
    primary_keys: Mapping[int, tuple[Parameter, ...]],
    unions: Sequence[Sequence[Set[int]]] = (),
) -> tuple[tuple[ShardedSource, ...], str | None]:
    """Return the sources that decide the route, and why several shards could not answer as one.

    One root that reaches all other sources decides alone: their rows lie beside its own. Where it
    stands in the outermost FROM list, not filled by an outer join, every row of the answer holds
    exactly one of its rows, so the shards' answers add up. So it is with the roots of the members
    of a UNION ALL, taken together.

    :param unions: the sources of the members of each UNION ALL in the outermost FROM list.
    """
    if not occurrences:
        return (), None
    reach = [_reachable(index, edges) for index in range(len(occurrences))]
    everything = set(range(len(occurrences)))

    def source(index: int) -> ShardedSource:
        occurrence = occurrences[index]
        inherited = [
            condition
            for other in sorted(everything)
            if index in reach[other]
            for condition in occurrences[other].conditions
        ]
        return ShardedSource(
            name=occurrence.name,
            keyspace=occurrence.sharded.keyspace,
            width=len(occurrence.families),
            condition=all_of(inherited),
            table=occurrence.table,
            primary_key=primary_keys.get(index),
            stands_for_rows=occurrence.is_eligible_root,
        )

    universal = [index for index in sorted(everything) if reach[index] == everything]
    for index in universal:
        if occurrences[index].is_eligible_root:
            return (source(index),), None
    for members in unions:
        roots = [_root_of(member, occurrences, reach) for member in members]
        if None not in roots and everything == set().union(*members):
            return tuple(source(index) for index in roots if index is not None), None
    names = ", ".join(repr(occurrence.name) for occurrence in occurrences)
    if universal:
        return (source(universal[0]),), f"no row of {names} stands for each row of the answer"
    return (
        tuple(source(index) for index in sorted(everything)),
        f"{names} are not joined on the whole shard key, so that rows of several shards meet",
    )


def _root_of(
    member: Set[int], occurrences: Sequence[Occurrence], reach: Sequence[Set[int]]
) -> int | None:
    return next(
        (
            index
            for index in sorted(member)
            if occurrences[index].is_eligible_root and reach[index] >= member
        ),
        None,
    )


def _reachable(start: int, edges: Set[tuple[int, int]]) -> set[int]:
    reached, pending = {start}, [start]
    while pending:
        here = pending.pop()
        for one, other in edges:
            if one == here and other not in reached:
                reached.add(other)
                pending.append(other)
    return reached
