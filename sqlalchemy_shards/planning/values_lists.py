"""An INSERT with a list of rows -> the same INSERT with some of the rows.

SQL before:  INSERT INTO users (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c') RETURNING id
SQL after:   INSERT INTO users (id, name) VALUES (1, 'a'), (3, 'c') RETURNING id

Each row is given all of its values: those of client-side defaults are taken from the execution.
SQLAlchemy caches no such statement, so that nothing is gained by keeping what is derived from it.

Fails closed: what is derived must begin as the statement does, and return the same columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam
from sqlalchemy.sql.elements import BindParameter

from sqlalchemy_shards import _compat

from .derived import bind_processors, compiled_with, inherited_value, render
from .refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Table
    from sqlalchemy.engine.default import DefaultExecutionContext
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.dml import Insert


class ValuesList:
    """The rows of one execution of an INSERT.

    :param context: the execution; it has one parameter set, which holds all rows.
    """

    def __init__(self, context: DefaultExecutionContext) -> None:
        compiled: Any = context.compiled
        statement: Any = _compat.core_statement(compiled)
        self._context = context
        self._compiled: SQLCompiler = compiled
        self._values = _compat.raw_parameters(context)
        self._insert: Insert = statement
        self._rows = list(_rows(compiled, statement.table, self._values))

    def part(self, indexes: Sequence[int]) -> tuple[str, Mapping[str, Any]]:
        """SQL text and driver parameters of the INSERT with the rows at ``indexes``.

        :raises Refusal: it would not be the same but for the rows.
        """
        part = _compat.with_rows(self._insert, [self._rows[index] for index in indexes])
        derived = compiled_with(part, self._compiled)
        self._check(derived)
        parameters = {
            name: inherited_value(bind, self._compiled, self._values)
            for bind, name in derived.bind_names.items()
        }
        return render(derived, bind_processors(derived), self._context, parameters)

    def _check(self, derived: SQLCompiler) -> None:
        heads = {each.string.partition(" VALUES ")[0] for each in (self._compiled, derived)}
        names = [
            [column.name for column in _compat.result_columns(each)]
            for each in (self._compiled, derived)
        ]
        if len(heads) > 1 or names[0] != names[1]:
            raise Refusal("SQLAlchemy compiles it differently once more")


def _rows(
    compiled: SQLCompiler, table: Table, values: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """The rows, by the keys of their columns, with parameters of their own."""
    defaults = _compat.client_side_defaults(compiled)
    for index, given in enumerate(_compat.values_rows(compiled)):
        row: dict[str, Any] = {}
        for key, value in given.items():
            column = table.c[key]
            if isinstance(value, BindParameter):
                name = _compat.bind_name(compiled, value)
                row[key] = bindparam(
                    None, values[name], type_=compiled.binds[name].type, unique=True
                )
            elif hasattr(value, "__clause_element__") or hasattr(value, "get_children"):
                row[key] = value
            else:
                row[key] = bindparam(None, value, type_=column.type, unique=True)
        for key in defaults:
            if key not in given:
                name = _compat.name_in_row(key, index, is_default=True)
                row[key] = bindparam(None, values[name], type_=table.c[key].type, unique=True)
        yield row
