"""The sources that decide a statement's route, found from the edges between its sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conditions import all_of
from .sources import ShardedSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

    from .conditions import Parameter
    from .scopes import Source


def choose_roots(
    sources: Sequence[Source],
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
    if not sources:
        return (), None
    reach = [reachable(index, edges) for index in range(len(sources))]
    everything = set(range(len(sources)))

    def source(index: int) -> ShardedSource:
        return _as_root(index, sources, reach, primary_keys)

    universal = [index for index in sorted(everything) if reach[index] == everything]
    for index in universal:
        if sources[index].is_eligible_root:
            return (source(index),), None
    for members in unions:
        roots = [_root_of(member, sources, reach) for member in members]
        if None not in roots and everything == set().union(*members):
            return tuple(source(index) for index in roots if index is not None), None
    names = ", ".join(repr(each.name) for each in sources)
    if universal:
        return (source(universal[0]),), f"no row of {names} stands for each row of the answer"
    return (
        tuple(source(index) for index in sorted(everything)),
        f"{names} are not joined on the whole shard key, so that rows of several shards meet",
    )


def root_of_target(
    sources: Sequence[Source],
    edges: Set[tuple[int, int]],
    primary_keys: Mapping[int, tuple[Parameter, ...]],
) -> tuple[ShardedSource, set[int]]:
    """The source that is written, which was found first, and the sources that lie beside it."""
    reach = [reachable(index, edges) for index in range(len(sources))]
    return _as_root(0, sources, reach, primary_keys), reach[0]


def _as_root(
    index: int,
    sources: Sequence[Source],
    reach: Sequence[Set[int]],
    primary_keys: Mapping[int, tuple[Parameter, ...]],
) -> ShardedSource:
    """A source, with what is known of its keys from all from which it is reached."""
    here = sources[index]
    inherited = [
        condition
        for other, reached in enumerate(reach)
        if index in reached
        for condition in sources[other].conditions
    ]
    return ShardedSource(
        name=here.name,
        keyspace=here.sharded.keyspace,
        width=len(here.families),
        condition=all_of(inherited),
        table=here.table,
        primary_key=primary_keys.get(index),
        stands_for_rows=here.is_eligible_root,
    )


def _root_of(member: Set[int], sources: Sequence[Source], reach: Sequence[Set[int]]) -> int | None:
    return next(
        (
            index
            for index in sorted(member)
            if sources[index].is_eligible_root and reach[index] >= member
        ),
        None,
    )


def reachable(start: int, edges: Set[tuple[int, int]]) -> set[int]:
    """Where edges lead from a start, by way of others too; the start itself is one of them."""
    reached, pending = {start}, [start]
    while pending:
        here = pending.pop()
        for one, other in edges:
            if one == here and other not in reached:
                reached.add(other)
                pending.append(other)
    return reached
