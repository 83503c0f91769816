"""Edges between tables whose rows lie beside one row of a third, or beside each other's.

A joined child without shard-key columns lies beside its base's row, which the base's primary key
names on one shard only. So two rows that name the same base row, one of which may be that row
itself, are on one shard, whatever their shard key is.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy_shards.models.distribution import Sharded, anchor_of, distribution_of, identity_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from sqlalchemy import Table

    from .reading import Reading
    from .scopes import Place


class _Named(NamedTuple):
    """A column that is a part of what names a row of an anchor."""

    anchor: str
    part: int
    width: int


def edges_by_anchor(reading: Reading, own: Set[int]) -> Iterator[tuple[int, int]]:
    """The pairs of sources of which the second one's rows lie beside the first one's.

    :param own: the sources that conditions restrict here.
    """
    parts: dict[tuple[int, int], set[_Named]] = {}
    for columns in reading.equal_classes():
        places = [place for column in columns for place in reading.places(column)]
        for left, right in combinations(places, 2):
            named = _named(left, reading)
            if left.source == right.source or named is None or named != _named(right, reading):
                continue
            for one, other in ((left, right), (right, left)):
                if other.is_direct and other.source in own and not one.is_alternative:
                    parts.setdefault((one.source, other.source), set()).add(named)
    for pair, found in parts.items():
        if any(sum(each[0] == named.anchor for each in found) == named.width for named in found):
            yield pair


def anchor_named(table: Table, sharded: Sharded) -> Table | None:
    """The table beside whose rows a table's rows lie, or itself where others lie beside its own."""
    if sharded.beside is not None:
        return anchor_of(table, sharded)  # type: ignore[no-any-return]
    tables = table.metadata.tables.values()
    said = [each for other in tables if isinstance(each := distribution_of(other), Sharded)]
    has_others = any(each.beside is not None and each.beside.table == table.key for each in said)
    return table if has_others else None


def _named(place: Place, reading: Reading) -> _Named | None:
    occurrence = reading.occurrences[place.source]
    identity = identity_of(occurrence.table, occurrence.sharded)
    if place.column not in identity:
        return None
    anchor = anchor_of(occurrence.table, occurrence.sharded)
    return _Named(anchor.key, identity.index(place.column), len(identity))
