"""Copies rows into and out of what a session calls them: mapped classes, or tables."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, SelectBase, Table, inspect, select
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.util import AliasedInsp

from sqlalchemy_shards.cluster.copying.arrow import ArrowRows, is_arrow
from sqlalchemy_shards.cluster.copying.arrow_batches import batches_of
from sqlalchemy_shards.cluster.copying.copy_from import copy_from
from sqlalchemy_shards.cluster.copying.copy_to import CsvFile, copy_to, streamed
from sqlalchemy_shards.cluster.copying.csv_format import CsvFormat
from sqlalchemy_shards.cluster.copying.csv_rows import CsvRows
from sqlalchemy_shards.cluster.copying.names import ColumnNames, told_columns
from sqlalchemy_shards.cluster.copying.rows import GivenRows
from sqlalchemy_shards.errors import ConfigurationError, UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy_shards.cluster.copying.arrow_batches import RecordBatches
    from sqlalchemy_shards.cluster.copying.copy_from import CopyResult
    from sqlalchemy_shards.cluster.copying.rows import RowSource

    from .session import ShardedSession


def copy_into(
    session: ShardedSession,
    model: Any,
    rows: Any,
    columns: Sequence[str] | None,
    progress: Callable[[int], object] | None,
    csv: CsvFormat | None,
) -> CopyResult:
    """Copy rows, as `ShardedSession.copy_from` says."""
    names, columns = names_of(model), told_columns(columns)
    if not isinstance(csv, CsvFormat | None):
        raise UnsupportedStatement(
            f"csv= was given as {type(csv).__name__}", "give a CsvFormat, or leave it away"
        )
    if session.autoflush:
        session.flush()
    connection = session.connection()
    with ExitStack() as stack:
        if _is_path(rows):
            rows = stack.enter_context(_opened(rows))
        source: RowSource
        if hasattr(rows, "read"):
            source = CsvRows(rows, names, columns, csv or CsvFormat(), connection.dialect)
        elif is_arrow(rows):
            source = ArrowRows(rows, names, columns)
        else:
            source = GivenRows(rows, names, columns)
        return copy_from(connection, names, source, progress)


def _opened(path: Any) -> Any:
    """A file, by its path.

    :raises FileNotFoundError: there is none.
    """
    try:
        return Path(path).open("rb")
    except FileNotFoundError as error:
        told = "no such file (CSV that is a string itself is given as io.StringIO(text))"
        raise FileNotFoundError(error.errno, told, str(path)) from None


def _is_path(rows: Any) -> bool:
    """Whether rows are said by the path of a file: a string of several lines is none."""
    return isinstance(rows, PathLike) or (isinstance(rows, str) and "\n" not in rows)


class Executed:
    """A SELECT of columns, to be executed in a session with more execution options.

    :param source: the SELECT; or a mapped class or table, of which all columns are selected that
        could be copied into it again.
    :raises UnsupportedStatement: it has no rows, or they are objects.
    """

    def __init__(
        self,
        session: ShardedSession,
        source: Any,
        parameters: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        self.session = session
        self.statement: Any = source if isinstance(source, SelectBase) else _select_of(source)
        self._parameters = dict(parameters)
        self._options = options
        told = getattr(self.statement, "column_descriptions", ())
        if any(is_entity(each.get("expr")) for each in told):
            raise UnsupportedStatement(
                "the rows of a SELECT of objects cannot be copied out",
                "select columns, or give the class itself",
            )

    def __call__(self, more: Mapping[str, Any]) -> Any:
        """Execute it."""
        options = {**self._options, **more}
        return self.session.execute(self.statement, self._parameters, execution_options=options)


def copy_out(
    execute: Executed,
    target: Any,
    csv: CsvFormat | None,
    progress: Callable[[int], object] | None,
    *,
    arrow: bool,
) -> int:
    """Write rows into a file, as `ShardedSession.copy_to` says."""
    if arrow:
        raise ConfigurationError(
            "copy_to() was given a file and arrow=True, but files are written as CSV",
            "leave the file away and write the record batches that are returned, or leave arrow "
            "away",
        )
    if execute.session.autoflush:
        execute.session.flush()
    with ExitStack() as stack:
        if isinstance(target, str | PathLike):
            target = stack.enter_context(Path(target).open("wb"))
        file = CsvFile(target, csv or CsvFormat(), progress)
        return copy_to(execute.session.connection(), execute.statement, execute, file)


def rows_out(execute: Executed) -> Iterator[tuple[Any, ...]]:
    """Give rows one by one, as `ShardedSession.copy_to` says."""
    return chain.from_iterable(streamed(execute))


def arrow_out(execute: Executed) -> RecordBatches:
    """Give rows as record batches, as `ShardedSession.copy_to` says."""
    return batches_of(execute.statement, execute.session.connection().dialect, streamed(execute))


def is_entity(expression: Any) -> bool:
    """Whether a SELECT of an expression gives objects."""
    inspected = inspect(expression, raiseerr=False)
    return isinstance(inspected, Mapper | AliasedInsp)


def _select_of(model: Any) -> Any:
    inspected = inspect(model, raiseerr=False)
    if isinstance(inspected, Mapper):
        attributes = [
            attribute.class_attribute
            for attribute in inspected.column_attrs
            if isinstance(column := attribute.columns[0], Column) and column.computed is None
        ]
        return select(*attributes)
    if isinstance(inspected, Table):
        return select(*(column for column in inspected.c if column.computed is None))
    raise UnsupportedStatement(
        f"{type(model).__name__} is neither a SELECT nor a mapped class nor a table, and has no "
        "rows to be copied out",
        "give one of these",
    )


def names_of(model: Any) -> ColumnNames:
    """What the columns of a mapped class or table may be called.

    :raises UnsupportedStatement: it is neither, or is mapped to several tables.
    """
    inspected = inspect(model, raiseerr=False)
    if isinstance(inspected, Mapper):
        return _names_of_mapper(inspected)
    if isinstance(inspected, Table):
        writable = tuple(column.key for column in inspected.c if column.computed is None)
        keys = {column.name: column.key for column in inspected.c}
        keys.update((column.key, column.key) for column in inspected.c)
        return ColumnNames(inspected, keys, frozenset(), writable, {})
    raise UnsupportedStatement(
        f"{type(model).__name__} is neither a mapped class nor a table, and rows cannot be copied "
        "into it",
        "give the class or the table",
    )


def _advice_of_tables(mapper: Mapper[Any]) -> str:
    """How the tables are filled one by one."""
    if len(mapper.tables) > len({each.local_table for each in mapper.iterate_to_root()}):
        names = ", ".join(repr(str(table)) for table in mapper.tables)
        return f"copy the columns of each into the tables {names}"
    classes: dict[Any, str] = {}
    for each in reversed(list(mapper.iterate_to_root())):
        classes.setdefault(each.local_table, f"{each.class_.__name__}.__table__")
    first, *others = classes.values()
    if mapper.polymorphic_on is not None and mapper.polymorphic_identity is not None:
        told = getattr(mapper.polymorphic_on, "name", mapper.polymorphic_on)
        first += f" with {mapper.polymorphic_identity!r} as {told!r}"
    return f"copy the columns of each into {', then '.join((first, *others))}"


def _names_of_mapper(mapper: Mapper[Any]) -> ColumnNames:
    table = mapper.local_table
    if len(mapper.tables) != 1 or not isinstance(table, Table):
        raise UnsupportedStatement(
            f"class {mapper.class_.__name__} is mapped to several tables, and rows can be copied "
            "into one at a time",
            _advice_of_tables(mapper),
        )
    attributes = {}
    for attribute in mapper.column_attrs:
        column = attribute.columns[0]
        if column.table is table:
            attributes[attribute.key] = column
    keys = {column.name: column.key for column in table.c}
    keys.update((name, column.key) for name, column in attributes.items())
    writable = tuple(name for name, column in attributes.items() if column.computed is None)
    constants = {}
    if mapper.polymorphic_on is not None and mapper.polymorphic_identity is not None:
        told: Any = mapper.polymorphic_on
        if getattr(told, "table", None) is table:
            constants[told.key] = mapper.polymorphic_identity
    return ColumnNames(table, keys, frozenset(attributes), writable, constants)
