"""In what shards differ from each other. Pure.

- What most shards have is taken for right; where as many have the one as the other, what the global
  shard has, and else the first shard.
- Of a table that a shard does not have, only the table is told missing.
- Global tables belong on the global shard only. What else it has alone and belongs to no table,
  as the type of a column of theirs, is told as a note.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy_shards.cluster.readiness.report import shards_by, told_by_shard

from .looking import Thing
from .report import Difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .looking import Defined

_MAY_BE_RENAMED: Final = frozenset({"constraint", "index", "trigger", "rule", "policy"})
_ITSELF: Final = frozenset({"", "type", "definition"})
"""Facts that are what a thing is, so that they need no name in a sentence."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of a comparison."""

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def compare(
    seen: Mapping[str, Defined], global_shard: str, global_tables: Iterable[str] | None
) -> Compared:
    """Compare shards with each other.

    :param seen: what is defined on each, in the cluster's order.
    :param global_tables: names of those that belong on the global shard only; None: nobody knows,
        so that each that it has alone is taken for one.
    """
    alike = _groups(seen)
    if len(alike) < 2:
        return Compared((), ())
    return _Comparison(alike, tuple(seen), global_shard, global_tables).done()


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Shards on which everything is the same."""

    shards: tuple[str, ...]
    things: Mapping[Thing, str]

    def has(self, table: str) -> bool:
        return Thing("table", table, table) in self.things


def _groups(seen: Mapping[str, Defined]) -> list[_Group]:
    shards: dict[int, list[str]] = {}
    for shard, defined in seen.items():
        shards.setdefault(id(defined), []).append(shard)
    return [_Group(tuple(names), seen[names[0]].things) for names in shards.values()]


class _Comparison:
    def __init__(
        self,
        groups: Sequence[_Group],
        order: Sequence[str],
        global_shard: str,
        global_tables: Iterable[str] | None,
    ) -> None:
        self._groups = groups
        self._order = order
        self._global_shard = global_shard
        self._global_tables = None if global_tables is None else frozenset(global_tables)
        # In the order of those that most shards have.
        by_size = sorted(groups, key=lambda group: -len(group.shards))
        self._things = list(dict.fromkeys(thing for group in by_size for thing in group.things))
        self._told: set[tuple[Thing, tuple[str, ...]]] = set()
        self._notes: list[str] = []

    def done(self) -> Compared:
        differences = [
            difference
            for thing in self._things
            if (values := self._values(thing)) is not None
            for difference in self._of_thing(thing, values)
        ]
        self._notes += _orders_of_columns(self._groups)
        return Compared(tuple(differences), tuple(self._notes))

    def _values(self, thing: Thing) -> dict[str | None, list[_Group]] | None:
        """What groups have of it; None: all the same, or it is no matter of theirs."""
        groups = self._groups
        if thing.table is not None and thing.kind != "table":
            groups = [group for group in groups if group.has(thing.table)]
        values: dict[str | None, list[_Group]] = {}
        for group in groups:
            if (thing, group.shards) not in self._told:
                values.setdefault(group.things.get(thing), []).append(group)
        return values if len(values) > 1 else None

    def _of_thing(
        self, thing: Thing, values: Mapping[str | None, Sequence[_Group]]
    ) -> Iterator[Difference]:
        if thing.table is not None and self._is_global(thing.table):
            yield from self._of_global_table(thing)
            return
        if thing.table is None and self._is_only_global(thing):
            self._notes.append(f"{thing} is on {self._global_shard} only, the global shard")
            return
        right = self._right(values)
        for value, groups in values.items():
            if value == right:
                continue
            if value is None and (others := self._renamed(thing, right, values[right], groups)):
                groups = [group for group in groups if group not in others]
                yield from _renamings(thing, others)
            shards = self._in_order(groups)
            if shards:
                yield from _differences(thing, shards, value, right)

    def _is_global(self, table: str) -> bool:
        if self._global_tables is not None:
            return table in self._global_tables
        return self._is_only_global(Thing("table", table, table))

    def _is_only_global(self, thing: Thing) -> bool:
        """Whether of all shards the global one has it."""
        having = [
            shard for group in self._groups if thing in group.things for shard in group.shards
        ]
        return having == [self._global_shard]

    def _of_global_table(self, thing: Thing) -> Iterator[Difference]:
        """What belongs to a table of the global shard's is no matter of the others."""
        if thing.kind != "table":
            return
        groups = [group for group in self._groups if thing in group.things]
        stray = tuple(shard for shard in self._in_order(groups) if shard != self._global_shard)
        if stray:
            subject = f"the global {thing}"
            yield Difference(stray, "shards", subject, "place", "here", self._global_shard)

    def _right(self, values: Mapping[str | None, Sequence[_Group]]) -> str | None:
        def weight(value: str | None) -> tuple[int, bool]:
            shards = [shard for group in values[value] for shard in group.shards]
            return len(shards), self._global_shard in shards

        return max(values, key=weight)

    def _renamed(
        self,
        thing: Thing,
        facts: str | None,
        right: Sequence[_Group],
        lacking: Sequence[_Group],
    ) -> dict[_Group, Thing]:
        """Groups that have the same by another name, which those that are right do not have."""
        found: dict[_Group, Thing] = {}
        if thing.kind not in _MAY_BE_RENAMED:
            return found
        for group in lacking:
            for other, its_facts in group.things.items():
                if (
                    (other.kind, other.table, its_facts) == (thing.kind, thing.table, facts)
                    and (other, group.shards) not in self._told
                    and not any(other in each.things for each in right)
                ):
                    found[group] = other
                    self._told.add((other, group.shards))
                    break
        return found

    def _in_order(self, groups: Iterable[_Group]) -> tuple[str, ...]:
        wanted = {shard for group in groups for shard in group.shards}
        return tuple(shard for shard in self._order if shard in wanted)


def _renamings(thing: Thing, others: Mapping[_Group, Thing]) -> Iterator[Difference]:
    by_name = shards_by(
        {shard: other.name for group, other in others.items() for shard in group.shards}
    )
    for name, shards in by_name.items():
        yield Difference(tuple(shards), "shards", str(thing), "name", name, thing.name)


def _differences(
    thing: Thing, shards: tuple[str, ...], value: str | None, right: str | None
) -> Iterator[Difference]:
    if value is None or right is None:
        found, expected = (None if each is None else "there" for each in (value, right))
        yield Difference(shards, "shards", str(thing), None, found, expected)
        return
    mine, others = json.loads(value), json.loads(right)
    for fact in dict.fromkeys((*others, *mine)):
        found, expected = mine.get(fact), others.get(fact)
        if found != expected:
            aspect = None if fact in _ITSELF else fact
            if aspect is None and (found is None or expected is None):
                aspect = fact
            yield Difference(shards, "shards", str(thing), aspect, found, expected)


def _orders_of_columns(groups: Sequence[_Group]) -> Iterator[str]:
    """Which tables have the same columns in another order on some shards."""
    orders: dict[str, dict[str, tuple[str, ...]]] = {}
    for group in groups:
        columns: dict[str, list[str]] = {}
        for thing in group.things:
            if thing.kind == "column" and thing.table is not None:
                columns.setdefault(thing.table, []).append(thing.name)
        for table, names in columns.items():
            there = orders.setdefault(table, {})
            there.update(dict.fromkeys(group.shards, tuple(names)))
    for table, there in orders.items():
        shards = shards_by(there)
        if len(shards) > 1 and len(set(map(frozenset, shards))) == 1:
            told = {", ".join(order): where for order, where in shards.items()}
            yield f"the columns of table {table} stand in another order: {told_by_shard(told)}"
