"""The COPYs that run on the shards side by side, fed from one thread.

A shard takes part when the first row for it comes. What is to be sent is handed to all sockets in
turn, none of which is waited for until `BACKLOG_BYTES` lie there for one shard: then all stop until
that one has taken half of it. So no more than that is kept of each, however slow it is.

Which row a line of a shard's COPY was is known of the last `BATCHES_KEPT` batches: a server's
error comes back while the client is some lines ahead.
"""

from __future__ import annotations

from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.rows import tuple_row
from psycopg.sql import Literal

from sqlalchemy_shards.cluster.dispatch.work import Work
from sqlalchemy_shards.cluster.enlistment.on_shards import on_shards
from sqlalchemy_shards.cluster.quoting import without_placeholders
from sqlalchemy_shards.connections.copying_in import CopyIn
from sqlalchemy_shards.connections.fan_out import Branch
from sqlalchemy_shards.transactions.fail_points import AFTER_STATEMENT, BEFORE_STATEMENT

from .encoding import RowEncoder, ServerType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.cluster.enlistment.enlisted import EnlistedShard

    from .target import CopiedRows, CopyTarget

PIECE_BYTES: Final = 1 << 16
"""How much is sent at a time."""

BACKLOG_BYTES: Final = 1 << 20
"""How much may wait to be sent to one shard."""

BATCHES_KEPT: Final = 128
"""Of how many batches it is remembered where their rows went."""

ABORT_SECONDS: Final = 1.0
"""How long a server may take to let its COPY fail before it is cancelled."""

# Nobody changes a column's type behind what is written in binary.
_DESCRIBED: Final = """
LOCK TABLE {table} IN {mode} MODE;
WITH RECURSIVE held (attname, oid, typtype, typbasetype) AS (
    SELECT a.attname, t.oid, t.typtype, t.typbasetype
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = {name}::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT h.attname, t.oid, t.typtype, t.typbasetype
    FROM held h JOIN pg_catalog.pg_type t ON t.oid = h.typbasetype WHERE h.typtype = 'd'
)
SELECT attname, oid::int8, typtype::text FROM held WHERE typtype <> 'd'
"""


class ShardCopy:
    """The COPY of one shard: what is written, and what is not sent yet."""

    encoder: RowEncoder
    out: bytearray

    def __init__(self, enlisted: EnlistedShard) -> None:
        self.enlisted = enlisted
        self.copy = CopyIn(enlisted.driver)

    def begin(self, target: CopyTarget, statement: Statement) -> None:
        """Begin it, in the format that suits the types that the table has there."""
        driver = self.enlisted.driver
        types = statement.types_on(driver)
        self.encoder = encoder = RowEncoder(driver, target.names, types, as_text=target.is_text)
        self.out = bytearray(encoder.head)
        encoding = driver.info.encoding
        self.copy.begin(statement.copy(is_binary=encoder.is_binary, encoding=encoding))

    def write(self, rows: Sequence[Any]) -> int:
        """Keep rows, and send what can be sent; return how many bytes they are."""
        out = self.out
        before = len(out)
        self.encoder.write(rows, out)
        written = len(out) - before
        if len(out) >= PIECE_BYTES:
            self.copy.add(out)
            self.out = bytearray()
            self.copy.push()
            if self.copy.has_failed():
                self.copy.end()
        return written

    def end(self) -> int:
        """Send the rest, and return how many rows the server has stored."""
        self.copy.add(self.out + self.encoder.tail)
        self.out = bytearray()
        return self.copy.end()


class Statement:
    """The commands of a copy.

    :param locks: whether other writers of the table have to wait.
    """

    def __init__(self, target: CopyTarget, dialect: Any, *, locks: bool) -> None:
        preparer = dialect.identifier_preparer
        self._table = without_placeholders(target.name)
        names = ", ".join(preparer.quote(name) for name in target.names)
        self.sql = f"COPY {self._table} ({without_placeholders(names)}) FROM STDIN"
        self._mode = "SHARE ROW EXCLUSIVE" if locks else "ROW EXCLUSIVE"

    def types_on(self, driver: psycopg.Connection[Any]) -> dict[str, ServerType]:
        """The types of the table's columns, which nobody changes before the transaction ends."""
        name = Literal(self._table).as_string(driver)
        described = _DESCRIBED.format(table=self._table, mode=self._mode, name=name)
        with driver.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(described.encode(driver.info.encoding))
            cursor.nextset()
            return {name: ServerType(oid, kind) for name, oid, kind in cursor}

    def copy(self, *, is_binary: bool, encoding: str) -> bytes:
        """The COPY itself."""
        options = " (FORMAT binary)" if is_binary else ""
        return f"{self.sql}{options}".encode(encoding)


