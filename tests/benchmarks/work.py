"""What the client does for one statement, counted: bytecodes and calls, not time.

Counts are the same however busy the machine is, so that a small change shows. They leave out what C
code does, and what it costs to come from cold caches.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from sqlalchemy_shards import ShardedSession

from .databases import keys_on, plain_engine
from .report import Figure
from .single_shard import CORE_BY_KEY, get, select_by_key
from .timing import nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import CodeType

    from sqlalchemy_shards import Cluster

CAN_COUNT = sys.version_info >= (3, 12)
WARM_UP = 50
CALLS = 10


@dataclass(frozen=True, slots=True)
class Work:
    """Bytecodes of one call, by the function that they are of, and how many functions began."""

    by_code: Counter[CodeType]
    functions: int

    @property
    def bytecodes(self) -> float:
        """All of them."""
        return sum(self.by_code.values()) / CALLS


def measure(cluster: Cluster, urls: Mapping[str, str]) -> Iterator[Figure]:
    """Reading by key within a transaction. Nothing on a Python before 3.12, which cannot count."""
    if not CAN_COUNT:
        return
    shard = next(iter(urls))
    key = keys_on(cluster, shard)[0]
    with ExitStack() as stack:
        engine = stack.enter_context(plain_engine(urls[shard]))
        plain = stack.enter_context(Session(engine))
        own = stack.enter_context(ShardedSession(cluster))
        core_plain = stack.enter_context(engine.connect())
        core_own = stack.enter_context(cluster.engine.connect())
        for name, read, base, ours in (
            ("get()", get, plain, own),
            ("ORM select by key", select_by_key, plain, own),
            ("Core select by key", _core, core_plain, core_own),
        ):
            base_work = counted(lambda read=read, base=base: read(base, key))
            own_work = counted(lambda read=read, ours=ours: read(ours, key))
            yield of_work(name, base_work, own_work)
            yield _added(name, base_work, own_work)


def _core(connection: Any, key: int) -> None:
    connection.execute(CORE_BY_KEY, {"key": key}).one()


def of_work(name: str, base: Work, own: Work, *, against: str = "plain") -> Figure:
    """Compare the bytecodes of two contenders."""
    ratio = own.bytecodes / base.bytecodes
    return Figure(f"{name}, bytecodes", against, base.bytecodes, own.bytecodes, ratio, ratio)


def _added(name: str, base: Work, own: Work) -> Figure:
    """What is added, as a tenth more of it would not show in the ratio of the whole."""
    added = own.bytecodes - base.bytecodes
    return Figure(f"{name}, bytecodes added", "100", 100, added, added / 100, added / 100)


def counted(call: Callable[[], Any], before: Callable[[], Any] = nothing) -> Work:
    """Count what ``call`` executes, `CALLS` times after `WARM_UP`.

    :param before: is not counted, before each of them.
    """
    for _ in range(WARM_UP):
        before()
        call()
    monitoring = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
    tool, events = monitoring.PROFILER_ID, monitoring.events
    by_code: Counter[CodeType] = Counter()
    starts: Counter[CodeType] = Counter()

    def on_instruction(code: CodeType, _: int) -> None:
        by_code[code] += 1

    def on_start(code: CodeType, _: int) -> None:
        starts[code] += 1

    monitoring.use_tool_id(tool, "benchmark")
    gc.disable()
    try:
        monitoring.register_callback(tool, events.INSTRUCTION, on_instruction)
        monitoring.register_callback(tool, events.PY_START, on_start)
        for _ in range(CALLS):
            before()
            monitoring.set_events(tool, events.INSTRUCTION | events.PY_START)
            call()
            monitoring.set_events(tool, 0)
    finally:
        gc.enable()
        monitoring.free_tool_id(tool)
    return Work(by_code, sum(starts.values()) // CALLS)
