"""SELECTs and compiled statements: what they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.orm.context import QueryContext
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.selectable import Select

from sqlalchemy_shards.sql_text import is_comment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import BindParameter, ColumnElement
    from sqlalchemy.sql.selectable import CompoundSelect, FromClause, Values
    from sqlalchemy.types import TypeEngine


def core_statement(compiled: SQLCompiler) -> ClauseElement:
    """The Core statement that was compiled: an ORM statement after the ORM has worked on it."""
    statement: Any = getattr(_state(compiled), "statement", None)
    return statement if statement is not None else cast("ClauseElement", compiled.statement)


def _state(compiled: SQLCompiler) -> Any:
    outermost = getattr(compiled, "outermost", None)
    return compiled.compile_state if outermost is None else outermost


def is_refresh(compiled: SQLCompiler) -> bool:
    """Whether a SELECT loads attributes of one object that the session holds."""
    options = getattr(compiled.compile_state, "compile_options", None)
    return bool(getattr(options, "_for_refresh_state", False))


def checking_versions() -> Mapping[str, Any]:
    """Execution options that hold loaded rows against the versions of objects that are there, as
    ``get(with_for_update=True)`` does."""
    return {"_sa_orm_load_options": QueryContext.default_load_options + {"_version_check": True}}


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
    names: Mapping[str, ColumnElement[Any]]
    """What a name given as a string stands for: columns, or columns of the FROM list."""


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
    names, _, labels = state._label_resolve_dict
    return FinalSelect(final, froms, labels, names)


def from_list(select: Select[Any]) -> Sequence[FromClause]:
    """What ``get_final_froms()`` gives, which compiles the whole SELECT first."""
    compiler: Any = _POSTGRESQL.statement_compiler(_POSTGRESQL, None)
    state: Any = select._compile_state_factory(select, compiler)
    return state._get_display_froms()  # type: ignore[no-any-return]


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
    fetches_otherwise: bool
    """FETCH is no LIMIT: it counts per cent, or gives ties with the last row."""
    group_by: tuple[ColumnElement[Any], ...]
    having: tuple[ColumnElement[Any], ...]
    distinct: bool
    distinct_on: tuple[ColumnElement[Any], ...]
    for_update: bool
    skips_locked: bool
    independent_ctes: tuple[Any, ...]
    embellished: bool
    """It has prefixes, suffixes or statement hints: raw text that cannot be looked into."""
    extended: bool
    """It has clauses of syntax extensions but DISTINCT ON, which is one in SQLAlchemy 2.1."""


def select_shape(select: Select[Any] | CompoundSelect[Any]) -> SelectShape:
    """Read the clauses of a SELECT or of a set operation."""
    return SelectShape(
        order_by=tuple(select._order_by_clauses),
        limit=select._limit_clause,
        offset=select._offset_clause,
        fetch=select._fetch_clause,
        fetches_otherwise=any((select._fetch_clause_options or {}).values()),
        group_by=tuple(select._group_by_clauses),
        having=tuple(getattr(select, "_having_criteria", ())),
        distinct=bool(getattr(select, "_distinct", False) or getattr(select, "_distinct_on", ())),
        distinct_on=tuple(getattr(select, "_distinct_on", ())) or _picked_by(select),
        for_update=select._for_update_arg is not None,
        skips_locked=bool(getattr(select._for_update_arg, "skip_locked", False)),
        independent_ctes=tuple(select._independent_ctes),
        embellished=is_embellished(select),
        extended=has_extensions(select),
    )


def is_embellished(statement: Any) -> bool:
    """Whether a statement has prefixes, suffixes or hints that are more than comments.

    Those for other dialects are not written.
    """
    hints = getattr(statement, "_hints", None) or {}
    if any(dialect in _DIALECTS for _, dialect in hints):
        return True
    texts = list(getattr(statement, "_statement_hints", ()))
    for name in ("_prefixes", "_suffixes"):
        clauses = getattr(statement, name, None) or ()
        texts += [(dialect, getattr(clause, "text", "")) for clause, dialect in clauses]
    return not all(is_comment(text) for dialect, text in texts if dialect in _DIALECTS)


_DIALECTS: Final = (None, "*", "postgresql")
"""The dialects whose prefixes, suffixes and hints are written."""


def locked_elements(select: Select[Any]) -> Sequence[Any]:
    """What ``with_for_update(of=...)`` names; empty: everything that is read."""
    argument: Any = select._for_update_arg
    return () if argument is None else tuple(argument.of or ())


def loads_by_joins(compiled: SQLCompiler) -> bool:
    """Whether ``joinedload()``, or a relationship that loads so, has added joins to a SELECT."""
    return bool(getattr(_state(compiled), "eager_joins", None))


def has_extensions(statement: Any) -> bool:
    """Whether ``ext()`` (SQLAlchemy 2.1) put clauses into a statement that only it knows."""
    positions = getattr(statement, "_position_map", {})
    known = {"_post_values_clause"}  # ON CONFLICT, which is read
    if _picked_by(statement):
        known.add("_pre_columns_clause")
    return any(
        getattr(statement, name, None) is not None
        for name in positions.values()
        if name not in known
    )


def _picked_by(statement: Any) -> tuple[Any, ...]:
    """The expressions of ``ext(distinct_on(...))`` (SQLAlchemy 2.1)."""
    clause: Any = getattr(statement, "_pre_columns_clause", None)
    is_distinct_on = getattr(clause, "__visit_name__", None) == "postgresql_distinct_on"
    return tuple(clause._distinct_on) if is_distinct_on else ()


def compiles_itself(node: Any) -> bool:
    """Whether a construct is written by a function of the application, given by ``@compiles``."""
    return hasattr(type(node), "_compiler_dispatcher")


def label_meanings(compiled: SQLCompiler) -> Mapping[str, ColumnElement[Any]]:
    """What the names in ``order_by("name")`` stand for: columns of a compiled SELECT, or of its
    FROM list. Nothing is known of them in a set operation in ``from_statement()``."""
    known: Any = getattr(_state(compiled), "_label_resolve_dict", ({},))
    return known[0]  # type: ignore[no-any-return]


def with_more_columns(select: Select[Any], columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """Add columns to a SELECT that the ORM is done with.

    ``add_columns()`` alone would hand it to the ORM once more where a column is a mapped one, and
    criteria that the ORM has put in, as of single-table inheritance, would be put in twice.
    """
    added = select.add_columns(*columns)
    added._propagate_attrs = select._propagate_attrs
    return added


def column_list(select: Select[Any]) -> list[Any]:
    """What a SELECT has between SELECT and FROM, tables there as their columns."""
    return list(select._all_selected_columns)


def with_columns(select: Select[Any], columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """Give a SELECT that the ORM is done with other columns; its FROM list must be explicit."""
    changed = select.with_only_columns(*columns)
    changed._propagate_attrs = select._propagate_attrs
    return changed


def without_orm(select: Select[Any]) -> Select[Any]:
    """Keep the ORM from working on a SELECT that was made of parts that it has worked on."""
    select._propagate_attrs = select._propagate_attrs.__class__()
    return select


def replaceable(expression: Any) -> Any:
    """An expression that ``replacement_traverse()`` goes into: any() and has() forbid it."""
    if _KEPT in expression._annotations:
        return expression._deannotate(values=(_KEPT,), clone=True)
    return expression


_KEPT: Final = "no_replacement_traverse"


def with_window_of(select: Select[Any], other: Select[Any]) -> Select[Any]:
    """Give a SELECT the LIMIT, OFFSET and FETCH of another one, with all that they say."""
    if other._limit_clause is not None:
        select = select.limit(other._limit_clause)
    if other._fetch_clause is not None:
        options: Any = other._fetch_clause_options
        select = select.fetch(other._fetch_clause, **(options or {}))
    return select if other._offset_clause is None else select.offset(other._offset_clause)


def with_distinct_on(select: Select[Any], expressions: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """Give a SELECT a DISTINCT ON, which ``distinct()`` does no longer in SQLAlchemy 2.1."""
    select = select.distinct()
    select._distinct_on = tuple(expressions)
    return select


def is_cast(bind: BindParameter[Any], dialect: Any) -> bool:
    """Whether a parameter is written with its type, so that its value does not tell the type."""
    return bool(bind.type._unwrapped_dialect_impl(dialect).render_bind_cast)


def cast_of(type_: TypeEngine[Any], compiler: SQLCompiler) -> str | None:
    """The type that values of a type are cast to where they are written; None: they are not."""
    implementation: Any = type_._unwrapped_dialect_impl(compiler.dialect)
    if not implementation.render_bind_cast:
        return None
    written: Any = compiler
    return str(written.render_bind_cast(type_, implementation, "")).removeprefix("::")


def has_expressions(values: Values) -> bool:
    """Whether VALUES hold anything but plain values."""
    rows: Any = values._data
    cells = (cell for part in rows for row in part for cell in row)
    return any(isinstance(c, ClauseElement) or hasattr(c, "__clause_element__") for c in cells)
