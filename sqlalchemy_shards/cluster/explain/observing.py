"""Being told what a cluster connection decides and does, as ``explain()`` is.

Without an observer a statement on one shard pays for one look at an attribute, and each fan-out,
enlisted shard and step at the workspace for one more.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards.cluster.dispatch.work import Dispatch

T = TypeVar("T")

CONNECT, RUN, SHIP, MERGE = "connect", "run", "ship", "merge"
"""Names of steps: a shard is enlisted, it runs a statement, it ships rows; answers become one."""

KEYS, SHIP_AGAIN = "keys", "ship again"
"""Before a shard ships it tells keys; and it ships once more, as a key came that nobody had."""

AT_WORKSPACE = "workspace"
"""Name of what the workspace does."""


class Observer(Protocol):
    """Is told of each decision, and of each step."""

    def on_dispatch(self, decided: Dispatch) -> None:
        """What was decided; it is performed next."""

    def on_step(self, name: str, shard: str | None, seconds: float, answer: Any) -> None:
        """A step was done; one on several shards at once is told shard by shard.

        :param shard: None: it was not done on a shard.
        :param seconds: how long it took, by the clock on the wall.
        :param answer: a driver's cursor, rows, or what has no rows.
        """


def observed(observer: Observer | None, name: str, shard: str | None, step: Callable[[], T]) -> T:
    """Do a step, and tell the observer, if there is one."""
    if observer is None:
        return step()
    started = perf_counter()
    answer = step()
    observer.on_step(name, shard, perf_counter() - started, answer)
    return answer
