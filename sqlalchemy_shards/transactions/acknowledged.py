"""Transactions that every participant has confirmed, whose decision rows may be removed.

- Bounded: `GIDS_MAX` for each decision shard; what does not fit is forgotten, and its row removed
  by recovery after `decision_retention`.
- A gid is handed out once. One that gets lost on the way costs a row that stays a while.
"""

from __future__ import annotations

import threading
from collections import deque

GIDS_MAX = 1024
BATCH = 32


class Acknowledged:
    """Finished transactions by decision shard, waiting for their rows to be removed. Thread-safe.

    :param batch: how many must have gathered before `due` hands them out.
    """

    def __init__(self, *, batch: int = BATCH) -> None:
        self._batch = batch
        self._lock = threading.Lock()
        self._gids: dict[str, deque[str]] = {}

    def add(self, decision_shard: str, gid: str) -> None:
        """Remember that every participant of ``gid`` has confirmed that it committed."""
        with self._lock:
            waiting = self._gids.setdefault(decision_shard, deque())
            if len(waiting) < GIDS_MAX:
                waiting.append(gid)

    def due(self, decision_shard: str) -> tuple[str, ...]:
        """Hand out what waits for this shard, if it is worth a statement."""
        waiting = self._gids.get(decision_shard)
        if waiting is None or len(waiting) < self._batch:
            return ()
        return self.take(decision_shard)

    def take(self, decision_shard: str) -> tuple[str, ...]:
        """Hand out all that waits for this shard."""
        with self._lock:
            return tuple(self._gids.pop(decision_shard, ()))
