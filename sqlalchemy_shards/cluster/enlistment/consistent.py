"""Beginning a transaction whose snapshots show every distributed transaction wholly or not at all.

Snapshots of all its shards are taken at once, and compared shard by shard; those that lag are taken
anew, until none does (`transactions.consistency` decides, `transactions.snapshots` speaks to each
shard, decision 14 says why that is right). Nothing of the application has run before that.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from psycopg import IsolationLevel

from sqlalchemy_shards.cluster.dispatch.work import Work
from sqlalchemy_shards.connections.event_loop import sleep
from sqlalchemy_shards.errors import ConfigurationError, SnapshotsDiffer, UnsupportedStatement
from sqlalchemy_shards.events import SnapshotsTaken
from sqlalchemy_shards.transactions import fail_points, snapshots
from sqlalchemy_shards.transactions.consistency import (
    Lag,
    Watch,
    comparisons,
    pause_seconds,
    to_take_anew,
)

from .on_shards import on_shards

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.transactions.snapshots import PeerLag, Snapshot

    from .enlisted import EnlistedShard


def check_can_begin(connection: ClusterConnection, shards: Sequence[str]) -> None:
    """Refuse what cannot be consistent.

    :raises UnsupportedStatement: the transaction has begun, or has another isolation level.
    :raises ConfigurationError: the cluster has consistent reads switched off.
    """
    if connection.enlisted:
        raise UnsupportedStatement(
            f"the transaction has begun on shards {', '.join(map(repr, connection.enlisted))}, "
            "whose snapshots may differ",
            "call begin_consistent() before anything else in the transaction",
        )
    level = connection.isolation_level
    if connection.autocommit or level is IsolationLevel.SERIALIZABLE:
        name = "AUTOCOMMIT" if connection.autocommit else "SERIALIZABLE"
        raise UnsupportedStatement(
            f"a consistent transaction is REPEATABLE READ, and {name} was asked for",
            "use an engine, session or connection with another isolation level",
        )
    if len(shards) > 1 and not connection.cluster.consistent_reads:
        raise switched_off()


def check_is_among(shard: str, shards: Collection[str]) -> None:
    """Refuse a shard whose snapshot was not compared with the others.

    :raises UnsupportedStatement: it is not among ``shards``.
    """
    if shard not in shards:
        raise UnsupportedStatement(
            f"shard {shard!r} is not among those of the consistent transaction, which are "
            f"{', '.join(map(repr, sorted(shards)))}",
            "name it in begin_consistent(shards=...), or name none to have all",
        )


def switched_off() -> ConfigurationError:
    """What to raise where a cluster's transactions leave nothing to compare snapshots by."""
    return ConfigurationError(
        "consistent reads over several shards are switched off in this cluster",
        "create it with consistent_reads=True, in every process, and run cluster.bootstrap()",
    )


def checked(shard: str, snapshot: Snapshot | None) -> Snapshot:
    """Return a shard's snapshot, if it can be compared with others.

    :raises ConfigurationError: it cannot.
    """
    if snapshot is None or not snapshot.has_markers:
        raise _not_recorded(shard)
    if snapshot.is_standbys:
        raise ConfigurationError(
            f"the URL of shard {shard!r} leads to a standby, whose snapshots cannot be compared",
            "let it lead to the primary",
            shard=shard,
        )
    return snapshot


def take_snapshots(connection: ClusterConnection, shards: Sequence[str]) -> None:
    """Enlist the shards with snapshots that show the same.

    :raises SnapshotsDiffer: they did not within ``Timeouts.consistent_seconds``.
    """
    cluster = connection.cluster
    started = time.monotonic()
    taken: dict[str, Snapshot] = {}
    watch, anew, attempt = Watch(), tuple(shards), 0
    while True:
        attempt += 1
        taken.update(zip(anew, _take(connection, anew), strict=True))
        lags = _compare(connection, taken, anew)
        seconds = time.monotonic() - started
        if not lags:
            break
        if seconds > cluster.timeouts.consistent_seconds:
            _give_up(connection, lags, attempt, seconds)
        cluster.hooks.reach(fail_points.SNAPSHOTS_LAG)
        for gid in watch.overdue(lags, time.monotonic()):
            with suppress(ConfigurationError):  # of a later release, which is left to it
                cluster.recover(gid=gid)
        anew = to_take_anew(shards, lags, attempt)
        sleep(pause_seconds(attempt))
    cluster.hooks.publish(SnapshotsTaken(cluster.name, tuple(shards), attempt, seconds))


def _take(connection: ClusterConnection, shards: Sequence[str]) -> list[Snapshot]:
    known = set(connection.enlisted)

    def perform(work: Work, enlisted: EnlistedShard) -> Snapshot:
        if connection.cluster.identities.of(work.shard) is None:
            raise _not_recorded(work.shard)
        connection.cluster.hooks.reach(fail_points.BEFORE_SNAPSHOT, work.shard)
        if work.shard in known and connection.is_untold:
            snapshot = snapshots.take_again(enlisted.driver)
        else:
            if work.shard in known:
                connection.begin_again(enlisted)
            snapshot = snapshots.take(enlisted.driver)
        return checked(work.shard, snapshot)

    return on_shards(connection, [Work(name, "", None) for name in shards], perform)


def _compare(
    connection: ClusterConnection, taken: dict[str, Snapshot], anew: Collection[str]
) -> list[Lag]:
    peers = comparisons(list(taken), anew)
    names = {str(snapshot.shard): name for name, snapshot in taken.items()}

    def perform(work: Work, enlisted: EnlistedShard) -> list[PeerLag]:
        return snapshots.compare(enlisted.driver, [taken[each] for each in peers[work.shard]])

    found = on_shards(connection, [Work(name, "", None) for name in peers], perform)
    return list(dict.fromkeys(Lag(names[lag.peer], lag.gid) for each in found for lag in each))


def _not_recorded(shard: str) -> ConfigurationError:
    return ConfigurationError(
        f"shard {shard!r} has not recorded that transactions leave markers there",
        "switch consistent reads on in every process, then run cluster.bootstrap()",
        shard=shard,
    )


def _give_up(
    connection: ClusterConnection, lags: Sequence[Lag], attempts: int, seconds: float
) -> NoReturn:
    shards = tuple(dict.fromkeys(lag.shard for lag in lags))
    gid = next((lag.gid for lag in lags if lag.gid is not None), None)
    connection.fail(shards[0])
    raise SnapshotsDiffer(
        f"shards {', '.join(map(repr, shards))} do not show yet what others show, after {attempts}"
        f" attempts in {seconds:.1f} s"
        + ("" if gid is None else f": the transaction {gid!r} is committed and not finished there"),
        "run it again; if it stays so, let cluster.recover() finish the transaction, and raise"
        " Timeouts.consistent_seconds if commits are only frequent",
        shards=shards,
        gid=gid,
    )
