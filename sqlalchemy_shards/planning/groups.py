"""Groups that lie on several shards, and how Python makes them one; or why it cannot.

SQL before:  SELECT country, sum(score) FROM users GROUP BY country ORDER BY count(*) DESC LIMIT 3
SQL after:   SELECT country, sum(score), count(*) AS shards_column_2 FROM users GROUP BY country

Each shard groups its own rows. A column of its rows is a key, an aggregate, or something that
follows from the keys. The rows of SELECT DISTINCT are groups by all columns. ORDER BY and LIMIT
wait until the groups are whole; only where there is nothing to be put together can each shard
leave out what is beyond the limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Enum, LargeBinary, String
from sqlalchemy.sql.elements import Cast, CollationClause, ColumnClause, Label
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.sql.visitors import iterate

from sqlalchemy_shards import _compat
from sqlalchemy_shards.plan import (
    Aggregate,
    GroupedMerge,
    GroupKey,
    Scatter,
    SortKey,
)
from sqlalchemy_shards.routing.row_wise import text_of
from sqlalchemy_shards.routing.scopes import grouped_by, unlabelled

from .aggregates import (
    COMPARABLE,
    NO_TEXT,
    aggregate_of,
    arguments_of,
    is_the_same_in_a_group,
    why_not_put_together,
)
from .draft import Prepared, plain_type
from .names import columns_at_hand
from .refusal import Refusal

if TYPE_CHECKING:
    from .draft import Draft
    from .ordering import Ordering

_GROUPABLE: Final = (*COMPARABLE, LargeBinary, String)


class Grouping:
    """The columns of the shards' rows: those asked for, then what groups and order need.

    :raises Refusal: the groups cannot be made one, as far as the model and the catalogs tell.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._keys = _group_keys(draft)
        self._expressions: list[Any] = []
        self._columns: list[GroupKey | Aggregate] = []
        for column in _compat.column_list(draft.statement):
            if text_of(column) is not None:
                raise Refusal("it cannot be told how many columns * stands for")
            self._add(column)
        self._visible = len(self._columns)
        for key in self._keys:
            self._index_of(key)
        self._order = tuple(self._sort_key(ordering) for ordering in draft.orderings)

    def row_wise_parts(self) -> list[Any]:
        """What must be row-wise, so that the shards' groups are parts of the whole ones."""
        parts: list[Any] = []
        for expression, column in zip(self._expressions, self._columns, strict=True):
            is_function = isinstance(column, Aggregate) and aggregate_of(expression) is column
            parts += arguments_of(expression) if is_function else [expression]
        return parts

    def plan(self) -> Prepared:
        """How the groups are made one.

        :raises Refusal: the shards' statement cannot be derived.
        """
        window = self._draft.window
        merge = GroupedMerge(tuple(self._columns), self._visible, self._order, window)
        hidden = self._expressions[self._visible :]
        if not hidden and self._draft.is_as_given:
            return Prepared(Scatter(merge))
        has_partials = any(isinstance(column, Aggregate) for column in self._columns)
        return Prepared(
            Scatter(merge, is_rewritten=True),
            self._draft.rewritten(
                [
                    unlabelled(expression).label(f"shards_column_{index}")
                    for index, expression in enumerate(hidden, start=self._visible)
                ],
                keeps_window=not has_partials,
            ),
        )

    def _sort_key(self, ordering: Ordering) -> SortKey:
        expression = ordering.expression
        is_text = isinstance(plain_type(expression), String)
        return SortKey(
            column=self._index_of(expression),
            descending=ordering.descending,
            nulls_first=ordering.nulls_first,
            is_byte_order=is_text and self._draft.is_byte_order(expression),
        )

    def _index_of(self, expression: Any) -> int:
        """Where an expression is among the columns; it is added if it is not there yet."""
        index = self._draft.index_of(expression, self._expressions)
        if index is not None:
            return index
        if self._draft.shape is not None and self._draft.shape.distinct:
            raise Refusal("ORDER BY names what SELECT DISTINCT does not show")
        self._add(expression)
        return len(self._columns) - 1

    def _add(self, expression: Any) -> None:
        is_key = self._draft.index_of(expression, self._keys) is not None
        self._expressions.append(expression)
        self._columns.append(_key(expression, self._draft) if is_key else _no_key(expression))


