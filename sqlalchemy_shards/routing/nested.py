"""What a SELECT inside another one must be like, so that every shard may run it by itself.

A subquery that reads sharded rows is tied to its row by the key (`analysis` sees to that). What is
left are subqueries that compute something from copies, or from nothing: it must be the same on
every shard, although copies of a reference table need not hold their rows in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import iterate

from .row_wise import ORDERED_AGGREGATES, why_not_row_wise
from .scopes import unlabelled
from .windows import partition_of, windows_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.sql.selectable import Select

    from sqlalchemy_shards._compat import SelectShape


def is_row_by_row(shape: SelectShape) -> bool:
    """Whether a SELECT gives its rows without looking at several of them at once."""
    return not (
        is_cut_off(shape)
        or shape.group_by
        or shape.having
        or shape.distinct
        or shape.for_update
        or shape.embellished
        or shape.extended
    )


def is_cut_off(shape: SelectShape) -> bool:
    """Whether a query gives only some of its rows."""
    return shape.limit is not None or shape.offset is not None or shape.fetch is not None


def stems_from_rows(columns: Sequence[Any], shape: SelectShape) -> bool:
    """Whether a SELECT gives no row but of rows for which its WHERE is true.

    An aggregate without GROUP BY gives a row of nothing.
    """
    if shape.embellished or shape.extended or shape.distinct_on:
        return False
    if shape.group_by:
        return why_not_row_wise(shape.group_by) is None  # else it may be ROLLUP
    around = [*columns, *shape.order_by]
    return not shape.having and why_not_row_wise(around, windows_too=True) is None


def commuting_columns(columns: Sequence[Any], shape: SelectShape) -> list[bool]:
    """For each column, whether a condition on it may be asked before the SELECT as well as after.

    Rows with another value of the column must make no difference to the rows with this one. So it
    is for grouped columns, those of SELECT DISTINCT and those in the PARTITION BY of every window,
    and not where rows are counted off.
    """
    known = stems_from_rows(columns, shape) and not is_cut_off(shape) and not shape.for_update
    if not known or why_not_row_wise(columns, aggregates_too=True, windows_too=True) is not None:
        return [False] * len(columns)
    divisions = [set(map(unlabelled, partition_of(window))) for window in windows_in(columns)]
    if shape.group_by:
        divisions.append(set(shape.group_by))
    return [all(unlabelled(column) in each for each in divisions) for column in columns]


def is_plain(select: Select[Any], shape: SelectShape) -> bool:
    """Whether a SELECT certainly writes nothing: no function of unknown effect, no lock.

    What its FROM list holds is looked at apart.
    """
    if shape.for_update or shape.embellished or shape.extended:
        return False
    return why_not_row_wise([select], aggregates_too=True) is None


def why_not_alike(select: Select[Any], shape: SelectShape, *, is_sharded: bool) -> str | None:
    """Why a nested SELECT may give something else on every shard than on one database; or None.

    :param is_sharded: it reads sharded rows, which are all on the shard of their key.
    """
    reason = why_not_row_wise([select], aggregates_too=True)
    if shape.extended:
        return "it has a clause of a syntax extension"
    if reason is not None or is_sharded:
        return reason
    if is_cut_off(shape):
        return "a subquery picks rows of a reference table, which may lie in any order"
    if shape.distinct_on:
        return "DISTINCT ON picks rows of a reference table, which may lie in any order"
    for node in iterate(select):
        if node.__visit_name__ == "over":
            return "a window over rows of a reference table, which may lie in any order"
        name = getattr(node, "name", None)
        if isinstance(node, FunctionElement) and str(name).lower() in ORDERED_AGGREGATES:
            return f"{name}() depends on the order of a reference table's rows"
    return None
