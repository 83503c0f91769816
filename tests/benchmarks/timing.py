"""Fair stopwatches: contenders take turns, and the garbage collector waits outside."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def nothing() -> None:
    """Do nothing, before or after a slice."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of doing a thing.

    :param call: is timed, `calls` times in a row.
    :param before: is not timed, once before them.
    :param after: is not timed, once after them.
    """

    name: str
    call: Callable[[], Any]
    before: Callable[[], Any] = nothing
    after: Callable[[], Any] = nothing


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds per call of one contender, one for each round."""

    rounds: tuple[float, ...]

    @property
    def least(self) -> float:
        """The round that the rest of the machine disturbed least."""
        return min(self.rounds)

    @property
    def typical(self) -> float:
        """The median round."""
        return median(self.rounds)

    def ratios_to(self, other: Times) -> list[float]:
        """Round by round, how many times as long as the other's."""
        return [own / its for own, its in zip(self.rounds, other.rounds, strict=True)]


def take_turns(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    calls: int,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, Times]:
    """Time every contender in every round, each round beginning with the next of them.

    A first round warms up caches and is not counted.

    :param clock: `time.process_time` leaves out what the servers do and what else runs.
    """
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    gc.collect()
    gc.freeze()
    try:
        for number in range(rounds + 1):
            gc.collect()
            first = number % len(contenders)
            for contender in (*contenders[first:], *contenders[:first]):
                taken = _slice(contender, calls, clock)
                if number > 0:
                    seconds[contender.name].append(taken)
    finally:
        gc.unfreeze()
    return {name: Times(tuple(taken)) for name, taken in seconds.items()}


def _slice(contender: Contender, calls: int, clock: Callable[[], float]) -> float:
    contender.before()
    gc.disable()
    try:
        started = clock()
        for _ in repeat(None, calls):
            contender.call()
        return (clock() - started) / calls
    finally:
        gc.enable()
        contender.after()
