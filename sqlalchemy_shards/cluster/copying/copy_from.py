"""Copies rows into the shards: read once, placed, written and sent, some at a time.

Whatever interrupts it (a bad row, an error of the caller's iterable or of a server, Ctrl-C) lets
all COPYs fail; the transaction has failed then, if any had begun, as after a failed statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg

from sqlalchemy_shards import _compat
from sqlalchemy_shards.connections.event_loop import give_turn

from .failures import of_row, told_by_row
from .sending import Sending
from .target import CopyTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from sqlalchemy_shards.cluster.connection import ClusterConnection

    from .names import ColumnNames
    from .rows import RowSource

ROWS_FIRST: Final = 64
"""How many rows are read before their size is known."""

ROWS_MAX: Final = 2000
"""How many rows are read at a time."""

BATCH_BYTES: Final = 1 << 20
"""How many bytes are meant to be written at a time."""


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What a copy has stored.

    :param rows: how many rows; of a reference table, on each shard.
    :param rows_by_shard: how many on each shard that took part.
    """

    rows: int
    rows_by_shard: Mapping[str, int]


def copy_from(
    connection: Connection,
    names: ColumnNames,
    source: RowSource,
    progress: Callable[[int], object] | None = None,
) -> CopyResult:
    """Copy rows into a table, as `ShardedSession.copy_from` says.

    :param connection: of the cluster's engine, in its transaction.
    :param progress: called with the number of rows that were taken so far.
    """
    cluster_connection: ClusterConnection = connection.connection.driver_connection  # type: ignore[assignment]
    cluster_connection.check_usable()
    if not source.keys:
        return CopyResult(0, {})
    target = CopyTarget(
        connection, names.table, source.keys, names.constants, is_text=source.is_text
    )
    sending = Sending(cluster_connection, target)
    try:
        _send_all(source, target, sending, progress)
        stored = sending.end()
    except BaseException as error:
        sending.abort()
        if isinstance(error, psycopg.Error):
            _raise(connection, error, sending)
        raise
    rows = max(stored.values(), default=0) if target.is_every_copy else sum(stored.values())
    return CopyResult(rows, stored)


def _send_all(
    source: RowSource,
    target: CopyTarget,
    sending: Sending,
    progress: Callable[[int], object] | None,
) -> None:
    taken, count = 0, ROWS_FIRST
    while given := _taken(source, count, sending):
        written = sending.written
        try:
            sending.send(target.prepared(given), taken + 1)
        except psycopg.Error:
            raise
        except Exception as error:
            raise _refusal(error, given, target, sending, taken) from None
        taken += len(given)
        size = (sending.written - written) // len(given)
        count = max(1, min(ROWS_MAX, BATCH_BYTES // (size + 1)))
        give_turn()
        if progress is not None:
            with sending.kept_to_itself():
                progress(taken)


def _taken(source: RowSource, count: int, sending: Sending) -> Sequence[Any]:
    with sending.kept_to_itself():
        return source.take(count)


def _refusal(
    error: Exception, given: Any, target: CopyTarget, sending: Sending, before: int
) -> Exception:
    """What to raise where some of these rows could not be placed or written."""
    for number, row in enumerate(given, before + 1):
        try:
            sending.check(target.prepared([row]))
        except Exception as found:
            return of_row(found, number, is_text=target.is_text)
    return error


def _raise(connection: Connection, error: psycopg.Error, sending: Sending) -> None:
    """Raise a server's error as SQLAlchemy does, told by the number of the row."""
    shard = getattr(error, "shard", None)
    if shard is not None:
        error = told_by_row(error, shard, lambda line: sending.row_of_line(shard, line))
    _compat.raise_as_sqlalchemy(connection, sending.sql, error)
