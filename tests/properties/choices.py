"""Choices that a seed makes, that can be made again, and that can be made simpler.

Zero is the simplest choice everywhere: the first of several, no rather than yes. A run of choices
that fails is therefore shrunk by leaving choices out and by making them smaller.
"""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")


class Choices:
    """Choices made at random, or the recorded ones again.

    :param seed: decides everything.
    :param recorded: choices to be made again; behind their end each is the simplest.
    """

    def __init__(self, seed: str = "", recorded: Sequence[int] | None = None) -> None:
        self._random = Random(seed)
        self._recorded = recorded
        self.made: list[int] = []

    def below(self, count: int) -> int:
        """A number from 0 to ``count - 1``."""
        if self._recorded is None:
            chosen = self._random.randrange(count)
        elif len(self.made) < len(self._recorded):
            chosen = min(self._recorded[len(self.made)], count - 1)
        else:
            chosen = 0
        self.made.append(chosen)
        return chosen

    def pick(self, options: Sequence[T]) -> T:
        """One of several; the first is the simplest."""
        return options[self.below(len(options))]

    def chance(self, percent: int) -> bool:
        """Yes, so often."""
        return self.below(100) >= 100 - percent

    def some(self, options: Sequence[T], low: int, high: int) -> list[T]:
        """Several, each at most once; fewer where there are not so many."""
        left = list(options)
        count = low + self.below(high - low + 1)
        return [left.pop(self.below(len(left))) for _ in range(min(count, len(left)))]


def shrink(
    made: Sequence[int], fails: Callable[[list[int]], bool], *, seconds: float = 60.0
) -> list[int]:
    """Simpler choices that fail as well, as simple as can be found in time."""
    best = list(made)
    deadline = time.monotonic() + seconds
    is_better = True
    while is_better:
        is_better = False
        for simpler in _simpler(best):
            if time.monotonic() > deadline:
                return best
            if fails(simpler):
                best, is_better = simpler, True
                break
    return best


def _simpler(made: list[int]) -> Iterator[list[int]]:
    for size in (64, 32, 16, 8, 4, 2, 1):
        for start in range(0, len(made), max(1, size // 2)):
            shorter = made[:start] + made[start + size :]
            if len(shorter) < len(made):
                yield shorter
            flat = made[:start] + [0] * len(made[start : start + size]) + made[start + size :]
            if flat != made:
                yield flat
    for place, choice in enumerate(made):
        if choice > 1:
            yield [*made[:place], choice // 2, *made[place + 1 :]]
