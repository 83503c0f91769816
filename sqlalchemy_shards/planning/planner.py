"""How several shards answer a statement by themselves; or why they cannot.

One pass per question, in `PASSES`. A pass raises `Refusal`, or adds to the draft. What no pass
objects to adds up: each shard answers for its own rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Float, Numeric, String
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.selectable import CompoundSelect, Select
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
from sqlalchemy_shards.routing.nested import is_cut_off
from sqlalchemy_shards.routing.row_wise import text_of, why_not_row_wise
from sqlalchemy_shards.routing.scopes import conditions_of

from .aggregates import (
    COMPARABLE,
    aggregate_of,
    arguments_of,
    is_the_same_in_a_group,
    why_not_put_together,
)
from .deterministic import check_deterministic
from .draft import Draft, Facts, Prepared, plain_type
from .elsewhere import TIMES, asks_for_the_time
from .groups import Grouping
from .ordering import orderings
from .refusal import LOCK_OTHERWISE, TAKE_IN_TURN, Refusal, advice_on_unreadable
from .unions import check_union, columns_of_members, places_of_keys
from .wire import as_text, is_shippable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.sql.compiler import SQLCompiler

    from sqlalchemy_shards.catalog.columns import ColumnType
    from sqlalchemy_shards.plan import Merge
    from sqlalchemy_shards.routing.sources import StatementSources


def prepare(sources: StatementSources, compiled: SQLCompiler, facts: Facts) -> Prepared:
    """Plan a statement for several shards.

    :raises Refusal: they could not answer exactly as one database would.
    """
    statement: Any = _compat.core_statement(compiled)
    draft = Draft(sources, compiled, statement, facts)
    for check in PASSES:
        check(draft)
    if isinstance(statement, UpdateBase):
        return Prepared(Scatter(FirstCopy() if sources.writes_reference else SumOfCounts()))
    if draft.aggregates is not None:
        return _merge_aggregates(draft, draft.aggregates)
    if draft.grouping is not None:
        return draft.grouping.plan()
    return _merge_rows(draft)


# -- the passes -------------------------------------------------------------------------------


def _readable(draft: Draft) -> None:
    """It is known which tables the statement names."""
    if draft.sources.unreadable is not None:
        reason = draft.sources.unreadable
        raise Refusal(reason, advice_on_unreadable(reason))


def _additive(draft: Draft) -> None:
    """The rows of an answer come from one shard each, or every copy is changed alike."""
    sources = draft.sources
    if sources.writes_reference and (sources.tables or sources.reads_global):
        raise Refusal("it would fill a reference table from rows that not every shard has")
    if sources.obstacle is not None:
        raise Refusal(sources.obstacle)


def _deterministic_write(draft: Draft) -> None:
    """What is written does not depend on the shard that writes it."""
    if isinstance(draft.statement, UpdateBase):
        check_deterministic(
            draft.statement,
            draft.compiled,
            draft.facts,
            writes_reference=draft.sources.writes_reference,
        )


def _plain_select(draft: Draft) -> None:
    """No clause looks at rows of several shards at once, but for groups that can be made one."""
    if isinstance(draft.statement, UpdateBase):
        return
    is_union = not isinstance(draft.statement, Select)
    if is_union:
        check_union(draft.statement)
    draft.shape = shape = _compat.select_shape(draft.statement)
    if shape.having and not (shape.group_by and draft.sources.is_key_by_key):
        raise Refusal("HAVING over several shards looks at whole groups")
    is_local = draft.sources.is_key_by_key
    if shape.distinct and not is_local and (shape.group_by or shape.distinct_on):
        raise Refusal("DISTINCT compares rows of all shards")
    if shape.extended:
        raise Refusal("it has a clause of a syntax extension")
    if shape.fetches_otherwise:
        raise Refusal("FETCH ... WITH TIES and PERCENT look at the rows of all shards")
    if shape.embellished:
        raise Refusal("it holds raw SQL text as prefix, suffix or hint")
    if shape.for_update and (shape.group_by or shape.distinct or is_union):
        raise Refusal("FOR UPDATE cannot lock the rows that groups are made of", LOCK_OTHERWISE)
    if shape.for_update and is_cut_off(shape):
        raise Refusal(
            "FOR UPDATE with LIMIT would lock rows that the answer does not hold",
            TAKE_IN_TURN if shape.skips_locked else LOCK_OTHERWISE,
        )


def _aggregates(draft: Draft) -> None:
    """Without GROUP BY, every column is an aggregate that can be put together, or none is."""
    if draft.shape is None or draft.shape.group_by or draft.shape.distinct:
        return
    columns = _compat.column_list(draft.statement)
    found = [_partial(column) for column in columns]
    if None not in found and any(aggregate_of(column) is not None for column in columns):
        draft.aggregates = tuple(each for each in found if each is not None)


def _partial(column: Any) -> Aggregate | None:
    function = aggregate_of(column)
    if function is None and is_the_same_in_a_group(column):
        return Aggregate.ANY_VALUE
    return function


def _order(draft: Draft) -> None:
    """The order is one that Python can merge exactly."""
    if draft.shape is None or draft.aggregates is not None:
        return
    found = orderings(draft.shape.order_by, _compat.label_meanings(draft.compiled))
    if found is None:
        raise Refusal("ORDER BY names something that is not a column or expression")
    if found and any(text_of(column) == "*" for column in _compat.column_list(draft.statement)):
        raise Refusal("it cannot be told how many columns * stands for")
    draft.orderings = found


def _groups(draft: Draft) -> None:
    """Groups and distinct rows are those of one shard key each, or Python can make them one."""
    if draft.shape is None or draft.sources.is_key_by_key:
        return
    if draft.shape.group_by or draft.shape.distinct:
        draft.grouping = Grouping(draft)


def _row_wise(draft: Draft) -> None:
    """Every expression gives on a shard what it would give on one database."""
    if draft.shape is None or isinstance(draft.statement, CompoundSelect):
        return  # members of a union that adds up were looked at when it was walked
    shape, statement = draft.shape, draft.statement
    expressions = [*shape.group_by, *shape.distinct_on, *conditions_of(statement)]
    if draft.grouping is not None:
        expressions += draft.grouping.row_wise_parts()
    for column in _compat.column_list(statement) if draft.aggregates else ():
        expressions += arguments_of(column) if aggregate_of(column) else [column]
    reason = why_not_row_wise(expressions, further=TIMES)
    if reason is None and draft.grouping is None and draft.aggregates is None:
        keys = [ordering.expression for ordering in draft.orderings]
        reason = why_not_row_wise(
            [*_compat.column_list(statement), *keys, *shape.having],
            aggregates_too=bool(shape.group_by),
            windows_too=draft.sources.is_key_by_key,
            further=TIMES,
        )
    if reason is not None:
        raise Refusal(reason)
    draft.is_timed = asks_for_the_time(draft.compiled)


def _comparable(draft: Draft) -> None:
    """Python compares and adds up the values as PostgreSQL does, as far as the model tells.

    What the types of the rows tell later counts for more.
    """
    keys = [each.expression for each in draft.orderings]
    if isinstance(draft.statement, CompoundSelect):
        keys = columns_of_members(draft)
    reasons = [_why_not_ordered(draft, key) for key in keys]
    reason = next(filter(None, reasons), None)
    if reason is not None:
        if draft.grouping is not None or _shows_its_keys(draft):
            raise Refusal(reason)
        draft.key_types = _types_of_keys(draft, reason)
    for column, function in zip(
        _compat.column_list(draft.statement) if draft.aggregates else (),
        draft.aggregates or (),
        strict=True,
    ):
        reason = why_not_put_together(column, function) if aggregate_of(column) else None
        if reason is not None:
            raise Refusal(reason)


_ORDERED_ALIKE: Final = frozenset(
    "bigint boolean bytea date integer numeric smallint uuid".split()
) | {"timestamp with time zone", "timestamp without time zone"}


def _shows_its_keys(draft: Draft) -> bool:
    """Whether no column may be added: of distinct rows, and of members of a union."""
    if isinstance(draft.statement, CompoundSelect):
        return True
    return draft.shape is not None and draft.shape.distinct and not draft.shape.distinct_on


def _why_not_ordered(draft: Draft, expression: Any) -> str | None:
    type_ = plain_type(expression)
    # The model does not say what functions give.
    known = draft.known_type(expression) if isinstance(type_, NullType) else None
    if not isinstance(type_, String) and (known is None or not known.is_text):
        if known is not None and known.base not in _ORDERED_ALIKE:
            return f"Python does not order values of type {known.base} as PostgreSQL does"
        if isinstance(type_, (*COMPARABLE, Numeric)) and not isinstance(type_, Float):
            return None
        return f"Python does not order values of type {type_!r} as PostgreSQL does"
    if draft.is_byte_order(expression):
        return None
    return "the order of its text is known to PostgreSQL alone"


def _types_of_keys(draft: Draft, reason: str) -> tuple[ColumnType, ...]:
    """The types that the workspace compares the sort keys by."""
    types = []
    for ordering in draft.orderings:
        type_ = draft.known_type(ordering.expression)
        if type_ is None or not is_shippable(type_):
            raise Refusal(reason)
        types.append(type_)
    return tuple(types)


def _limit(draft: Draft) -> None:
    """LIMIT and OFFSET are parameters, so that each shard can be asked for enough rows."""
    if draft.shape is None:
        return
    names: list[str | None] = []
    shape = draft.shape
    for clause in (shape.fetch if shape.limit is None else shape.limit, shape.offset):
        if clause is None:
            names.append(None)
        elif isinstance(clause, BindParameter) and clause in draft.compiled.bind_names:
            names.append(draft.compiled.bind_names[clause])
        else:
            raise Refusal("LIMIT and OFFSET must be numbers, not SQL expressions")
    draft.window = Window(*names)


PASSES: Final[tuple[Callable[[Draft], None], ...]] = (
    _readable,
    _additive,
    _deterministic_write,
    _plain_select,
    _aggregates,
    _order,
    _groups,
    _row_wise,
    _comparable,
    _limit,
)


# -- the pieces -------------------------------------------------------------------------------


def _merge_aggregates(draft: Draft, functions: tuple[Aggregate, ...]) -> Prepared:
    merge = AggregateRow(functions, draft.window)
    if draft.is_as_given:
        return Prepared(Scatter(merge))
    return Prepared(Scatter(merge, is_rewritten=True), draft.rewritten([], keeps_window=False))


def _merge_rows(draft: Draft) -> Prepared:
    if draft.orderings and _shows_its_keys(draft):
        return _merge_by_columns(draft)
    sort_keys = [ordering.expression for ordering in draft.orderings]
    merge: Merge = Concatenate(draft.window)
    if not draft.orderings and draft.is_as_given:
        return Prepared(Scatter(merge))
    if draft.key_types:
        merge = _foreign_order(draft)
        sort_keys = [
            as_text(key, type_) for key, type_ in zip(sort_keys, draft.key_types, strict=True)
        ]
    elif draft.orderings:
        visible = len(_compat.column_list(draft.statement))
        merge = _ordered_merge(draft, range(visible, visible + len(sort_keys)))
    rewritten = draft.rewritten(
        [key.label(f"shards_sort_{index}") for index, key in enumerate(sort_keys)]
    )
    return Prepared(Scatter(merge, is_rewritten=True), rewritten)


def _merge_by_columns(draft: Draft) -> Prepared:
    """Sort by columns that are there."""
    keys = places_of_keys(draft)
    merge = _ordered_merge(draft, keys)
    if draft.is_as_given:
        return Prepared(Scatter(merge))
    return Prepared(Scatter(merge, is_rewritten=True), draft.rewritten([]))


def _ordered_merge(draft: Draft, columns: Sequence[int]) -> OrderedMerge:
    return OrderedMerge(
        keys=tuple(
            SortKey(
                column=column,
                descending=ordering.descending,
                nulls_first=ordering.nulls_first,
                is_byte_order=draft.is_byte_order(ordering.expression),
            )
            for column, ordering in zip(columns, draft.orderings, strict=True)
        ),
        visible=len(_compat.column_list(draft.statement)),
        window=draft.window,
    )


def _foreign_order(draft: Draft) -> ForeignOrder:
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
