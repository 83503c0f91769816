"""One statement on many shards: how long beyond the slowest of them.

Three kinds of waiting: a millisecond of network, passed on late by a process that shares the
machine; three of the servers' own, which cost nobody anything; and next to none, where all that is
seen is the client's work.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from .databases import plain_engine, reached_cluster
from .delay import delayed
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
AWAY_SECONDS = 0.001

# No row comes back: what is measured is the waiting, not the reading.
SLOW = select(SlowRow.__table__).where(SlowRow.__table__.c.name == "nobody")
IDLE = select(Account.__table__).where(Account.__table__.c.name == "nobody")


def measure(cluster: Cluster, urls: Mapping[str, str], *, rounds: int) -> Iterator[Figure]:
    """A statement that takes each shard 3 ms, and one that takes it next to nothing."""
    yield _measured(cluster, urls, SLOW, "3 ms each", rounds=rounds, has_goal=True)
    yield _measured(cluster, urls, IDLE, "idle", rounds=rounds, has_goal=False)


def measure_away(urls: Mapping[str, str], *, rounds: int) -> Iterator[Figure]:
    """The statement that takes a shard nothing, on servers `AWAY_SECONDS` away."""
    with delayed(urls, seconds=AWAY_SECONDS) as late, reached_cluster(late) as cluster:
        yield _measured(cluster, late, IDLE, "1 ms away", rounds=rounds, has_goal=True)


def _measured(
    cluster: Cluster,
    urls: Mapping[str, str],
    statement: Any,
    how: str,
    *,
    rounds: int,
    has_goal: bool,
) -> Figure:
    with ExitStack() as stack:
        own = stack.enter_context(cluster.engine.connect())
        plain = {
            name: stack.enter_context(stack.enter_context(plain_engine(url)).connect())
            for name, url in urls.items()
        }
        contenders = [
            Contender("scatter", _reading(own, statement)),
            *(Contender(shard, _reading(each, statement)) for shard, each in plain.items()),
        ]
        times = take_turns(contenders, rounds=rounds, calls=3)
    return _figure(f"scatter over {len(urls)} shards, {how}", times, has_goal=has_goal)


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
        goal_ratio=limit / (slowest.typical * 1e6) if has_goal else None,
    )
