"""The values that the client gives the columns for which rows have none, as for an INSERT.

Defaults that only SQL computes are refused: COPY takes values. What the server has as a default of
its own is left to it, by not naming the column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy_shards import _compat
from sqlalchemy_shards.errors import UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Column, Connection, Table

    Row = Sequence[Any]


class ClientDefaults:
    """The client-side defaults of a table's columns that are not given.

    :param given: keys of the columns that are.
    :param constants: values by the keys of columns: what a mapped class sets, as its discriminator.
    :param are_stored: the given values are in the form that is stored.
    :raises UnsupportedStatement: a column has a default that only SQL computes.
    """

    def __init__(
        self,
        table: Table,
        given: Sequence[str],
        constants: Mapping[str, Any],
        *,
        are_stored: bool,
    ) -> None:
        self._given = tuple(given)
        self._stored = frozenset(given) if are_stored else frozenset()
        missing: list[Column[Any]] = [column for column in table.c if column.key not in given]
        self._constants = {
            column.key: constants[column.key] for column in missing if column.key in constants
        }
        self._columns = [
            column
            for column in missing
            if column.default is not None and column.key not in self._constants
        ]
        for column in self._columns:
            _check(column)
        self.keys = (*self._constants, *(column.key for column in self._columns))

    def added_to(self, rows: Sequence[Row], connection: Connection, compiled: Any) -> list[Row]:
        """The rows with the values of `keys` behind theirs.

        :param compiled: the INSERT of all these columns, for defaults that look at their row.
        """
        constants = tuple(self._constants.values())
        if not self._columns:
            return [(*row, *constants) for row in rows]
        if all(column.default.is_scalar for column in self._columns):  # type: ignore[union-attr]
            constants += tuple(column.default.arg for column in self._columns)  # type: ignore[union-attr]
            return [(*row, *constants) for row in rows]
        context = _compat.context_of_defaults(connection, compiled)
        context.shards_stored = self._stored  # for an IdGenerator, which reads the key of its row
        return [self._row(row, constants, context) for row in rows]

    def _row(self, row: Row, constants: Row, context: Any) -> Row:
        known = dict(zip(self._given, row, strict=True)) | self._constants
        context.current_parameters = known
        for column in self._columns:
            context.current_column = column
            default: Any = column.default
            known[column.key] = default.arg(context) if default.is_callable else default.arg
        return (*row, *constants, *(known[column.key] for column in self._columns))


def _check(column: Column[Any]) -> None:
    default: Any = column.default
    if not (default.is_scalar or default.is_callable):
        raise UnsupportedStatement(
            f"column {str(column)!r} has a default that SQL computes, and COPY takes values only",
            "give the column's values, or make it a server_default",
        )
