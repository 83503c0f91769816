"""Whose turn it is: the order of shards, the canary, and what a failure stops. No I/O.

Invariants: no shard is given twice. While the canary runs, none is given beside it, and none after
it unless it succeeded and, where a pause was wanted, somebody went on. After a failure none is
given unless failures are to be passed over. After `stop` none is given. What runs goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

OnFailure = Literal["stop", "continue"]


class Schedule:
    """Gives shards their turns.

    :param shards: in their order.
    :param canary: goes first, alone; its failure ends everything.
    :param pauses: whether somebody has to say `go_on` when the canary has succeeded.
    """

    def __init__(
        self,
        shards: Sequence[str],
        *,
        canary: str | None = None,
        pauses: bool = False,
        on_failure: OnFailure = "stop",
    ) -> None:
        rest = [shard for shard in shards if shard != canary]
        self._waiting = ([] if canary is None else [canary]) + rest
        self._canary = canary
        self._pauses = pauses
        self._on_failure = on_failure
        self._running: set[str] = set()
        self.is_stopped = False
        self.is_paused = False

    @property
    def waiting(self) -> tuple[str, ...]:
        """The shards that had no turn."""
        return tuple(self._waiting)

    @property
    def running(self) -> frozenset[str]:
        """The shards whose turn it is."""
        return frozenset(self._running)

    @property
    def room(self) -> int:
        """How many more could be given now."""
        if self.is_stopped or self.is_paused or not self._waiting:
            return 0
        if self._canary is None:
            return len(self._waiting)
        return 0 if self._running else 1

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing will be given any more."""
        return not self._running and (self.is_stopped or not self._waiting)

    def next(self) -> str | None:
        """Give the next shard its turn, if there is one that may have it now."""
        if not self.room:
            return None
        shard = self._waiting.pop(0)
        self._running.add(shard)
        return shard

    def succeeded(self, shard: str) -> None:
        """A shard is where it should be."""
        self._running.remove(shard)
        if shard == self._canary:
            self._canary = None
            self.is_paused = self._pauses and bool(self._waiting) and not self.is_stopped

    def failed(self, shard: str) -> None:
        """A shard is not where it should be."""
        self._running.remove(shard)
        if shard == self._canary or self._on_failure == "stop":
            self.is_stopped = True

    def go_on(self) -> None:
        """Let the rest have their turns after the canary."""
        self.is_paused = False

    def stop(self) -> None:
        """Give no more turns."""
        self.is_stopped = True
        self.is_paused = False
