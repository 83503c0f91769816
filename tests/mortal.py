"""Processes that a test may kill, and that may kill themselves.

They are forked from a server of processes that has imported everything: as quick as threads, and as
mortal as processes.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import ForkServerProcess

_IMPORTED = ["sqlalchemy_shards.cluster.dialect", "tests.faults.client", "tests.shards.distributed"]


def mortal(target: Callable[..., object], *arguments: Any) -> ForkServerProcess:
    """A process that calls ``target``, not started yet; it ends with this one at the latest."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    return context.Process(target=target, args=arguments, daemon=True)
