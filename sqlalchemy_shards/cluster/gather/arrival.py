"""Rows of a gather while they arrive: counted over all shards together, stopped at the limit.

    statement of a shard -> COPY -> lines -> parts

Where there are too many, the statements are cancelled within a savepoint, so that the session's
transaction goes on: a limit is a refusal, and no failure. COPY is the quickest that PostgreSQL
offers, and its lines fill the workspace's tables as they are.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from psycopg.pq import TransactionStatus

from sqlalchemy_shards.cluster.enlistment.on_shards import on_shards
from sqlalchemy_shards.cluster.explain.observing import SHIP
from sqlalchemy_shards.cluster.limits import limit_exceeded
from sqlalchemy_shards.connections.copying import CopyOut
from sqlalchemy_shards.connections.written_values import with_values
from sqlalchemy_shards.execution.arrived import ArrivedRows, Sorter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.cluster.dispatch.work import Work
    from sqlalchemy_shards.cluster.enlistment.enlisted import EnlistedShard
    from sqlalchemy_shards.cluster.limits import GatherLimit
    from sqlalchemy_shards.errors import GatherLimitExceeded

    Row = tuple[Any, ...]

SAVEPOINT: Final = b"shards_arrival"


class Arrival:
    """What has arrived of the parts of one gather.

    :param names: what each part is called where the limit is exceeded.
    :param widths: how many values a row of each part has.
    """

    def __init__(self, names: Sequence[str], widths: Sequence[int], limit: GatherLimit) -> None:
        self.parts = [ArrivedRows() for _ in names]
        self._names = names
        self._widths = widths
        self._limit = limit

    def ship(self, connection: ClusterConnection, works: Sequence[Work], step: str = SHIP) -> None:
        """Add what the shards answer.

        :param works: each statement gives the number of a part, then a row of it.
        :param step: what it is called where it is observed.
        :raises GatherLimitExceeded: it is too much.
        """
        if not self.fits(connection, works, step):
            raise self._too_much()

    def fits(self, connection: ClusterConnection, works: Sequence[Work], step: str) -> bool:
        """Add what the shards answer; False: it was too much, and has been stopped."""
        on_shards(connection, works, self._read, step=step)
        return not self._is_too_much()

    def _read(self, work: Work, enlisted: EnlistedShard) -> Sorter:
        """Read the rows of one shard, all of them or until there are enough of all shards."""
        sorter = Sorter(self.parts, self._widths)
        if self._is_too_much():
            return sorter
        driver = enlisted.driver
        # Cut off where it is too much anyway.
        sql = f"{work.sql} LIMIT {self._limit.rows + 1}"
        commands = copy_commands(driver, with_values(driver, sql, work.parameters))
        is_whole = CopyOut(driver, sorter.add, self._is_too_much).run(commands)
        if not is_whole:
            undo_copy(driver)
        return sorter

    def _is_too_much(self) -> bool:
        limit = self._limit
        rows = size = 0
        for part in self.parts:
            rows += part.count
            size += part.size
        return rows > limit.rows or size > limit.bytes

    def _too_much(self) -> GatherLimitExceeded:
        named = zip(self._names, self.parts, strict=True)
        arrived = sorted(named, key=lambda each: (each[1].size, each[1].count), reverse=True)
        told = (f"{rows.count} rows ({rows.size} bytes) of {name!r}" for name, rows in arrived)
        return limit_exceeded(self._limit, "brought together", told)


def taken(
    arriving: Sequence[Iterator[Row]], works: Sequence[Work], limit: GatherLimit
) -> list[Row]:
    """The rows of all shards, which are to be put in order.

    :raises GatherLimitExceeded: there are too many.
    """
    rows: list[Row] = []
    told = []
    for work, each in zip(works, arriving, strict=True):
        before = len(rows)
        rows.extend(islice(each, limit.rows + 1 - before))
        told.append(f"{len(rows) - before} rows of {work.shard}")
        if len(rows) > limit.rows:
            raise limit_exceeded(limit, "put in order", reversed(told))
    return rows


def undo_copy(driver: Any) -> None:
    """Let the transaction go on after `copy_commands` that were cancelled."""
    if not driver.autocommit:
        driver.execute(b"ROLLBACK TO SAVEPOINT %s; RELEASE SAVEPOINT %s" % (SAVEPOINT, SAVEPOINT))


def copy_commands(driver: Any, select: bytes, options: bytes = b"") -> bytes:
    """The commands that read what a SELECT gives, in one round trip."""
    copy = b"COPY (%s\n) TO STDOUT %s" % (select, options)
    if driver.autocommit:
        return copy
    begin = b""
    if driver.info.transaction_status == TransactionStatus.IDLE:
        begin = _begin(driver)
    return b"%sSAVEPOINT %s; %s; RELEASE SAVEPOINT %s" % (begin, SAVEPOINT, copy, SAVEPOINT)


def _begin(driver: Any) -> bytes:
    """The command that begins a transaction, as psycopg does before a statement."""
    words = ["BEGIN"]
    if driver.isolation_level is not None:
        words.append(f"ISOLATION LEVEL {driver.isolation_level.name.replace('_', ' ')}")
    if driver.read_only is not None:
        words.append("READ ONLY" if driver.read_only else "READ WRITE")
    if driver.deferrable is not None:
        words.append("DEFERRABLE" if driver.deferrable else "NOT DEFERRABLE")
    return f"{' '.join(words)}; ".encode()
