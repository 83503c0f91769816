"""Every private name of SQLAlchemy that this package reads, and nothing else.

Each function here has a test (`tests/unit/test_compat.py`) that runs on every supported version of
SQLAlchemy, so that a release that moves one of these names fails there and not in a user's hands.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.selectable import Select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Column
    from sqlalchemy.dialects.postgresql import ExcludeConstraint
    from sqlalchemy.engine.default import DefaultExecutionContext
    from sqlalchemy.orm import InstanceState, Session
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.dml import Delete, Insert, Update, UpdateBase
    from sqlalchemy.sql.elements import BindParameter, ColumnElement
    from sqlalchemy.sql.selectable import CompoundSelect, FromClause, Values
    from sqlalchemy.types import TypeEngine


# -- statements -------------------------------------------------------------------------------


def core_statement(compiled: SQLCompiler) -> ClauseElement:
    """The Core statement that was compiled: an ORM statement after the ORM has worked on it."""
    statement: Any = getattr(compiled.compile_state, "statement", None)
    return statement if statement is not None else cast("ClauseElement", compiled.statement)


def is_refresh(compiled: SQLCompiler) -> bool:
    """Whether a SELECT loads attributes of one object that the session holds."""
    options = getattr(compiled.compile_state, "compile_options", None)
    return bool(getattr(options, "_for_refresh_state", False))


def is_loaders(compiled: SQLCompiler) -> bool:
    """Whether a SELECT was made by the ORM to load attributes of objects that it loaded before."""
    options = getattr(compiled.compile_state, "compile_options", None)
    if options is None:
        return False
    if is_refresh(compiled) or len(getattr(options, "_current_path", None) or ()) > 0:
        return True
    # Attributes of a subclass, by selectin_polymorphic(), which has no path at its top.
    return any(bind.key == "primary_keys" for bind in compiled.binds.values())


_POSTGRESQL: Final[Any] = PGDialect()  # type: ignore[no-untyped-call]


class FinalSelect(NamedTuple):
    """A SELECT as the compiler renders it, with the FROM list after correlation."""

    select: Select[Any]
    froms: Sequence[FromClause]
    labels: Mapping[str, ColumnElement[Any]]
    """The labelled columns, which ORDER BY and GROUP BY may name instead of repeating them."""


def final_select(
    select: Select[Any],
    *,
    is_from: bool,
    enclosing: frozenset[FromClause],
    directly_enclosing: frozenset[FromClause],
) -> FinalSelect:
    """Return ``select`` after ORM compilation, with correlated tables taken out of its FROM list.

    :param is_from: it stands in a FROM list (and is not LATERAL): correlates only when told to.
    :param enclosing: all FROM elements of the enclosing SELECTs.
    :param directly_enclosing: those of the SELECT right around it.
    """
    # Not the statement's default compiler, which warns of what only PostgreSQL has.
    compiler: Any = _POSTGRESQL.statement_compiler(_POSTGRESQL, None)
    state: Any = select._compile_state_factory(select, compiler)
    if is_from:
        froms = state._get_display_froms(
            explicit_correlate_froms=enclosing - directly_enclosing,
            implicit_correlate_froms=(),
        )
    else:
        froms = state._get_display_froms(
            explicit_correlate_froms=enclosing, implicit_correlate_froms=directly_enclosing
        )
    statement = getattr(state, "statement", None)
    final = statement if isinstance(statement, Select) else select
    return FinalSelect(final, froms, state._label_resolve_dict[2])


def is_written_as_label(expression: Any, labels: Mapping[str, ColumnElement[Any]]) -> bool:
    """Whether an element of ORDER BY or GROUP BY is rendered as the name of a column.

    :param labels: those of the `FinalSelect`.
    """
    if getattr(expression, "__visit_name__", None) != "label_reference":
        return False
    label = expression.element._order_by_label_element
    return label is not None and label.name in labels and label.shares_lineage(labels[label.name])


class SelectShape(NamedTuple):
    """The clauses of a SELECT that can be replaced publicly, but only read privately."""

    order_by: tuple[ColumnElement[Any], ...]
    limit: ColumnElement[Any] | None
    offset: ColumnElement[Any] | None
    fetch: ColumnElement[Any] | None
    group_by: tuple[ColumnElement[Any], ...]
    having: tuple[ColumnElement[Any], ...]
    distinct: bool
    distinct_on: bool
    for_update: bool
    independent_ctes: tuple[Any, ...]
    embellished: bool
    """It has prefixes, suffixes or statement hints: raw text that cannot be looked into."""
    extended: bool
    """It has clauses of syntax extensions, such as DISTINCT ON of SQLAlchemy 2.1."""


def select_shape(select: Select[Any] | CompoundSelect[Any]) -> SelectShape:
    """Read the clauses of a SELECT or of a set operation."""
    return SelectShape(
        order_by=tuple(select._order_by_clauses),
        limit=select._limit_clause,
        offset=select._offset_clause,
        fetch=select._fetch_clause,
        group_by=tuple(select._group_by_clauses),
        having=tuple(getattr(select, "_having_criteria", ())),
        distinct=bool(getattr(select, "_distinct", False) or getattr(select, "_distinct_on", ())),
        distinct_on=bool(getattr(select, "_distinct_on", ())),
        for_update=select._for_update_arg is not None,
        independent_ctes=tuple(select._independent_ctes),
        embellished=is_embellished(select),
        extended=has_extensions(select),
    )


def is_embellished(statement: Any) -> bool:
    """Whether a statement has prefixes, suffixes or hints, which are raw text."""
    names = ("_prefixes", "_suffixes", "_statement_hints", "_hints")
    return any(bool(getattr(statement, name, None)) for name in names)


def locked_elements(select: Select[Any]) -> Sequence[Any]:
    """What ``with_for_update(of=...)`` names; empty: everything that is read."""
    argument: Any = select._for_update_arg
    return () if argument is None else tuple(argument.of or ())


def has_extensions(statement: Any) -> bool:
    """Whether ``ext()`` (SQLAlchemy 2.1) put clauses into a statement that only it knows."""
    positions = getattr(statement, "_position_map", {})
    known = "_post_values_clause"  # ON CONFLICT, which is read
    return any(
        getattr(statement, name, None) is not None for name in positions.values() if name != known
    )


def label_meanings(compiled: SQLCompiler) -> Mapping[str, ColumnElement[Any]]:
    """What the names in ``order_by("name")`` stand for: columns of a compiled SELECT, or of its
    FROM list."""
    state: Any = compiled.compile_state
    return state._label_resolve_dict[0]  # type: ignore[no-any-return]


def with_more_columns(select: Select[Any], columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """Add columns to a SELECT that the ORM is done with.

    ``add_columns()`` alone would hand it to the ORM once more where a column is a mapped one, and
    criteria that the ORM has put in, as of single-table inheritance, would be put in twice.
    """
    added = select.add_columns(*columns)
    added._propagate_attrs = select._propagate_attrs
    return added


# -- data modification ------------------------------------------------------------------------


def dml_values(compiled: SQLCompiler) -> Mapping[str, Any] | None:
    """Column key -> value or expression given by ``values()``; None: there are none."""
    parameters = getattr(compiled.compile_state, "_dict_parameters", None)
    if not parameters:
        return None
    return {getattr(column, "key", column): value for column, value in parameters.items()}


def dml_expressions(compiled: SQLCompiler) -> list[Any]:
    """Every SQL expression that ``values()`` gives a column, of all rows of a VALUES list."""
    state = compiled.compile_state
    rows = getattr(state, "_multi_parameters", None) or [getattr(state, "_dict_parameters", None)]
    return [
        value for row in rows if row for value in row.values() if hasattr(value, "get_children")
    ]


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


def returning(statement: UpdateBase) -> Sequence[Any]:
    """What RETURNING gives back."""
    return tuple(statement._returning)


def dml_ctes(statement: Insert | Update | Delete) -> tuple[Any, ...]:
    """CTEs that were added to a statement on their own, with ``add_cte()``."""
    return tuple(statement._independent_ctes)


# -- executions -------------------------------------------------------------------------------


def raw_parameters(context: DefaultExecutionContext) -> Mapping[str, Any]:
    """Bind name -> value before bind processing, of the first parameter set of an execution.

    Expanding and literal-execute parameters are popped from ``compiled_parameters`` once they
    were rendered; here expanding ones stand under their own names again, as lists. The values of
    literal-execute ones are not kept anywhere, so they are missing.
    """
    compiled: Any = context.compiled
    if not compiled.post_compile_params and not compiled.literal_execute_params:
        return context.compiled_parameters[0]
    values = dict(context.compiled_parameters[0])
    for name, names in context._expanded_parameters.items():
        bind = compiled.binds[name]
        parts = [values.pop(part) for part in names]
        if bind.type._is_tuple_type:
            width = len(bind.type.types)
            parts = [tuple(parts[i : i + width]) for i in range(0, len(parts), width)]
        values[name] = parts
    return values


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


# -- pools ------------------------------------------------------------------------------------


def distrust_pool(pool: Any, pooled: Any, error: BaseException) -> None:
    """Let a pool check out no connection that it opened before one of them was found dead."""
    pool._invalidate(pooled, error, _checkin=False)


def pool_bound(pool: Any) -> int | None:
    """Connections that a pool may have open at once, None: any number, or it does not say."""
    size, overflow = getattr(pool, "size", None), getattr(pool, "_max_overflow", None)
    if size is None or overflow is None or overflow < 0 or size() == 0:
        return None
    return cast("int", size() + overflow)


# -- tables -----------------------------------------------------------------------------------


def exclusion_elements(constraint: ExcludeConstraint) -> list[tuple[Any, str]]:
    """The expressions that an exclusion constraint compares, each with its operator.

    Its public ``operators`` names the first column of an expression as if it were compared itself.
    """
    elements: Any = constraint._render_exprs
    return [(expression, operator) for expression, _, operator in elements]


# -- sessions ---------------------------------------------------------------------------------


def switch_identity(session: Session, state: InstanceState[Any], key: Any) -> None:
    """Let an object of a session have another identity key, until a rollback.

    As the session does it when an UPDATE has changed a primary key.
    """
    transaction: Any = session._transaction
    if transaction is None or state.key == key:
        return
    switches = transaction._key_switches
    first = switches[state][0] if state in switches else state.key
    session.identity_map.safe_discard(state)
    switches[state] = (first, key)
    state.key = key
    session.identity_map.replace(state)


def bound_values(compiled: SQLCompiler) -> dict[str, Any]:
    """The parameters of a compiled statement, as the driver takes them."""
    processors: Mapping[str, Any] = compiled._bind_processors
    values = compiled.construct_params(escape_names=False)
    return {
        name: processors[name](value) if name in processors else value
        for name, value in values.items()
    }


def has_expressions(values: Values) -> bool:
    """Whether VALUES hold anything but plain values."""
    rows: Any = values._data
    cells = (cell for part in rows for row in part for cell in row)
    return any(isinstance(c, ClauseElement) or hasattr(c, "__clause_element__") for c in cells)
