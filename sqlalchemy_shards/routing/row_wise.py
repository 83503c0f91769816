"""Which expressions give, on each shard, what they would give on one database.

An expression is *row-wise* when its value follows from the row (and parameters) alone. What is not
known to be so is not: an unknown function may be an aggregate, or tell the time, and would then be
evaluated once on every shard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.sql.elements import (
    AsBoolean,
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    Case,
    Cast,
    ClauseList,
    CollationClause,
    ColumnClause,
    ExpressionClauseList,
    Extract,
    False_,
    Grouping,
    Label,
    Null,
    Slice,
    TextClause,
    True_,
    Tuple,
    TypeClause,
    TypeCoerce,
    UnaryExpression,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import custom_op, distinct_op
from sqlalchemy.sql.selectable import Exists, ScalarSelect, SelectBase

from sqlalchemy_shards import _compat

from .calls import name_of
from .raw_names import raw_names
from .raw_text import SIMPLE_OPERATOR, is_constant
from .windows import parts_of_window

if TYPE_CHECKING:
    from collections.abc import Iterable

ROW_WISE_FUNCTIONS: Final = frozenset(
    """
    abs acos array_append array_cat array_length array_position array_prepend array_remove
    array_replace array_to_string ascii asin atan atan2 bit_length btrim cardinality ceil ceiling
    char_length character_length chr coalesce concat concat_ws cos date_part date_trunc decode
    degrees div encode exp floor greatest initcap jsonb_array_length jsonb_extract_path
    jsonb_extract_path_text json_extract_path json_extract_path_text least left length ln log lower
    lpad ltrim make_date make_interval make_time make_timestamp md5 mod nullif octet_length
    overlay position power radians regexp_match regexp_replace repeat replace reverse right round
    rpad rtrim sha256 sign sin split_part sqrt starts_with string_to_array strpos substr substring
    tan to_hex translate trim trunc upper width_bucket
    """.split()
)
"""Functions of PostgreSQL that are immutable, or stable under settings that shards share."""

ORDERED_AGGREGATES: Final = frozenset(
    """
    any_value array_agg json_agg json_object_agg jsonb_agg jsonb_object_agg string_agg
    """.split()
)
"""Aggregates whose result depends on the order in which rows happen to lie."""

AGGREGATES: Final = ORDERED_AGGREGATES | frozenset(
    """
    avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp cume_dist dense_rank
    every max min mode percent_rank percentile_cont percentile_disc rank regr_avgx regr_avgy
    regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop
    stddev_samp sum var_pop var_samp variance
    """.split()
)

WINDOW_FUNCTIONS: Final = AGGREGATES | frozenset(
    "first_value lag last_value lead nth_value ntile row_number".split()
)
"""What may stand before OVER."""

TRANSPARENT: Final = (
    AsBoolean,
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    Case,
    Cast,
    ClauseList,
    CollationClause,
    ColumnClause,
    ExpressionClauseList,
    Extract,
    False_,
    Grouping,
    Label,
    Null,
    Slice,
    True_,
    Tuple,
    TypeClause,
    TypeCoerce,
    UnaryExpression,
)
"""Kinds of expressions whose value follows from what is inside them."""

_LEAVES: Final = (BindParameter, ColumnClause)

_CLEAR: Final = frozenset({"frame_clause", "label_reference", "textual_label_reference"})

_OF_AGGREGATES: Final = frozenset(
    {"aggregate_order_by", "aggregateorderby", "funcfilter", "withingroup"}
)
"""Visit names of what aggregates have around them or within: ORDER BY, FILTER, WITHIN GROUP."""


class _Allowed(NamedTuple):
    """What may stand in a part of an expression, besides what is row-wise."""

    aggregates: bool = False
    windows: bool = False
    functions_of_windows: bool = False
    distinct: bool = False
    selectables: bool = False
    text: bool = False
    further: frozenset[str] = frozenset()

    def in_subquery(self) -> _Allowed:
        """What may stand in a subquery."""
        return self._replace(
            aggregates=True,
            windows=True,
            functions_of_windows=False,
            distinct=True,
            selectables=True,
        )


def why_not_row_wise(
    expressions: Iterable[Any],
    *,
    aggregates_too: bool = False,
    windows_too: bool = False,
    further: frozenset[str] = frozenset(),
    text_too: bool = False,
) -> str | None:
    """The reason why one of the expressions is not row-wise, or None.

    :param aggregates_too: let aggregates pass, too.
    :param windows_too: let window functions pass, too.
    :param further: names of functions that pass, too.
    :param text_too: let raw SQL text pass that is row-wise; which columns it names is not known.

    Subqueries count as row-wise here: whether their rows are at hand is told by the sources. What
    they compute must be the same everywhere, though; aggregates and windows are allowed in them.
    """
    first = _Allowed(aggregates_too, windows_too, text=text_too, further=further)
    pending: list[tuple[Any, _Allowed]] = [(expression, first) for expression in expressions]
    while pending:
        node, allowed = pending.pop()
        if isinstance(node, _LEAVES) and not getattr(node, "is_literal", False):
            continue  # most are, and to ask them for an operator makes SQLAlchemy look long
        inside = _why_not_or_inside(node, allowed)
        if isinstance(inside, str):
            return inside
        pending.extend(inside)
    return None


def _why_not_or_inside(node: Any, allowed: _Allowed) -> list[tuple[Any, _Allowed]] | str:
    """What an expression holds, and what is allowed there; or why it is not allowed itself."""
    if isinstance(node, (Exists, ScalarSelect)):
        return [(node.element, allowed.in_subquery())]
    children = node.get_children()
    if isinstance(node, SelectBase):
        return [(child, allowed.in_subquery()) for child in children]
    if isinstance(node, FunctionElement):
        name = str(getattr(node, "name", "")).lower()
        reason = _why_not_function(node, allowed)
        if reason is not None and (name not in allowed.further or _compat.compiles_itself(node)):
            return reason
        is_distinct = allowed.distinct or name in AGGREGATES
        inside = allowed._replace(functions_of_windows=False, distinct=is_distinct)
        return [(child, inside) for child in children]
    kind = node.__visit_name__
    if kind == "over" and allowed.windows:
        inside = allowed._replace(windows=False)
        looks = inside._replace(functions_of_windows=True)
        return [(node.element, looks), *((child, inside) for child in parts_of_window(node))]
    if getattr(node, "operator", None) is distinct_op and not allowed.distinct:
        return "DISTINCT compares rows of all shards"
    text = text_of(node)
    if text is not None and not _is_row_wise(text, text_too=allowed.text):
        return "raw SQL text is not known to be the same on every shard"
    is_aggregates = allowed.aggregates or allowed.functions_of_windows
    is_clear = text is not None or isinstance(node, TRANSPARENT) or kind in _CLEAR
    if is_clear or (kind in _OF_AGGREGATES and is_aggregates):
        return [(child, allowed) for child in children]
    if allowed.selectables and getattr(node, "is_selectable", False):
        return []
    return f"{_spoken(node)} is not known to be the same on every shard"


def text_of(node: Any) -> str | None:
    """The raw SQL that a node is, or that stands between its operands; None: there is none."""
    if isinstance(node, TextClause):
        return node.text.strip()
    if isinstance(node, ColumnClause) and node.is_literal:
        return str(node.name).strip()
    operator = getattr(node, "operator", None)
    if isinstance(operator, custom_op) and not SIMPLE_OPERATOR.fullmatch(operator.opstring):
        return operator.opstring
    return None


def _is_row_wise(text: str, *, text_too: bool) -> bool:
    """Whether the value of raw SQL follows from a row alone."""
    if is_constant(text):
        return True
    found = raw_names(text) if text_too else None
    if found is None or found.has_star or found.names_moment or found.is_over_rows:
        return False
    return found.functions <= ROW_WISE_FUNCTIONS


def _why_not_function(function: FunctionElement[Any], allowed: _Allowed) -> str | None:
    name = name_of(function)
    is_known = (
        name in ROW_WISE_FUNCTIONS
        or (allowed.aggregates and name in AGGREGATES)
        or (allowed.functions_of_windows and name in WINDOW_FUNCTIONS)
    )
    if is_known and not _compat.compiles_itself(function):
        return None
    if name in AGGREGATES:
        return f"the aggregate {name}() needs the rows of all shards"
    return f"the function {name}() is not known to be the same on every shard"


def _spoken(node: Any) -> str:
    names = {
        "over": "a window function",
        "withingroup": "an ordered-set aggregate",
        "funcfilter": "an aggregate with FILTER",
        "aggregate_order_by": "an aggregate with ORDER BY",
        "aggregateorderby": "an aggregate with ORDER BY",
        "next_value_func": "a sequence",
    }
    return names.get(node.__visit_name__, f"a {type(node).__name__}")
