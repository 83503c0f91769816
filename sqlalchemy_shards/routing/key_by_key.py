"""Whether what a SELECT makes of several rows, it makes of rows with one and the same shard key.

Groups, rows of DISTINCT and partitions of windows are so where they are divided by the whole shard
key of a source, or by columns that equal it: rows with one key are on one shard, which therefore
has all rows of the group.

Invariant: a source that an outer join may fill with NULLs does not count. Rows without it are on
all shards, and make one group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .equalities import equal_columns, equal_pairs
from .nested import is_cut_off
from .row_wise import why_not_row_wise
from .scopes import grouped_by, unlabelled
from .windows import partition_of, windows_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy_shards._compat import SelectShape

    from .scopes import Scope
    from .walk import Walk


def divides_by_key(
    columns: Sequence[Any],
    shape: SelectShape,
    names: Mapping[str, Any],
    scope: Scope,
    walk: Walk,
) -> bool:
    """Whether groups, distinct rows and windows, as far as there are any, are of one key each.

    :param names: what a name given as a string stands for.
    """
    pairs = (pair for expression in scope.certain for pair in equal_pairs(expression))
    equal = equal_columns(pairs, walk.dialect)
    return all(
        _holds_key([_column(each, names) for each in expressions], equal, scope, walk)
        for expressions in _divisions(columns, shape)
    )


def is_made_key_by_key(columns: Sequence[Any], shape: SelectShape) -> bool:
    """Whether a SELECT that `divides_by_key` gives of each key what this key's rows alone give.

    An aggregate without GROUP BY looks at the rows of all keys, and LIMIT counts them.
    """
    if is_cut_off(shape) or shape.for_update or shape.embellished or shape.extended:
        return False
    if shape.having and not shape.group_by:
        return False
    is_grouped = bool(shape.group_by)
    around = [*columns, *shape.having, *shape.order_by]
    return (
        why_not_row_wise([*shape.group_by, *shape.distinct_on]) is None
        and why_not_row_wise(around, aggregates_too=is_grouped, windows_too=True) is None
    )


def _divisions(columns: Sequence[Any], shape: SelectShape) -> Iterator[Sequence[Any]]:
    if shape.group_by:
        yield list(grouped_by(shape.group_by))
    if shape.distinct_on:
        yield shape.distinct_on
    elif shape.distinct:
        yield columns
    for window in windows_in([*columns, *shape.having, *shape.order_by]):
        # A name given as a string means something else there than in other clauses.
        yield [each for each in partition_of(window) if not _is_name(each)]


def _column(expression: Any, names: Mapping[str, Any]) -> Any:
    """The plain column that an element of a division is, if it is one."""
    while expression.__visit_name__ in ("label", "label_reference", "grouping"):
        expression = expression.element
    if not _is_name(expression):
        return expression
    meant = names.get(expression.element)
    # A label is written as its bare name, which a column of a table may have, too.
    return None if meant is None or meant is not unlabelled(meant) else meant


def _is_name(expression: Any) -> bool:
    return bool(expression.__visit_name__ == "textual_label_reference")


def _holds_key(
    columns: Sequence[Any], equal: Mapping[Any, Sequence[Any]], scope: Scope, walk: Walk
) -> bool:
    """Whether columns hold the whole shard key of a source."""
    held = {
        (place.source, place.part)
        for column in columns
        for each in (column, *equal.get(column, ()))
        for place in scope.places(each)
        if place.is_own and not place.is_alternative
    }
    return any(
        held.issuperset((source, part) for part in range(len(walk.sources[source].families)))
        for source in {source for source, _ in held}
        if not walk.sources[source].is_filled
    )
