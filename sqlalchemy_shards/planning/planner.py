"""How several shards answer a statement by themselves; or why they cannot.

One pass per question, in `PASSES`. A pass raises `Refusal`, or adds to the draft. What no pass
objects to adds up: each shard answers for its own rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import Boolean, Date, DateTime, Integer, String, TypeDecorator, Uuid
from sqlalchemy.sql.dml import Insert, UpdateBase
from sqlalchemy.sql.elements import BindParameter, ColumnClause, Label
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import distinct_op
from sqlalchemy.sql.selectable import Select
from sqlalchemy.types import NullType

from sqlalchemy_shards import _compat
from sqlalchemy_shards.plan import (
    Aggregate,
    AggregateRow,
    Concatenate,
    FirstCopy,
    ForeignOrder,
    OrderedMerge,
    Scatter,
    SortKey,
    SumOfCounts,
    TextKey,
    Window,
)
from sqlalchemy_shards.routing.row_wise import text_of, why_not_row_wise

from .derived import NotRewritable
from .ordering import Ordering, orderings
from .refusal import Refusal
from .rewriting import Rewritten, rewrite
from .wire import as_text, is_shippable

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import ColumnElement

    from sqlalchemy_shards.catalog.columns import ColumnType
    from sqlalchemy_shards.plan import Merge
    from sqlalchemy_shards.routing.sources import StatementSources


class Facts(Protocol):
    """What only the shards' catalogs know."""

    def orders_by_code_point(self, expression: ColumnElement[Any]) -> bool:
        """Whether a text expression's collation orders as Python orders strings."""

    def type_of(self, expression: ColumnElement[Any]) -> ColumnType | None:
        """The type of a plain column; None: it is not known, or no plain column."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan for several shards, kept beside the compiled statement.

    :param scatter: the plan, as data.
    :param rewritten: the statement for the shards, where it is another.
    """

    scatter: Scatter
    rewritten: Rewritten | None = None


@dataclass(slots=True)
class _Draft:
    """What the passes have found."""

    sources: StatementSources
    compiled: SQLCompiler
    statement: Any
    facts: Facts
    shape: _compat.SelectShape | None = None
    aggregates: tuple[Aggregate, ...] | None = None
    orderings: tuple[Ordering, ...] = ()
    window: Window = field(default_factory=Window)
    key_types: tuple[ColumnType, ...] = ()
    """Of the sort keys, where Python does not order them as PostgreSQL does."""


def prepare(sources: StatementSources, compiled: SQLCompiler, facts: Facts) -> Prepared:
    """Plan a statement for several shards.

    :raises Refusal: they could not answer exactly as one database would.
    """
    statement: Any = _compat.core_statement(compiled)
    draft = _Draft(sources, compiled, statement, facts)
    for check in PASSES:
        check(draft)
    if isinstance(statement, UpdateBase):
        return Prepared(Scatter(FirstCopy() if sources.writes_reference else SumOfCounts()))
    if draft.aggregates is not None:
        return Prepared(Scatter(AggregateRow(draft.aggregates)))
    return _merge_rows(draft)


# -- the passes -------------------------------------------------------------------------------


def _readable(draft: _Draft) -> None:
    """It is known which tables the statement names."""
    if draft.sources.unreadable is not None:
        raise Refusal(
            draft.sources.unreadable,
            'say where it runs with execution_options(shard="...") or shard_key=(Model, key)',
        )


def _additive(draft: _Draft) -> None:
    """The rows of an answer come from one shard each, or every copy is changed alike."""
    sources = draft.sources
    if sources.writes_reference and (sources.tables or sources.reads_global):
        raise Refusal("it would fill a reference table from rows that not every shard has")
    if sources.obstacle is not None:
        raise Refusal(sources.obstacle)


def _deterministic_write(draft: _Draft) -> None:
    """What is written does not depend on the shard that writes it."""
    statement = draft.statement
    if not isinstance(statement, UpdateBase):
        return
    if _compat.has_extensions(statement):
        raise Refusal("it has a clause of a syntax extension")
    expressions: list[Any] = _compat.dml_expressions(draft.compiled)
    where = getattr(statement, "whereclause", None)
    expressions += [where] if where is not None else []
    expressions += _compat.returning(statement)
    select = statement.select if isinstance(statement, Insert) else None
    if isinstance(select, Select) and not draft.sources.writes_reference:
        expressions += [select.whereclause] if select.whereclause is not None else []
        for element in _compat.from_list(select):
            expressions += _on_clauses(element)
    conflict = _compat.post_values_clause(statement) if isinstance(statement, Insert) else None
    expressions += _compat.conflict_expressions(conflict) if conflict is not None else []
    reason = why_not_row_wise(expressions)
    if reason is None and isinstance(select, Select):
        # Groups are those of one key each, or the statement has an obstacle.
        having = _compat.select_shape(select).having
        reason = why_not_row_wise([*select.selected_columns, *having], aggregates_too=True)
    if reason is not None:
        raise Refusal(reason, "compute the value in the application and pass it as a parameter")


