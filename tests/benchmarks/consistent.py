"""What consistent reads cost those who commit, and those who read while others commit.

The storm is made by hand, by libpq's calls in processes of their own, so that as little as possible
of the machine goes into it: two participants each, with the statements and markers of the protocol.
It is paced; how many commits a second it came to stands in the figure's name.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from contextlib import ExitStack, contextmanager
from itertools import cycle
from statistics import mean
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from psycopg.pq import ExecStatus
from sqlalchemy import text

from sqlalchemy_shards import ShardedSession
from sqlalchemy_shards.events import SnapshotsTaken
from sqlalchemy_shards.transactions.gid import TransactionGid
from sqlalchemy_shards.transactions.markers import insert_text, markers_of

from .commit import CHANGE, away
from .databases import driver_connections, filled_cluster, keys_on, reached_cluster, shard_urls
from .report import compared
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

    from .report import Figure

PARTICIPANTS = (2, 4, 8)
RATES = (0, 100, 1_000)
"""Distributed commits a second that the storm tries to come to."""

STORM_PROCESSES = 2
SHARDS_READ = 4

ON_ALL = text("SELECT 1").execution_options(shard="*")


def measure(servers: PostgresServers, *, rounds: int) -> Iterator[Figure]:
    """Commits with and without markers; then reads."""
    count = max(PARTICIPANTS)
    with ExitStack() as stack:
        plain_urls = stack.enter_context(shard_urls(servers, count))
        marked_urls = stack.enter_context(shard_urls(servers, count, prefix="marked"))
        plain = stack.enter_context(filled_cluster(plain_urls))
        marked = stack.enter_context(filled_cluster(marked_urls, consistent_reads=True))
        for number in PARTICIPANTS:
            yield _commits(plain, marked, number, rounds=rounds)
        plain_away = stack.enter_context(away(plain_urls))
        marked_away = stack.enter_context(away(marked_urls))
        plain = stack.enter_context(reached_cluster(plain_away))
        marked = stack.enter_context(reached_cluster(marked_away, consistent_reads=True))
        for number in PARTICIPANTS:
            yield _commits(plain, marked, number, rounds=rounds, how=", servers 1 ms away")
    with (
        shard_urls(servers, SHARDS_READ, prefix="read") as urls,
        filled_cluster(urls, consistent_reads=True) as cluster,
    ):
        for rate in RATES:
            yield _reads(cluster, urls, rate, rounds=rounds)


def _commits(plain: Cluster, marked: Cluster, count: int, *, rounds: int, how: str = "") -> Figure:
    contenders = []
    with ExitStack() as stack:
        for name, cluster in (("without", plain), ("with", marked)):
            names = list(cluster.shards)[:count]
            keys = {each: cycle(keys_on(cluster, each)) for each in names}
            own = stack.enter_context(cluster.engine.connect())
            before = lambda own=own, keys=keys: _change(own, keys)  # noqa: E731
            contenders.append(Contender(name, own.commit, before))
        times = take_turns(contenders, rounds=rounds, calls=1)
    return compared(
        f"commit of {count} participants, with markers{how}",
        times["with"],
        times["without"],
        against="without",
    )


def _change(own: Connection, keys: Mapping[str, Iterator[int]]) -> None:
    for each in keys.values():
        own.execute(CHANGE, {"key": next(each)})


def _reads(cluster: Cluster, urls: Mapping[str, str], rate: int, *, rounds: int) -> Figure:
    taken: list[SnapshotsTaken] = []
    cluster.hooks.listen(SnapshotsTaken, taken.append)
    with (
        _storm(cluster, urls, rate) as commits,
        ShardedSession(cluster) as own,
        ShardedSession(cluster) as base,
    ):
        consistently = Contender("consistently", own.begin_consistent, after=own.rollback)
        plainly = Contender("plainly", lambda: _begin(base), after=base.rollback)
        del taken[:]
        began, before = time.monotonic(), commits()
        times = take_turns([plainly, consistently], rounds=rounds, calls=1)
        attained = (commits() - before) / (time.monotonic() - began)
    attempts = [each.attempts for each in taken]
    return compared(
        f"consistent read of {SHARDS_READ} shards, {attained:.0f} commits/s (of {rate}): "
        f"{mean(attempts):.2f} attempts, at most {max(attempts)}",
        times["consistently"],
        times["plainly"],
        against="REPEATABLE READ, SELECT 1",
    )


def _begin(session: ShardedSession) -> None:
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    session.execute(ON_ALL).all()


# -- the storm --


@contextmanager
def _storm(cluster: Cluster, urls: Mapping[str, str], rate: int) -> Iterator[Any]:
    """Let processes commit while this runs; gives a function that tells how many there were."""
    context = multiprocessing.get_context("spawn")
    counts = [context.Value("q", 0) for _ in range(STORM_PROCESSES)]
    uuids = {name: cluster.identities.of(name) for name in urls}
    known = {name: (each.cluster_uuid.hex, each.shard_uuid.hex) for name, each in uuids.items()}  # type: ignore[union-attr]
    keys = {name: keys_on(cluster, name) for name in urls}
    storms = [
        context.Process(
            target=_commit_on_and_on,
            args=(dict(urls), known, keys, rate / STORM_PROCESSES, count),
            daemon=True,
        )
        for count in counts
    ]
    if rate:
        for storm in storms:
            storm.start()
        while not all(count.value for count in counts):
            time.sleep(0.01)
    try:
        yield lambda: sum(count.value for count in counts)
    finally:
        if rate:
            for count in counts:
                count.value = -(2**40)
            for storm in storms:
                storm.join()


def _commit_on_and_on(
    urls: Mapping[str, str],
    uuids: Mapping[str, tuple[str, str]],
    keys: Mapping[str, list[int]],
    rate: float,
    count: Any,
) -> None:
    with driver_connections(urls) as drivers:
        began, done = time.monotonic(), 0
        while count.value >= 0:
            _commit_by_hand(drivers, uuids, keys)
            done += 1
            if count.value >= 0:
                count.value = done
            time.sleep(max(0.0, began + done / rate - time.monotonic()))


def _commit_by_hand(
    drivers: Mapping[str, Any],
    uuids: Mapping[str, tuple[str, str]],
    keys: Mapping[str, list[int]],
) -> None:
    names = sorted(random.sample(sorted(drivers), 2))
    deciding, other = (drivers[name] for name in names)
    change = "BEGIN; UPDATE accounts SET balance = balance + 1 WHERE id = {}"
    for name in names:  # in one order, so that none waits for another in a circle
        _at_once({drivers[name]: change.format(random.choice(keys[name])).encode()})
    asked = _at_once(dict.fromkeys((deciding, other), b"SELECT pg_current_xact_id()::text"))
    xids = {name: int(asked[drivers[name]]) for name in names}
    shards = {name: UUID(uuids[name][1]) for name in names}
    gid = TransactionGid(UUID(uuids[names[0]][0]), uuid4(), shards[names[0]], xids[names[0]])
    markers = markers_of({shards[name]: xids[name] for name in names})
    part = gid.part(shards[names[1]])
    decision = (
        "INSERT INTO shards.decisions (gid, decision_xid, outcome, participants, format)"
        f" VALUES ('{gid}', '{gid.decision_xid}', 'commit', '{{}}', 1); "
    ).encode()
    _at_once(
        {
            deciding: decision + insert_text(markers[shards[names[0]]], gid),
            other: insert_text(markers[shards[names[1]]], gid)
            + f"; PREPARE TRANSACTION '{part}'".encode(),
        }
    )
    _at_once({deciding: b"COMMIT"})
    _at_once({other: f"COMMIT PREPARED '{part}'".encode()})


def _at_once(statements: Mapping[Any, bytes]) -> dict[Any, str]:
    """Send everything, then read everything; the last value that each server gave."""
    for driver, statement in statements.items():
        driver.pgconn.send_query(statement)
    values = {}
    for driver in statements:
        while (result := driver.pgconn.get_result()) is not None:
            if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
                raise RuntimeError(result.get_error_message())
            if result.status == ExecStatus.TUPLES_OK:
                values[driver] = (result.get_value(0, 0) or b"").decode()
    return values