def _group_keys(draft: Draft) -> list[Any]:
    """What rows are grouped by: plain expressions."""
    assert draft.shape is not None
    if draft.shape.distinct:
        return [unlabelled(column) for column in _compat.column_list(draft.statement)]
    names = _compat.label_meanings(draft.compiled)
    keys = [_meant(expression, names, draft) for expression in grouped_by(draft.shape.group_by)]
    if not all(_names_a_column(key) for key in keys):
        raise Refusal("GROUP BY names what is not a column or expression of columns")
    return keys


def _names_a_column(key: Any) -> bool:
    """Whether a key is no constant, which would be the position of a column."""
    is_literal = getattr(key, "is_literal", False)
    return not is_literal and any(
        isinstance(node, ColumnClause) and not node.is_literal for node in iterate(key)
    )


def _meant(expression: Any, names: Any, draft: Draft) -> Any:
    while expression.__visit_name__ in ("grouping", "label", "label_reference"):
        expression = expression.element
    if expression.__visit_name__ != "textual_label_reference":
        return expression
    meant = names.get(expression.element)
    if isinstance(meant, Label) and _may_be_a_column(meant.name, draft):
        raise Refusal(
            f"GROUP BY names {meant.name!r}, which may be a column of a table, too",
            "group by the label itself instead of its name",
        )
    return unlabelled(meant)


def _may_be_a_column(name: str, draft: Draft) -> bool:
    """Whether PostgreSQL could take the name of a label for that of a column in the FROM list."""
    if draft.compiled.schema_translate_map:
        return True
    return name in columns_at_hand(draft.statement, draft.compiled, draft.facts.columns_of)


def _key(expression: Any, draft: Draft) -> GroupKey:
    element = unlabelled(expression)
    type_ = plain_type(element)
    if isinstance(type_, NO_TEXT):
        return GroupKey()
    known = draft.known_type(element)
    key = GroupKey(
        is_exact_text=_tells_texts_apart(element, draft),
        is_enum=known is not None and known.is_enum,
    )
    is_text = isinstance(type_, String)
    if key.is_enum or (isinstance(type_, _GROUPABLE) and (key.is_exact_text or not is_text)):
        return key
    raise Refusal(f"whether values of type {type_!r} are equal is known to PostgreSQL alone")


def _no_key(expression: Any) -> Aggregate:
    function = aggregate_of(expression)
    if function is None:
        if is_the_same_in_a_group(expression):
            return Aggregate.ANY_VALUE
        raise Refusal("a column is neither a key of its groups nor an aggregate that adds up")
    reason = why_not_put_together(expression, function)
    if reason is not None:
        raise Refusal(reason)
    return function


def _tells_texts_apart(expression: Any, draft: Draft) -> bool:
    """Whether texts that an expression gives are equal only if they are the same characters."""
    for node in iterate(expression):
        if isinstance(node, (SelectBase, CollationClause)):
            return False
        if isinstance(node, Cast) and not _is_plain_cast(node):
            return False
        is_column = isinstance(node, ColumnClause) and not node.is_literal
        if is_column and not _is_deterministic(node, draft):
            return False
    known = draft.known_type(expression)
    return known is None or known.is_text


def _is_deterministic(column: Any, draft: Draft) -> bool:
    known = draft.known_type(column)
    if known is not None:
        return known.is_deterministic
    # A column of a derived table has the collation of what it shows.
    bases = column.base_columns - {column}
    return bool(bases) and all(_tells_texts_apart(base, draft) for base in bases)


def _is_plain_cast(cast: Cast[Any]) -> bool:
    type_: Any = cast.type
    is_known = isinstance(type_, (String, *COMPARABLE)) and not isinstance(type_, Enum)
    return is_known and getattr(type_, "collation", None) is None
