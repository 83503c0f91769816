"""What the catalogs of the shards tell: types and collations of columns, and what functions do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Table
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.functions import FunctionElement

from .collations import Collations
from .columns import ColumnType, ColumnTypes
from .functions import Functions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import psycopg

_KEEPS_COLLATION: Final = frozenset({"lower", "upper"})
_TEXTS: Final = frozenset({"text", "character varying"})


class Catalog:
    """What is known of the databases of a cluster. Thread-safe.

    :param shards: names of all shards, the global one first.
    :param connect: opens a connection to a shard.
    :param quote: writes a table's name as SQL does.
    """

    def __init__(
        self,
        shards: Sequence[str],
        connect: Callable[[str], AbstractContextManager[psycopg.Connection[Any]]],
        quote: Callable[[Table], str],
    ) -> None:
        self._quote = quote
        self._collations = Collations(shards, connect, quote)
        self._columns = ColumnTypes(shards, connect)
        self.functions = Functions(connect, shards[0])

    def orders_by_code_point(self, expression: Any) -> bool:
        """Whether a text expression certainly sorts as Python strings do."""
        return self._collations.orders_by_code_point(expression)

    def columns_of(self, table: Table) -> dict[str, ColumnType]:
        """Column name -> type, as all shards have it; empty: they have no such table."""
        return dict(self._columns.of_table(self._quote(table)))

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
        if not isinstance(expression, ColumnClause) or expression.is_literal:
            return None
        table: Any = getattr(expression.table, "element", expression.table)
        if not isinstance(table, Table) or expression.key not in table.c:
            return None
        return self.columns_of(table).get(table.c[expression.key].name)
