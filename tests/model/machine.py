"""The coordinator's real protocol, step by step: each state that it can be in gets a number."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.transactions.protocol.coordinator import Command, Event, Stage
from sqlalchemy_shards.transactions.protocol.replies import Link
from sqlalchemy_shards.transactions.protocol.roles import Standing

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from sqlalchemy_shards.transactions.protocol.coordinator import Commit
    from tests.model.bounds import Bounds
    from tests.model.rules import Rules

Next = tuple[int, "tuple[Command, ...]"]


class Machines:
    """All states of the protocol that were reached, and where each event leads from them."""

    def __init__(self, rules: Rules, names: Sequence[str], bounds: Bounds) -> None:
        self._names = names
        self._states: list[Commit] = []
        self._numbers: dict[Hashable, int] = {}
        self._next: dict[tuple[int, Hashable], Next] = {}
        self._facets: list[tuple[Hashable, ...]] = []
        standings = [Standing(name, wrote=True) for name in names]
        standings[0] = standings[0]._replace(xid=bounds.early_xid)
        commit = rules.commit(standings, with_markers=bounds.with_markers)
        commands = commit.begin(dict.fromkeys(names, Link.OPEN))
        self.first: Next = (self._number(commit), tuple(commands))

    def handle(self, number: int, event: Event, key: Hashable) -> Next:
        """Return the next state and its commands; ``key`` stands for the event."""
        known = self._next.get((number, key))
        if known is None:
            commit = _copy(self._states[number])
            commands = tuple(commit.handle(event))
            known = self._next[number, key] = (self._number(commit), commands)
        return known

    def state(self, number: int) -> Commit:
        """Return the state, to look at."""
        return self._states[number]

    def is_over(self, number: int) -> bool:
        """Whether the outcome stands."""
        return self._states[number].stage is Stage.OVER

    def facets(self, number: int) -> tuple[Hashable, ...]:
        """Return what the state holds of no shard, and of each shard, without their names.

        Two states with the same facets, but for the order of the shards, go on alike.
        """
        return self._facets[number]

    def _number(self, commit: Commit) -> int:
        key = tuple((name, _frozen(value)) for name, value in sorted(vars(commit).items()))
        if key not in self._numbers:
            self._numbers[key] = len(self._states)
            self._states.append(commit)
            self._facets.append(self._split(commit))
        return self._numbers[key]

    def _split(self, commit: Commit) -> tuple[Hashable, ...]:
        shared: list[Hashable] = []
        own: dict[str, list[Hashable]] = {name: [] for name in self._names}
        for name, value in sorted(vars(commit).items()):
            if isinstance(value, dict):
                for shard in self._names:
                    own[shard].append(_nameless(value.get(shard)))
            elif isinstance(value, set):
                for shard in self._names:
                    own[shard].append(shard in value)
            else:
                shared.append((name, value))
        ids = (tuple(shared), *(tuple(own[shard]) for shard in self._names))
        return tuple(self._numbers.setdefault(("facet", each), len(self._numbers)) for each in ids)


def _copy(commit: Commit) -> Commit:
    copied = copy.copy(commit)
    for name, value in vars(commit).items():
        if isinstance(value, (dict, set)):
            setattr(copied, name, value.copy())
    return copied


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple(value.items())
    return frozenset(value) if isinstance(value, set) else value


def _nameless(value: Any) -> Hashable:
    return value._replace(shard="") if isinstance(value, Standing) else value
