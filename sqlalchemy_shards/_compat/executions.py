"""One execution: its parameters, its columns, its batches."""

from __future__ import annotations

import re
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.engine.default import DefaultExecutionContext
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import BindParameter
    from sqlalchemy.types import TypeEngine

driver_connection: Final = attrgetter("_dbapi_connection.dbapi_connection")
"""The DBAPI connection of an execution's context: by C code, as it is asked for each statement."""


def raw_parameters(context: DefaultExecutionContext) -> Mapping[str, Any]:
    """Bind name -> value before bind processing, of the first parameter set of an execution.

    Expanding and literal-execute parameters are popped from ``compiled_parameters`` once they
    were rendered; here expanding ones stand under their own names again, as lists, and
    literal-execute ones as `WithRendered` has kept them.
    """
    compiled: Any = context.compiled
    given: Any = context.compiled_parameters[0]
    if not compiled.post_compile_params and not compiled.literal_execute_params:
        return given  # type: ignore[no-any-return]
    values = dict(given)
    values.update(given.rendered if isinstance(given, WithRendered) else {})
    for name, names in context._expanded_parameters.items():
        bind = compiled.binds[name]
        parts = [values.pop(part) for part in names]
        if bind.type._is_tuple_type:
            width = len(bind.type.types)
            parts = [tuple(parts[i : i + width]) for i in range(0, len(parts), width)]
        values[name] = parts
    return values


class WithRendered(dict[str, Any]):
    """Values of parameters, which keeps those that SQLAlchemy takes out to render them into SQL.

    :param names: of these.
    """

    def __init__(self, values: Mapping[str, Any], names: Iterable[str]) -> None:
        super().__init__(values)
        self.rendered = {name: values[name] for name in names if name in values}


def is_expanding(bind: BindParameter[Any]) -> bool:
    """Whether a bind parameter stands for a list of values."""
    return bool(bind.expanding)


def times_expanded(compiled: SQLCompiler, name: str) -> int:
    """How often the SQL text holds the list of an expanding parameter."""
    escaped_names: Mapping[str, str] = compiled.escaped_bind_names or {}
    escaped = re.escape(escaped_names.get(name, name))
    return len(re.findall(rf"__\[POSTCOMPILE_{escaped}(?:~~|\])", compiled.string))


class ResultColumn(NamedTuple):
    """A column that a compiled statement returns, under the name that the server gives it."""

    name: str
    type: TypeEngine[Any]


def result_columns(compiled: SQLCompiler) -> list[ResultColumn]:
    """The columns that a compiled statement returns; none: it returns no rows."""
    return [ResultColumn(each.keyname, each.type) for each in compiled._result_columns]


def is_pre_executed_default(context: DefaultExecutionContext) -> bool:
    """Whether SQLAlchemy is running a column's default on its own, before the statement."""
    return context.current_parameters is not None


class InsertManyValues(NamedTuple):
    """What one ``do_execute`` call of an "insertmanyvalues" execution is about."""

    first: int
    """Index of the first parameter set of this batch."""
    rows: int
    row_at_a_time: bool


def insertmanyvalues_batch(
    context: DefaultExecutionContext, parameters: Any, done: int, page_size: int
) -> InsertManyValues:
    """Tell which parameter sets a batch holds, given that ``done`` were executed before it."""
    total = len(context.compiled_parameters)
    # Not by the SQL text: a listener may have changed it. The names of a batch are numbered, so
    # that they tell, too, where a listener has copied the parameters.
    row: Any = context.parameters[done]
    row_at_a_time = parameters is row or (
        isinstance(row, dict) and bool(row) and parameters.keys() == row.keys()
    )
    return InsertManyValues(
        done, 1 if row_at_a_time else min(page_size, total - done), row_at_a_time
    )


def insertmanyvalues_sorts_by_server_key(compiled: SQLCompiler) -> bool:
    """Whether returned rows are matched to parameters by a key that the server makes."""
    batches = compiled._insertmanyvalues
    return batches is not None and bool(batches.implicit_sentinel)


def render_insertmanyvalues(
    context: DefaultExecutionContext, indexes: Sequence[int]
) -> tuple[str, Any]:
    """SQL text and driver parameters of one batch made of the parameter sets at ``indexes``."""
    compiled: Any = context.compiled
    translate_map = (
        context.execution_options.get("schema_translate_map", {})
        if compiled.schema_translate_map
        else None
    )
    (batch,) = compiled._deliver_insertmanyvalues_batches(
        context.statement,
        [context.parameters[i] for i in indexes],
        [context.compiled_parameters[i] for i in indexes],
        None,
        len(indexes),
        False,
        translate_map,
    )
    return batch.replaced_statement, batch.replaced_parameters


def translated_statement(context: DefaultExecutionContext, compiled: SQLCompiler, sql: str) -> str:
    """Apply the execution's ``schema_translate_map`` to a derived statement's SQL."""
    if not compiled.schema_translate_map:
        return sql
    translate_map = context.execution_options.get("schema_translate_map", {})
    return compiled.preparer._render_schema_translates(sql, translate_map)


def bound_values(compiled: SQLCompiler) -> dict[str, Any]:
    """The parameters of a compiled statement, as the driver takes them."""
    processors: Mapping[str, Any] = compiled._bind_processors
    values = compiled.construct_params(escape_names=False)
    return {
        name: processors[name](value) if name in processors else value
        for name, value in values.items()
    }
