"""Recovery of transactions in doubt, beside the bare COMMIT PREPARED of their parts by hand.

Each transaction was decided on the first shard and is prepared on two others, as a crash after the
decision leaves it. By hand means: somebody knows that all are to be committed, so that nothing is
listed, settled or checked; the statements go to both shards at once, one transaction after another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from sqlalchemy_shards.transactions.gid import TransactionGid

from .databases import driver_connections, filled_cluster, shard_urls
from .report import compared
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import psycopg

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

    from .report import Figure

MANY = 5_000
SHARDS = 3
OLD_XID = 3
LEFT_AT_ONCE = 100
BEGUN = "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION '{part}'; "
DECIDE = "INSERT INTO shards.decisions VALUES (%s, %s, 'commit', %s, now(), 1)"
FORGET = "DELETE FROM shards.decisions"


def measure(servers: PostgresServers, *, rounds: int) -> Iterator[Figure]:
    """With 1, 100 and 5,000 transactions in doubt.

    :param servers: which allow so many prepared transactions.
    """
    with (
        shard_urls(servers, SHARDS, prefix="recovered") as urls,
        filled_cluster(urls) as cluster,
        driver_connections(urls) as drivers,
    ):
        for driver in drivers.values():
            driver.autocommit = True
        crash = _Crash(drivers)
        for number, often in ((1, rounds), (100, max(3, rounds // 10)), (MANY, 1)):
            yield _recoveries(cluster, crash, number, rounds=often)


def _recoveries(cluster: Cluster, crash: _Crash, number: int, *, rounds: int) -> Figure:
    def crashed() -> None:
        crash.leave(number)

    times = take_turns(
        [
            Contender("by hand", crash.finish_by_hand, crashed, crash.forget),
            Contender("ours", cluster.recover, crashed, crash.forget),
        ],
        rounds=rounds,
        calls=1,
    )
    name = f"recovery of {number:,} transaction{'s' if number > 1 else ''}"
    return compared(name, times["ours"], times["by hand"], against="COMMIT PREPARED by hand")


class _Crash:
    """What a crash left."""

    def __init__(self, drivers: Mapping[str, psycopg.Connection]) -> None:
        self._deciding, *self._others = drivers.values()
        self._shards = [_identity(driver) for driver in drivers.values()]
        self._left: list[Sequence[str]] = []

    def leave(self, number: int) -> None:
        """Leave so many transactions prepared that are decided."""
        (cluster, decision), *others = self._shards
        participants = [str(shard) for _, shard in self._shards]
        gids = [TransactionGid(cluster, uuid4(), decision, OLD_XID) for _ in range(number)]
        parts = [[str(gid.part(shard)) for _, shard in others] for gid in gids]
        for start in range(0, number, LEFT_AT_ONCE):
            self._prepare(parts[start : start + LEFT_AT_ONCE])
        rows = [(str(gid), str(OLD_XID), participants) for gid in gids]
        with self._deciding.cursor() as cursor:
            cursor.executemany(DECIDE, rows)
        self._left += parts

    def _prepare(self, parts: Sequence[Sequence[str]]) -> None:
        """On both servers at once, many with one message."""
        for driver, theirs in zip(self._others, zip(*parts, strict=True), strict=True):
            begun = [BEGUN.format(part=part) for part in theirs]
            driver.pgconn.send_query("".join(begun).encode())
        for driver in self._others:
            while driver.pgconn.get_result() is not None:
                pass

    def finish_by_hand(self) -> None:
        """Commit what is prepared."""
        for parts in self._left:
            for driver, part in zip(self._others, parts, strict=True):
                driver.pgconn.send_query(f"COMMIT PREPARED '{part}'".encode())
            for driver in self._others:
                while driver.pgconn.get_result() is not None:
                    pass

    def forget(self) -> None:
        """Leave nothing to the next."""
        for driver in self._others:
            [left] = driver.execute("SELECT count(*) FROM pg_prepared_xacts").fetchall()
            if left != (0,):
                raise RuntimeError(f"{left[0]} parts are prepared still")
        self._deciding.execute(FORGET)
        self._left.clear()


def _identity(driver: psycopg.Connection) -> tuple[UUID, UUID]:
    query = "SELECT cluster_uuid, shard_uuid FROM shards.identity"
    [(cluster, shard)] = driver.execute(query).fetchall()
    return cluster, shard