class Sending:
    """All COPYs of one call.

    :ivar copies: those that have begun, by shard.
    :ivar written: how many bytes were written so far.
    """

    def __init__(self, connection: ClusterConnection, target: CopyTarget) -> None:
        self.copies: dict[str, ShardCopy] = {}
        self.written = 0
        self._connection = connection
        self._target = target
        # Of a reference table, writers meet at the first copy and not crosswise.
        self._statements = {
            locks: Statement(target, connection.cluster.dialect, locks=locks)
            for locks in (False, True)
        }
        self.sql = self._statements[False].sql
        self._numbers = _RowNumbers()

    @contextmanager
    def kept_to_itself(self) -> Iterator[None]:
        """Let the application's own code not use the transaction that it feeds."""
        self._connection.is_copying = True
        try:
            yield
        finally:
            self._connection.is_copying = False

    def send(self, copied: CopiedRows, first_row: int) -> None:
        """Send rows to their shards, as far as these take them.

        :param first_row: number of the first of them.
        :raises psycopg.Error: what a server said.
        """
        rows, shards = copied
        by_shard: dict[str, Sequence[Any]]
        if shards is None:
            by_shard = dict.fromkeys(self._target.everywhere, rows)
        else:
            by_shard = _apart(rows, shards)
        self._numbers.note(first_row, shards, by_shard)
        self._begin(by_shard)
        for shard, its_rows in by_shard.items():
            self._write(shard, its_rows)
        self._wait_for_slow_shards()

    def check(self, copied: CopiedRows) -> None:
        """Look at each value of rows, as far as their shards have begun.

        :raises RowRefused: one of them cannot be written.
        """
        for shard in self._target.everywhere if copied.shards is None else set(copied.shards):
            if shard in self.copies:
                for row in copied.rows:
                    self.copies[shard].encoder.check(row)

    def end(self) -> dict[str, int]:
        """Send the rest; return how many rows each shard has stored."""
        hooks = self._connection.cluster.hooks

        def end(work: Work, enlisted: EnlistedShard) -> int:
            stored = self.copies[work.shard].end()
            hooks.reach(AFTER_STATEMENT, work.shard)
            if stored:
                enlisted.note_writes(True)
            return stored

        shards = self._connection.territory.in_order(self.copies)
        return dict(zip(shards, self._on(shards, end), strict=True))

    def abort(self) -> None:
        """Let every COPY fail that is not at its end; each server is cancelled or left."""
        left = {shard: each for shard, each in self.copies.items() if each.copy.is_open}
        branches = [
            Branch(
                shard,
                lambda each=each: each.copy.abort(),  # type: ignore[misc]
                lambda each=each: each.enlisted.driver,  # type: ignore[misc]
            )
            for shard, each in left.items()
        ]
        try:
            if branches:
                self._connection.cluster.fan_out.run(branches, deadline_seconds=ABORT_SECONDS)
        finally:
            for each in left.values():
                each.copy.close_if_active()
            for shard in self.copies:
                self._connection.fail(shard)

    def row_of_line(self, shard: str, line: int) -> int | None:
        """The number of the row that was a line of a shard's COPY; None: not known any more."""
        return self._numbers.row_of_line(shard, line)

    def _begin(self, shards: Iterable[str]) -> None:
        new = [shard for shard in shards if shard not in self.copies]
        if not new:
            return
        connection, is_every_copy = self._connection, self._target.is_every_copy
        connection.check_write([*self.copies, *new])

        def begin(work: Work, enlisted: EnlistedShard) -> None:
            connection.cluster.hooks.reach(BEFORE_STATEMENT, work.shard)
            enlisted.note_writes(None)
            is_first = is_every_copy and work.shard == self._target.everywhere[0]
            copy = self.copies[work.shard] = ShardCopy(enlisted)
            copy.begin(self._target, self._statements[is_first])

        first = new[:1] if is_every_copy else []
        self._on(first, begin)
        self._on(new[len(first) :], begin)

    def _write(self, shard: str, rows: Sequence[Any]) -> None:
        try:
            self.written += self.copies[shard].write(rows)
        except psycopg.Error as error:
            self._connection.note_error(shard, error, is_shared=True)
            raise

    def _wait_for_slow_shards(self) -> None:
        slow = [name for name, each in self.copies.items() if each.copy.backlog > BACKLOG_BYTES]

        def drain(work: Work, _: EnlistedShard) -> None:
            self.copies[work.shard].copy.drain(BACKLOG_BYTES // 2)

        self._on(slow, drain)

    def _on(self, shards: Sequence[str], perform: Any) -> list[Any]:
        if not shards:
            return []
        return on_shards(self._connection, [Work(each, self.sql, None) for each in shards], perform)


def _apart(rows: Sequence[Any], shards: Sequence[str]) -> dict[str, Sequence[Any]]:
    """The rows of each shard."""
    found: dict[str, list[Any]] = {shard: [] for shard in set(shards)}
    add = {shard: its_rows.append for shard, its_rows in found.items()}
    for row, shard in zip(rows, shards, strict=True):
        add[shard](row)
    return dict(found)


class _RowNumbers:
    """Which row each of the last lines was that shards were sent."""

    def __init__(self) -> None:
        # First row, the shard of each row, and how many lines each shard had before.
        self._batches: deque[tuple[int, Sequence[str] | None, Counter[str]]] = deque(
            maxlen=BATCHES_KEPT
        )
        self._lines: Counter[str] = Counter()

    def note(
        self, first_row: int, shards: Sequence[str] | None, by_shard: Mapping[str, Sequence[Any]]
    ) -> None:
        self._batches.append((first_row, shards, self._lines.copy()))
        self._lines.update({shard: len(its_rows) for shard, its_rows in by_shard.items()})

    def row_of_line(self, shard: str, line: int) -> int | None:
        for first_row, shards, before in reversed(self._batches):
            if shards is None:
                return line
            if before[shard] < line:
                places = [place for place, each in enumerate(shards) if each == shard]
                within = line - before[shard] - 1
                return first_row + places[within] if within < len(places) else None
        return None
