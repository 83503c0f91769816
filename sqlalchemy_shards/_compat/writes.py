"""INSERT, UPDATE and DELETE: what they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.engine.default import DefaultExecutionContext
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.dml import Delete, Insert, Update, UpdateBase
    from sqlalchemy.sql.elements import BindParameter, ClauseElement


def dml_values(compiled: SQLCompiler) -> Mapping[str, Any] | None:
    """Column key -> value or expression given by ``values()``; None: there are none."""
    parameters = getattr(compiled.compile_state, "_dict_parameters", None)
    if not parameters:
        return None
    return {getattr(column, "key", column): value for column, value in parameters.items()}


def dml_expressions(compiled: SQLCompiler) -> list[Any]:
    """Every SQL expression that a column is given: by ``values()``, and by its own ``onupdate``.

    Of all rows of a VALUES list.
    """
    state = compiled.compile_state
    rows = getattr(state, "_multi_parameters", None) or [getattr(state, "_dict_parameters", None)]
    given = [
        value for row in rows if row for value in row.values() if hasattr(value, "get_children")
    ]
    if not compiled.isupdate:
        return given
    # What the server computes is fetched back, at once or later.
    computed = [*(compiled.postfetch or ()), *(compiled.implicit_returning or ())]
    own: list[Any] = [column.onupdate for column in computed if isinstance(column, Column)]
    return [*given, *(each.arg for each in own if each is not None and each.is_clause_element)]


def column_of_default(context: DefaultExecutionContext) -> Column[Any]:
    """The column whose default is being asked; in a VALUES list, of any of its rows."""
    column: Any = context.current_column
    return cast("Column[Any]", getattr(column, "original", column))


def row_of_default(context: DefaultExecutionContext) -> Mapping[str, Any]:
    """Column key -> value of the row for which a default is being asked, those known so far.

    In a VALUES list, `get_current_parameters()` does not find what the ORM's columns name.
    """
    parameters: Any = context.current_parameters
    compiled: Any = context.compiled
    state = compiled.compile_state
    if not getattr(state, "_has_multi_parameters", False):
        return cast("Mapping[str, Any]", parameters)
    number = _row_number(context.current_column)
    keys = [getattr(column, "key", column) for column in state._dict_parameters or ()]
    row = {key: parameters.get(f"{key}_m{number}") for key in keys}
    for column in compiled.insert_prefetch:
        if _row_number(column) == number:
            row[getattr(column, "original", column).key] = parameters.get(column.key)
    return row


def _row_number(column: Any) -> int:
    """Of which row of a VALUES list a column is: that of the first is the table's own."""
    return cast("int", column.index + 1) if column._is_multiparam_column else 0


def multi_values(insert: Insert) -> Sequence[Sequence[Mapping[Any, Any]]]:
    """The rows of ``insert().values([row, row, ...])``; empty: it has no such list."""
    return insert._multi_values  # type: ignore[return-value]


def values_rows(compiled: SQLCompiler) -> list[Mapping[str, Any]]:
    """The rows of ``insert().values([row, row, ...])`` by the keys of their columns; none: it has
    no such list."""
    rows = getattr(compiled.compile_state, "_multi_parameters", None) or ()
    return [
        {getattr(column, "key", column): value for column, value in row.items()} for row in rows
    ]


def selected_names(insert: Insert) -> list[str]:
    """Keys of the columns that ``insert().from_select()`` fills, in the order of the SELECT's."""
    return list(insert._select_names or ())


def name_in_row(key: str, index: int, *, is_default: bool) -> str:
    """The parameter that holds a column's value in one row of such a list.

    :param is_default: the row gives no value, and the column has a client-side default.
    """
    return key if is_default and index == 0 else f"{key}_m{index}"


def client_side_defaults(compiled: SQLCompiler) -> list[str]:
    """Keys of the columns of an INSERT whose values are computed before it is sent."""
    prefetched: Any = compiled.insert_prefetch
    return list(dict.fromkeys(getattr(each, "original", each).key for each in prefetched))


