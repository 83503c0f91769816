"""Copies the rows of a statement out of the shards, in constant memory.

Where the shards' rows only follow one another, each shard writes its own by COPY, all at once, and
they go to the file as they arrive. Where they have to be merged, put in order or gathered, the
statement is streamed as ever, and its values are written here.

An error of the file's stops the COPYs within a savepoint, so the transaction goes on.
"""

from __future__ import annotations

from codecs import getincrementalencoder
from typing import TYPE_CHECKING, Any, Final

from psycopg.adapt import PyFormat, Transformer

from sqlalchemy_shards import _compat
from sqlalchemy_shards.cluster.enlistment.on_shards import on_shards
from sqlalchemy_shards.cluster.explain.explaining import decide
from sqlalchemy_shards.cluster.explain.observing import RUN
from sqlalchemy_shards.cluster.gather.arrival import copy_commands, undo_copy
from sqlalchemy_shards.connections.copying import CopyOut
from sqlalchemy_shards.connections.written_values import with_values
from sqlalchemy_shards.plan import Concatenate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Connection, Result

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.cluster.dispatch.work import Dispatch, Work
    from sqlalchemy_shards.cluster.enlistment.enlisted import EnlistedShard

    from .csv_format import CsvFormat

    Execute = Callable[[Mapping[str, Any]], Result[Any]]

ROWS_PER_READ: Final = 1000
"""How many rows of a stream are read at a time."""


class CsvFile:
    """A file that CSV is written to.

    :param file: has ``write``; what has an ``encoding``, as Python's text files do, takes text.
    :param progress: called with the number of rows that were written so far.
    """

    def __init__(self, file: Any, csv: CsvFormat, progress: Callable[[int], object] | None) -> None:
        self.csv = csv
        self.rows = 0
        self.error: BaseException | None = None
        self._file = file
        self._takes_text = hasattr(file, "encoding")
        # One for all of the file: some encodings begin with a mark, which stands there once.
        self._encoder = getincrementalencoder(csv.encoding)()
        self._progress = progress

    def write(self, text: str, rows: int) -> None:
        """Write whole records."""
        self._file.write(text if self._takes_text else self._encoder.encode(text))
        self.rows += rows
        if self._progress is not None and rows:
            self._progress(self.rows)

    def take(self, lines: list[bytes]) -> None:
        """Write records of a shard as they come; an error of the file's is kept for later."""
        if self.error is None:
            try:
                self.write(b"".join(lines).decode(), len(lines))
            except BaseException as error:
                self.error = error


def copy_to(connection: Connection, statement: Any, execute: Execute, target: CsvFile) -> int:
    """Write the rows of a SELECT as CSV; return how many.

    :param execute: executes the statement on the connection, with more execution options.
    """
    if target.csv.header:
        compiled: Any = statement.compile(dialect=connection.dialect)
        names = [column.name for column in _compat.result_columns(compiled)]
        target.write(target.csv.record(names), 0)
    decided = decide(connection, execute)
    if decided is not None and decided.works and _follow_one_another(decided):
        _copy(connection.connection.driver_connection, decided, target)  # type: ignore[arg-type]
    else:
        _stream(connection, statement, execute, target)
    return target.rows


def streamed(execute: Execute) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a SELECT, some at a time."""
    with execute({"yield_per": ROWS_PER_READ}) as result:
        for rows in result.partitions():
            yield [tuple(row) for row in rows]


def _follow_one_another(decided: Dispatch) -> bool:
    """Whether the answer is the shards' rows as they are, in any order of the shards."""
    return (
        decided.gather is None
        and decided.writes is False
        and decided.believed is None
        and not decided.is_raw
        and (decided.merge is None or decided.merge == Concatenate())
    )


def _copy(connection: ClusterConnection, decided: Dispatch, target: CsvFile) -> None:
    csv = target.csv
    quoted = [_literal(each) for each in (csv.null, csv.delimiter, csv.quote)]
    options = "(FORMAT csv, NULL {}, DELIMITER {}, QUOTE {}, ENCODING 'UTF8')".format(*quoted)

    def read(work: Work, enlisted: EnlistedShard) -> None:
        driver = enlisted.driver
        select = with_values(driver, work.sql, work.parameters or {})
        commands = copy_commands(driver, select, options.encode())
        is_whole = CopyOut(driver, target.take, lambda: target.error is not None).run(commands)
        if not is_whole:
            undo_copy(driver)

    on_shards(connection, decided.works, read, step=RUN)
    if target.error is not None:
        raise target.error


def _stream(connection: Connection, statement: Any, execute: Execute, target: CsvFile) -> None:
    compiled: Any = statement.compile(dialect=connection.dialect)
    dialect, csv = connection.dialect, target.csv
    processors = [
        column.type.dialect_impl(dialect).bind_processor(dialect)
        for column in _compat.result_columns(compiled)
    ]
    transformer = Transformer()
    formats = [PyFormat.TEXT] * len(processors)

    def told(row: tuple[Any, ...]) -> str:
        sent = [
            value if value is None or processor is None else processor(value)
            for value, processor in zip(row, processors, strict=True)
        ]
        dumped = transformer.dump_sequence(sent, formats)
        return csv.record([None if each is None else bytes(each).decode() for each in dumped])

    for rows in streamed(execute):
        target.write("".join(map(told, rows)), len(rows))


def _literal(value: str) -> str:
    return "'{}'".format(value.replace("'", "''"))
