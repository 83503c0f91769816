"""The statement that shards run in place of the one given: more rows, and the sort keys.

SQL before:  SELECT name FROM users ORDER BY id DESC LIMIT 10 OFFSET 20
SQL after:   SELECT name, id AS shards_sort_0 FROM users ORDER BY id DESC LIMIT 30
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, bindparam

from sqlalchemy_shards import _compat
from sqlalchemy_shards.plan import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine.default import DefaultExecutionContext
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.selectable import Select

LIMIT_PARAMETER: Final = "shards_limit"


class Rewritten:
    """A derived statement, compiled once, and how its parameters get their values.

    It shares the parameters of the statement it comes from, so that their values are found by
    identity; nothing of the original compiled statement is held.
    """

    def __init__(self, statement: Select[Any], compiled: SQLCompiler, window: Window) -> None:
        dialect = compiled.dialect
        self.window = window
        translated: Any = {"schema_translate_map": {}} if compiled.schema_translate_map else {}
        self.compiled: Any = statement.compile(dialect=dialect, **translated)
        self._names = tuple(
            (name, compiled.bind_names[bind])
            for bind, name in self.compiled.bind_names.items()
            if bind in compiled.bind_names
        )
        self._processors: Mapping[str, Callable[[Any], Any]] = {
            name: processor
            for bind, name in self.compiled.bind_names.items()
            if (processor := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }

    def render(
        self, context: DefaultExecutionContext, values: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, Any]]:
        """SQL text and driver parameters for one execution."""
        parameters = {name: values[original] for name, original in self._names}
        if self.window != Window():
            parameters[LIMIT_PARAMETER] = rows_needed(self.window, values)
        state = self.compiled.construct_expanded_state(parameters)
        processors = {**self._processors, **state.processors}
        escaped = self.compiled.escaped_bind_names or {}
        sql = _compat.translated_statement(context, self.compiled, state.statement)
        return sql, {
            escaped.get(name, name): processors[name](value) if name in processors else value
            for name, value in state.parameters.items()
        }


def rewrite(
    select: Select[Any], compiled: SQLCompiler, sort_keys: Sequence[Any], window: Window
) -> Rewritten:
    """Add sort keys to the columns, and let each shard give all rows that may be needed."""
    statement = select.add_columns(
        *(key.label(f"shards_sort_{index}") for index, key in enumerate(sort_keys))
    )
    if window.limit is not None:
        limit: Any = bindparam(LIMIT_PARAMETER, type_=BigInteger())
        statement = statement.limit(limit)
    if window.offset is not None:
        statement = statement.offset(None)
    return Rewritten(statement, compiled, window if window.limit is not None else Window())


def rows_needed(window: Window, values: Mapping[str, Any]) -> int | None:
    """How many rows of each shard can be part of the answer; None: all."""
    limit = None if window.limit is None else values[window.limit]
    if limit is None:
        return None
    offset = 0 if window.offset is None else values[window.offset]
    return int(limit) + int(offset or 0)
