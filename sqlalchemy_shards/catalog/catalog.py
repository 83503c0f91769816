"""What the catalogs of the shards tell: types and collations of columns, and what functions do.

What the model says is not believed; all shards are asked, when something is first needed.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Table
from sqlalchemy.sql.elements import BinaryExpression, CollationClause, ColumnClause
from sqlalchemy.sql.functions import FunctionElement

from sqlalchemy_shards.connections.fan_out import branch_for_each

from .columns import BYTE_ORDER, ColumnType, ColumnTypes, TableColumns
from .functions import Functions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from contextlib import AbstractContextManager

    import psycopg
    from sqlalchemy import Column

    from sqlalchemy_shards.connections.fan_out import FanOut

_KEEPS_COLLATION: Final = frozenset({"lower", "upper"})
_TEXTS: Final = frozenset({"text", "character varying"})


class Catalog:
    """What is known of the databases of a cluster. Thread-safe.

    :param shards: names of all shards, the global one first.
    :param connect: opens a connection to a shard.
    :param quote: writes a table's name as SQL does.
    :param fan_out: asks all shards.
    """

    def __init__(
        self,
        shards: Sequence[str],
        connect: Callable[[str], AbstractContextManager[psycopg.Connection[Any]]],
        quote: Callable[[Table], str],
        fan_out: FanOut,
    ) -> None:
        self._shards = shards
        self._connect = connect
        self._quote = quote
        self._lock = threading.Lock()
        self._is_utf8: bool | None = None
        self._fan_out = fan_out
        self._columns = ColumnTypes(shards, connect, fan_out)
        self.functions = Functions(connect, shards[0])

    def orders_by_code_point(self, expression: Any) -> bool:
        """Whether a text expression certainly sorts as Python strings do.

        True for a plain column whose collation says so, and for ``collate(..., "C")``.
        """
        if isinstance(expression, BinaryExpression) and isinstance(
            expression.right, CollationClause
        ):
            name = str(expression.right.collation).strip('"')
            return name in BYTE_ORDER and self._keeps_text_as_utf8()
        column = _column_of(expression)
        if column is None:
            return False
        return column.name in self._of_table(column.table).ordered_by_code_point

    def _keeps_text_as_utf8(self) -> bool:
        """Whether bytes order as code points on every shard; in other encodings they do not."""
        with self._lock:
            known = self._is_utf8
        if known is None:
            reads = branch_for_each(self._shards, self._encoding)
            known = all(read.result() == "UTF8" for read in self._fan_out.run(reads))
            with self._lock:
                self._is_utf8 = known
        return known

    def _encoding(self, shard: str) -> str | None:
        with self._connect(shard) as connection:
            return connection.info.parameter_status("server_encoding")

    def columns_of(self, table: Table) -> dict[str, ColumnType]:
        """Column name -> type, as all shards have it; empty: they have no such table."""
        return dict(self._of_table(table).types)

    def lacks_columns(self, table: Any) -> bool:
        """Whether it is known that not all shards have all columns of a table's model alike.

        Looks now and then whether they have them meanwhile; never looks at another table.
        """
        if not isinstance(table, Table) or not self._columns.knows(self._quote(table)):
            return False
        return _lacks(self._of_table(table), table)

    def row_wise(self, calls: Iterable[tuple[str, int | None, bool]]) -> Collection[str]:
        """Names of called functions that make one value of one row's, drawn or alike anywhere."""
        return self.functions.row_wise(calls)

    def _of_table(self, table: Table) -> TableColumns:
        name = self._quote(table)
        known = self._columns.of_table(name)
        # As in the middle of a migration: it is no reason to do without the column for ever.
        return self._columns.look_again(name) if known.types and _lacks(known, table) else known

    def type_of(self, expression: Any) -> ColumnType | None:
        """The type of a plain column, or of a plain text column in upper or lower case."""
        if isinstance(expression, FunctionElement):
            arguments: Any = list(expression.clauses)
            name = str(getattr(expression, "name", "")).lower()
            if name not in _KEEPS_COLLATION or len(arguments) != 1:
                return None
            inner = self.type_of(arguments[0])
            is_text = inner is not None and inner.base in _TEXTS
            return inner._replace(sql="pg_catalog.text", base="text") if is_text and inner else None
        column = _column_of(expression)
        return None if column is None else self._of_table(column.table).types.get(column.name)


def _lacks(known: TableColumns, table: Table) -> bool:
    return any(column.name not in known.types for column in table.c if not column.system)


def _column_of(expression: Any) -> Column[Any] | None:
    """The column of a table that an expression is, also through an alias of the table."""
    if not isinstance(expression, ColumnClause) or expression.is_literal:
        return None
    table: Any = getattr(expression.table, "element", expression.table)
    return table.c.get(expression.key) if isinstance(table, Table) else None