def _plain_select(draft: _Draft) -> None:
    """No clause looks at rows of several shards at once."""
    if isinstance(draft.statement, UpdateBase):
        return
    if not isinstance(draft.statement, Select):
        raise Refusal("set operations over several shards are not supported yet")
    draft.shape = shape = _compat.select_shape(draft.statement)
    if shape.group_by or shape.having:
        raise Refusal("GROUP BY and HAVING over several shards are not supported yet")
    if shape.distinct:
        raise Refusal("DISTINCT over several shards is not supported yet")
    if shape.extended:
        raise Refusal("clauses of syntax extensions over several shards are not supported")
    if shape.fetch is not None:
        raise Refusal("FETCH over several shards is not supported yet", "use limit()")
    if shape.embellished:
        raise Refusal("prefixes, suffixes and hints are raw SQL text")
    if shape.for_update and (shape.limit is not None or shape.offset is not None):
        raise Refusal("FOR UPDATE with LIMIT would lock rows that the answer does not hold")


def _aggregates(draft: _Draft) -> None:
    """Either every column is an aggregate that can be put together, or none is."""
    if draft.shape is None:
        return
    columns = _compat.column_list(draft.statement)
    found = [_aggregate(column) for column in columns]
    if not columns or None in found:
        return
    shape = draft.shape
    if shape.order_by or shape.limit is not None or shape.offset is not None:
        raise Refusal("aggregates with ORDER BY, LIMIT or OFFSET are not supported yet")
    draft.aggregates = tuple(each for each in found if each is not None)


def _order(draft: _Draft) -> None:
    """The order is one that Python can merge exactly."""
    if draft.shape is None or draft.aggregates is not None:
        return
    found = orderings(draft.shape.order_by, _compat.label_meanings(draft.compiled))
    if found is None:
        raise Refusal("ORDER BY names something that is not a column or expression")
    if found and any(text_of(column) == "*" for column in _compat.column_list(draft.statement)):
        raise Refusal("it cannot be told how many columns * stands for")
    draft.orderings = found


def _row_wise(draft: _Draft) -> None:
    """Every expression gives on a shard what it would give on one database."""
    if draft.shape is None:
        return
    statement = draft.statement
    expressions: list[Any] = []
    for column in _compat.column_list(statement):
        if draft.aggregates is None:
            expressions.append(column)
        else:
            expressions.extend(_arguments(column))
    expressions += [statement.whereclause] if statement.whereclause is not None else []
    for element in _compat.from_list(statement):
        expressions += _on_clauses(element)
    expressions += [ordering.expression for ordering in draft.orderings]
    reason = why_not_row_wise(expressions)
    if reason is not None:
        raise Refusal(reason)


def _comparable(draft: _Draft) -> None:
    """Python compares and adds up the values as PostgreSQL does, as far as the model tells.

    What the types of the rows tell later counts for more.
    """
    reasons = [_why_not_ordered(draft, ordering.expression) for ordering in draft.orderings]
    reason = next(filter(None, reasons), None)
    if reason is not None:
        draft.key_types = _types_of_keys(draft, reason)
    for column, function in zip(
        draft.statement.selected_columns if draft.aggregates else (),
        draft.aggregates or (),
        strict=True,
    ):
        types = [_plain_type(argument) for argument in _arguments(column)]
        known = (Integer, NullType) if function is Aggregate.SUM else _COMPARABLE
        if function is not Aggregate.COUNT and not all(isinstance(each, known) for each in types):
            raise Refusal(f"Python does not find the {function.value}() that PostgreSQL does")


def _why_not_ordered(draft: _Draft, expression: Any) -> str | None:
    type_ = _plain_type(expression)
    if not isinstance(type_, String):
        if isinstance(type_, _COMPARABLE):
            return None
        return f"Python does not order values of type {type_!r} as PostgreSQL does"
    if _is_byte_order(draft, expression):
        return None
    return "the order of its text is known to PostgreSQL alone"


