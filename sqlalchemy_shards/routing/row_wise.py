"""Which expressions give, on each shard, what they would give on one database.

An expression is *row-wise* when its value follows from the row (and parameters) alone. What is not
known to be so is not: an unknown function may be an aggregate, or tell the time, and would then be
evaluated once on every shard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

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

from .raw_names import raw_names
from .raw_text import CONSTANT_TEXT, SIMPLE_OPERATOR

if TYPE_CHECKING:
    from collections.abc import Iterable

ROW_WISE_FUNCTIONS: Final = frozenset(
    """
    abs acos array_append array_cat array_length array_position array_prepend array_remove
    array_replace array_to_string ascii asin atan atan2 bit_length btrim cardinality ceil ceiling
    char_length character_length chr coalesce concat concat_ws cos date_part decode degrees div
    encode exp floor greatest initcap jsonb_array_length jsonb_extract_path
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
    array_agg json_agg json_object_agg jsonb_agg jsonb_object_agg string_agg
    """.split()
)
"""Aggregates whose result depends on the order in which rows happen to lie."""

AGGREGATES: Final = ORDERED_AGGREGATES | frozenset(
    "avg bit_and bit_or bool_and bool_or count every max min sum".split()
)

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

_LABELS: Final = frozenset({"label_reference", "textual_label_reference"})


def why_not_row_wise(
    expressions: Iterable[Any],
    *,
    aggregates_too: bool = False,
    further: frozenset[str] = frozenset(),
    text_too: bool = False,
) -> str | None:
    """The reason why one of the expressions is not row-wise, or None.

    :param aggregates_too: let aggregates pass, too.
    :param further: names of functions that pass, too.
    :param text_too: let raw SQL text pass that is row-wise; which columns it names is not known.

    Subqueries count as row-wise here: whether their rows are at hand is told by the sources. What
    they compute must be the same everywhere, though; aggregates are allowed in them.
    """
    pending: list[tuple[Any, bool]] = [(expression, aggregates_too) for expression in expressions]
    while pending:
        node, is_inside_subquery = pending.pop()
        if isinstance(node, _LEAVES) and not getattr(node, "is_literal", False):
            continue  # most are, and to ask them for an operator makes SQLAlchemy look long
        if isinstance(node, (Exists, ScalarSelect)):
            pending.append((node.element, True))
        elif isinstance(node, SelectBase):
            pending.extend((child, True) for child in node.get_children())
        elif isinstance(node, FunctionElement):
            reason = _why_not_function(node, is_inside_subquery)
            if reason is not None and str(getattr(node, "name", "")).lower() not in further:
                return reason
            pending.extend((child, is_inside_subquery) for child in node.get_children())
        elif getattr(node, "operator", None) is distinct_op and not is_inside_subquery:
            return "DISTINCT over several shards is not supported yet"
        elif (text := text_of(node)) is not None:
            if not _is_row_wise(text, text_too=text_too):
                return "raw SQL text is not known to be the same on every shard"
            pending.extend((child, is_inside_subquery) for child in node.get_children())
        elif isinstance(node, TRANSPARENT) or node.__visit_name__ in _LABELS:
            pending.extend((child, is_inside_subquery) for child in node.get_children())
        elif not is_inside_subquery or not getattr(node, "is_selectable", False):
            return f"{_spoken(node)} is not known to be the same on every shard"
    return None


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
    if CONSTANT_TEXT.fullmatch(text):
        return True
    found = raw_names(text) if text_too else None
    if found is None or found.has_star or found.names_moment or found.is_over_rows:
        return False
    return found.functions <= ROW_WISE_FUNCTIONS


def _why_not_function(function: FunctionElement[Any], is_inside_subquery: bool) -> str | None:
    name = str(getattr(function, "name", type(function).__name__)).lower()
    if getattr(function, "packagenames", ()):
        name = ".".join((*function.packagenames, name))
    is_known = name in ROW_WISE_FUNCTIONS or (is_inside_subquery and name in AGGREGATES)
    if is_known and not _compat.compiles_itself(function):
        return None
    if name in AGGREGATES:
        return f"the aggregate {name}() needs the rows of all shards"
    return f"the function {name}() is not known to be the same on every shard"


def _spoken(node: Any) -> str:
    names = {
        "over": "a window function",
        "within_group": "an ordered-set aggregate",
        "funcfilter": "an aggregate with FILTER",
        "aggregate_order_by": "an aggregate with ORDER BY",
        "next_value_func": "a sequence",
    }
    return names.get(node.__visit_name__, f"a {type(node).__name__}")
