"""An observer that hands on each decision of a cluster connection."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from sqlalchemy_shards.cluster.dispatch.work import Dispatch


class Decisions:
    """Calls a function with each decision, before it is performed."""

    def __init__(self, function: Callable[[Dispatch], None]) -> None:
        self.on_dispatch = function

    def on_step(self, name: str, shard: str | None, seconds: float, answer: Any) -> None:
        pass


@contextmanager
def told(connection: Connection, function: Callable[[Dispatch], None]) -> Iterator[None]:
    """Within the block, the function is told what the connection decides."""
    driver: Any = connection.connection.driver_connection
    driver.observer = Decisions(function)
    try:
        yield
    finally:
        driver.observer = None