def _types_of_keys(draft: _Draft, reason: str) -> tuple[ColumnType, ...]:
    """The types that the workspace compares the sort keys by."""
    types = []
    for ordering in draft.orderings:
        # Under a schema_translate_map the column may be another one at each execution.
        is_known = not draft.compiled.schema_translate_map
        type_ = draft.facts.type_of(ordering.expression) if is_known else None
        if type_ is None or not is_shippable(type_):
            raise Refusal(reason)
        types.append(type_)
    return tuple(types)


_COMPARABLE: Final = (Boolean, Date, DateTime, Integer, NullType, Uuid)


def _plain_type(expression: Any) -> Any:
    type_ = getattr(expression, "type", None) or NullType()
    return type_.impl_instance if isinstance(type_, TypeDecorator) else type_


def _limit(draft: _Draft) -> None:
    """LIMIT and OFFSET are parameters, so that each shard can be asked for enough rows."""
    if draft.shape is None:
        return
    names: list[str | None] = []
    for clause in (draft.shape.limit, draft.shape.offset):
        if clause is None:
            names.append(None)
        elif isinstance(clause, BindParameter) and clause in draft.compiled.bind_names:
            names.append(draft.compiled.bind_names[clause])
        else:
            raise Refusal("LIMIT and OFFSET must be numbers, not SQL expressions")
    draft.window = Window(*names)


PASSES: Final[tuple[Callable[[_Draft], None], ...]] = (
    _readable,
    _additive,
    _deterministic_write,
    _plain_select,
    _aggregates,
    _order,
    _row_wise,
    _comparable,
    _limit,
)


# -- the pieces -------------------------------------------------------------------------------


def _merge_rows(draft: _Draft) -> Prepared:
    merge: Merge
    sort_keys = [ordering.expression for ordering in draft.orderings]
    if not draft.orderings:
        merge = Concatenate(draft.window)
        if draft.window == Window():
            return Prepared(Scatter(merge))
    elif draft.key_types:
        merge = _foreign_order(draft)
        sort_keys = [
            as_text(key, type_) for key, type_ in zip(sort_keys, draft.key_types, strict=True)
        ]
    else:
        visible = len(_compat.column_list(draft.statement))
        merge = OrderedMerge(
            keys=tuple(
                SortKey(
                    column=visible + index,
                    descending=ordering.descending,
                    nulls_first=ordering.nulls_first,
                    is_byte_order=_is_byte_order(draft, ordering.expression),
                )
                for index, ordering in enumerate(draft.orderings)
            ),
            visible=visible,
            window=draft.window,
        )
    try:
        rewritten = rewrite(
            draft.statement,
            draft.compiled,
            sort_keys,
            draft.window,
        )
    except NotRewritable as reason:
        raise Refusal(str(reason)) from None
    return Prepared(Scatter(merge, is_rewritten=True), rewritten)


def _foreign_order(draft: _Draft) -> ForeignOrder:
    visible = len(_compat.column_list(draft.statement))
    return ForeignOrder(
        keys=tuple(
            TextKey(
                column=visible + index,
                type_sql=type_.sql,
                collation=type_.collation,
                descending=ordering.descending,
                nulls_first=ordering.nulls_first,
            )
            for index, (ordering, type_) in enumerate(
                zip(draft.orderings, draft.key_types, strict=True)
            )
        ),
        visible=visible,
        window=draft.window,
    )


def _is_byte_order(draft: _Draft, expression: Any) -> bool:
    # Under a schema_translate_map the column may be another one at each execution.
    is_column = isinstance(expression, ColumnClause)
    if is_column and draft.compiled.schema_translate_map:
        return False
    return draft.facts.orders_by_code_point(expression)


def _aggregate(column: Any) -> Aggregate | None:
    """The aggregate that a column is, if its partial results can be put together."""
    function = column.element if isinstance(column, Label) else column
    if not isinstance(function, FunctionElement) or _compat.compiles_itself(function):
        return None
    if getattr(function, "packagenames", None):
        return None
    clauses: Any = function.clauses
    if any(getattr(clause, "operator", None) is distinct_op for clause in clauses):
        return None
    name = str(getattr(function, "name", "")).lower()
    return next((each for each in Aggregate if each.value == name), None)


def _arguments(column: Any) -> list[Any]:
    function = column.element if isinstance(column, Label) else column
    return [
        clause
        for clause in function.clauses
        if not (getattr(clause, "is_literal", False) and clause.name == "*")
    ]


def _on_clauses(element: Any) -> list[Any]:
    if hasattr(element, "onclause"):
        return [element.onclause, *_on_clauses(element.left), *_on_clauses(element.right)]
    return []
