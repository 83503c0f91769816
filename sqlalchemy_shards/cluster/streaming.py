"""Rows that are fetched as they are read: server-side cursors of every shard, or of the workspace.

The shards' next rows are fetched at once from all that run out of them, so that a merge seldom
waits for one shard after the other. What is kept of one shard is never more than twice what the
application asks for at a time.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg

from .enlistment.on_shards import on_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import PoolProxiedConnection

    from .connection import ClusterConnection
    from .dispatch.work import Work
    from .enlistment.enlisted import EnlistedShard

    Row = tuple[Any, ...]

ROWS_PER_FETCH: Final = 1000
"""How many rows are fetched at once where nothing else is asked for."""

ROWS_MIN: Final = 100
"""How many rows are worth the way to a shard, if so many are asked for."""


def close_cursor(cursor: Any) -> None:
    """Close a driver's cursor, also where that cannot be said to the server."""
    try:
        cursor.close()
    except BaseException:
        abandon_cursor(cursor)
        raise


def abandon_cursor(cursor: Any) -> None:
    """Close a driver's cursor without a word to the server, where it ends with its transaction."""
    if isinstance(cursor, StreamedAnswer):
        cursor.abandon()
    else:
        psycopg.Cursor.close(cursor)


class StreamedShards:
    """The rows of the shards' server-side cursors.

    :param cursors: one for each work.
    :param if_lost: called where a shard's connection was lost.
    :ivar size: how many rows the application asks for at a time.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        works: Sequence[Work],
        cursors: Sequence[Any],
        if_lost: Callable[[], None],
    ) -> None:
        self.size = ROWS_PER_FETCH
        self._connection = connection
        self._works = works
        self._cursors = {work.shard: cursor for work, cursor in zip(works, cursors, strict=True)}
        self._kept: dict[str, deque[Row]] = {work.shard: deque() for work in works}
        self._open = {work.shard for work in works}
        self._if_lost = if_lost

    def rows(self) -> list[Iterator[Row]]:
        """The rows of each shard."""
        return [self._rows_of(work.shard) for work in self._works]

    def _rows_of(self, shard: str) -> Iterator[Row]:
        kept = self._kept[shard]
        while True:
            while kept:
                yield kept.popleft()
            if shard not in self._open:
                return
            self._fetch()

    def _fetch(self) -> None:
        """Fetch more rows of the shards that have none left, or few."""
        few = self.size // (2 * len(self._works))
        due = [
            work
            for work in self._works
            if work.shard in self._open and len(self._kept[work.shard]) <= few
        ]
        count = max(-(-self.size // len(due)), min(self.size, ROWS_MIN))

        def fetch(work: Work, _: EnlistedShard) -> list[Row]:
            return self._cursors[work.shard].fetchmany(count)  # type: ignore[no-any-return]

        try:
            fetched = on_shards(self._connection, due, fetch)
        except psycopg.Error:
            if self._connection.broken:
                # SQLAlchemy closes no cursor of a connection that it throws away.
                with suppress(psycopg.Error):
                    self._if_lost()
            raise
        for work, rows in zip(due, fetched, strict=True):
            self._kept[work.shard].extend(rows)
            if len(rows) < count:
                self._open.discard(work.shard)


class Lease:
    """A connection of a pool, until it is given back.

    :ivar driver: its driver connection, in a transaction from its first statement on.
    """

    def __init__(self, pooled: PoolProxiedConnection) -> None:
        self._pooled: PoolProxiedConnection | None = pooled
        self.driver: psycopg.Connection[Any] = pooled.driver_connection  # type: ignore[assignment]
        try:
            if self.driver.autocommit:
                # What was touched is known by locks, which a transaction keeps to its end.
                self.driver.autocommit = False
        except BaseException as error:
            self.end(error)
            raise

    def end(self, error: BaseException | None = None) -> None:
        """Give it back, rolled back; after an interruption, or where it is lost, it is closed."""
        pooled, self._pooled = self._pooled, None
        if pooled is None:
            return
        try:
            if error is not None and (not isinstance(error, Exception) or self.driver.closed):
                pooled.invalidate()
        finally:
            pooled.close()

    def abandon(self) -> None:
        """Close it, without waiting for anything."""
        pooled, self._pooled = self._pooled, None
        if pooled is not None:
            pooled.invalidate()

    def leave_to_parent(self) -> None:
        """Let go of it in a forked child, without a word to the server."""
        if self._pooled is not None:
            self._pooled.detach()
            self._pooled = None


class StreamedAnswer:
    """The workspace's server-side cursor, whose transaction is open until it is closed.

    :param check: looks at the connection after each fetch, before a row is handed out.
    :param perform: runs a function so that it can be cancelled.
    :ivar lease: of the connection.
    """

    rowcount = -1

    def __init__(
        self,
        cursor: Any,
        check: Callable[[Any], None],
        perform: Callable[[Any, Callable[[], list[Row]]], list[Row]],
        lease: Lease,
    ) -> None:
        self.connection = cursor.connection
        self.description = cursor.description
        self._cursor = cursor
        self._check = check
        self._perform = perform
        self.lease = lease

    def fetchone(self) -> Row | None:
        """The next row, or None."""
        return next(iter(self.fetchmany(1)), None)

    def fetchmany(self, size: int) -> list[Row]:
        """The next rows, as many as asked for if there are so many."""
        return self._fetched(lambda: self._cursor.fetchmany(size))

    def fetchall(self) -> list[Row]:
        """All rows that are left."""
        return self._fetched(self._cursor.fetchall)

    def __iter__(self) -> Iterator[Row]:
        while rows := self.fetchmany(ROWS_PER_FETCH):
            yield from rows

    def _fetched(self, fetch: Callable[[], list[Row]]) -> list[Row]:
        def work() -> list[Row]:
            rows = fetch()
            # A function may read a table only now.
            self._check(self.connection)
            return rows

        try:
            return self._perform(self.connection, work)
        except BaseException as error:
            with suppress(psycopg.Error):
                close_cursor(self._cursor)
            self.lease.end(error)
            raise

    def close(self) -> None:
        """Give the connection back; what was done there is rolled back."""
        try:
            with suppress(psycopg.Error):
                close_cursor(self._cursor)
        finally:
            self.lease.end()

    def abandon(self) -> None:
        """Close the connection, without waiting for anything."""
        abandon_cursor(self._cursor)
        self.lease.abandon()
