"""One statement on many shards: how long beyond the slowest of them."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from .databases import plain_engine
from .report import Figure
from .tables import Account, SlowRow
from .timing import Contender, Times, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Connection

    from sqlalchemy_shards import Cluster

SHARD_COUNTS = (4, 16, 64)
RATIO_MAX = 1.2
PER_SHARD_US = 50.0

# No row comes back: what is measured is the waiting, not the reading.
SLOW = select(SlowRow.__table__).where(SlowRow.__table__.c.name == "nobody")
IDLE = select(Account.__table__).where(Account.__table__.c.name == "nobody")


def measure(cluster: Cluster, urls: Mapping[str, str], *, rounds: int) -> Iterator[Figure]:
    """A statement that takes each shard 3 ms, and one that takes it next to nothing."""
    count = len(urls)
    with ExitStack() as stack:
        own = stack.enter_context(cluster.engine.connect())
        plain = {
            name: stack.enter_context(stack.enter_context(plain_engine(url)).connect())
            for name, url in urls.items()
        }
        for name, statement, has_goal in (("3 ms", SLOW, True), ("idle", IDLE, False)):
            contenders = [
                Contender("scatter", _reading(own, statement)),
                *(Contender(shard, _reading(each, statement)) for shard, each in plain.items()),
            ]
            times = take_turns(contenders, rounds=rounds, calls=3 if has_goal else 5)
            yield _figure(f"scatter over {count} shards, {name}", times, has_goal=has_goal)


def _reading(connection: Connection, statement: Any) -> Callable[[], Any]:
    return lambda: connection.execute(statement).all()


def _figure(name: str, times: dict[str, Times], *, has_goal: bool) -> Figure:
    own = times.pop("scatter")
    # The slowest shard by its median, not the slowest measurement: that would be the noise.
    slowest = max(times.values(), key=lambda shard: shard.typical)
    limit = RATIO_MAX * slowest.typical * 1e6 + PER_SHARD_US * len(times)
    own_us = own.typical * 1e6
    return Figure(
        name,
        "slowest shard, plain Connection",
        slowest.typical * 1e6,
        own_us,
        median(own.ratios_to(slowest)),
        own.least / slowest.least,
        f"<= {limit:,.0f} us" if has_goal else "",
        own_us <= limit if has_goal else None,
        {
            "limit_us": limit,
            "per_shard_beyond_slowest_us": (own_us - slowest.typical * 1e6) / len(times),
        },
    )