def bind_name(compiled: SQLCompiler, bind: BindParameter[Any]) -> str:
    """The name under which a parameter was compiled, or a copy of it that was given a type."""
    name = compiled.bind_names.get(bind)
    if name is not None:
        return name
    return next(name for each, name in compiled.bind_names.items() if each.key == bind.key)


def with_rows(insert: Insert, rows: Sequence[Mapping[str, Any]]) -> Insert:
    """An INSERT with other rows in its VALUES list."""
    changed: Any = insert._clone()
    changed._multi_values = (list(rows),)
    return cast("Insert", changed)


def has_options(statement: UpdateBase) -> bool:
    """Whether options of the ORM, as loader criteria, were given to a statement."""
    return bool(statement._with_options)


def with_select(insert: Insert, select: Any) -> Insert:
    """An INSERT whose rows come from another SELECT, without CTEs of its own."""
    changed: Any = insert._clone()
    changed.select = select
    changed._independent_ctes = changed._independent_ctes_opts = ()
    return cast("Insert", changed)


def post_values_clause(insert: Insert) -> ClauseElement | None:
    """The ON CONFLICT clause of an INSERT."""
    return insert._post_values_clause


def conflict_assignments(clause: ClauseElement) -> Mapping[str, Any]:
    """Key of the column -> value, of what ON CONFLICT DO UPDATE sets."""
    assignments = getattr(clause, "update_values_to_set", None) or ()
    pairs = assignments.items() if hasattr(assignments, "items") else assignments
    return {getattr(column, "key", column): value for column, value in pairs}


def conflict_target(clause: ClauseElement) -> str | Sequence[Any] | None:
    """What ON CONFLICT looks for conflicts in: the name of a constraint, or columns (their names,
    or expressions); None: in everything that is unique."""
    name = getattr(clause, "constraint_target", None)
    return name if name is not None else getattr(clause, "inferred_target_elements", None)


def conflict_expressions(clause: ClauseElement) -> list[Any]:
    """Every expression in an ON CONFLICT clause."""
    values = conflict_assignments(clause).values()
    expressions = [value for value in values if hasattr(value, "get_children")]
    for name in ("update_whereclause", "inferred_target_whereclause"):
        expression = getattr(clause, name, None)
        if expression is not None and hasattr(expression, "get_children"):
            expressions.append(expression)
    return expressions


def extra_froms(compiled: SQLCompiler) -> Sequence[Any]:
    """The FROM list of an UPDATE, or USING of a DELETE."""
    return tuple(getattr(compiled.compile_state, "_extra_froms", ()))


def plain_write(statement: Any) -> Any:
    """An UPDATE or DELETE that the ORM has worked on, as it does not work on it once more."""
    plain = statement._clone()
    plain._propagate_attrs = statement._propagate_attrs.__class__()
    return plain


def returning(statement: UpdateBase) -> Sequence[Any]:
    """What RETURNING gives back: of a table, its columns."""
    return tuple(statement._all_selected_columns)


def dml_ctes(statement: Insert | Update | Delete) -> tuple[Any, ...]:
    """CTEs that were added to a statement on their own, with ``add_cte()``."""
    return tuple(statement._independent_ctes)


def context_of_defaults(connection: Connection, compiled: Any) -> Any:
    """An execution context of an INSERT that is not run, for defaults that are given one.

    Whoever asks a default sets ``current_parameters`` and ``current_column`` before.
    """
    dialect: Any = connection.dialect
    context: Any = dialect.execution_ctx_cls.__new__(dialect.execution_ctx_cls)
    context.dialect = dialect
    context.root_connection = connection
    context.compiled = compiled
    context.isinsert, context.isupdate = True, False
    context.execution_options = connection.get_execution_options()
    return context
