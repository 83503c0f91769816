"""SQL expressions -> conditions on shard keys.

An expression is TRUE, FALSE or NULL for a row. What is asked is always what its being TRUE, or its
being FALSE, says of the row's key; NULL is neither, so that NOT is only asking for the other one.

Only what is certain is understood; everything else becomes `ANYWHERE`. Where an outer join may fill
the source with NULLs, only expressions that are not TRUE for NULLs say anything: else rows that are
left out would turn into rows that are filled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    AsBoolean,
    BinaryExpression,
    BooleanClauseList,
    ColumnClause,
    False_,
    Null,
    True_,
    UnaryExpression,
)
from sqlalchemy.sql.selectable import Exists, ScalarSelect, SelectBase

from sqlalchemy_shards.models.key_types import KeyFamily

from .comparisons import comparison_on
from .conditions import (
    ANYWHERE,
    NOWHERE,
    Constant,
    KeyCondition,
    PartEquals,
    all_of,
    any_of,
    implied,
)
from .equalities import equal_columns, equal_pairs
from .reading import ungrouped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .reading import Reading
    from .scopes import Scope


def condition_on(
    source: int, expression: Any, reading: Reading, *, is_true: bool = True
) -> KeyCondition:
    """What an expression, being TRUE, says about the shard key of a source's row.

    :param is_true: else, being FALSE.
    """
    expression = ungrouped(expression)
    if isinstance(expression, (True_, False_)):
        return ANYWHERE if isinstance(expression, True_) is is_true else NOWHERE
    if isinstance(expression, BooleanClauseList):
        return _joined(source, expression, reading, is_true=is_true)
    if isinstance(expression, Exists):
        return condition_of_subquery(source, expression, (), reading) if is_true else ANYWHERE
    if isinstance(expression, AsBoolean):
        is_same = expression.operator is operators.is_true
        return condition_on(source, expression.element, reading, is_true=is_true is is_same)
    if isinstance(expression, UnaryExpression) and expression.operator is operators.inv:
        return condition_on(source, expression.element, reading, is_true=not is_true)
    if isinstance(expression, BinaryExpression):
        return _binary(source, expression, reading, is_true=is_true)
    if isinstance(expression, ColumnClause):
        part = reading.part_of(source, expression)
        if part is not None and part.family is KeyFamily.BOOLEAN:
            return PartEquals(part.part, Constant(is_true))
    return ANYWHERE


def condition_of_subquery(
    source: int, subquery: Any, equal_to: Sequence[Any], reading: Reading
) -> KeyCondition:
    """What it says of an outer row that a subquery has a row whose columns equal ``equal_to``."""
    selects = reading.scope.selects_of(subquery)
    if not selects or not all(each.stems_from_rows for each in selects):
        return ANYWHERE
    return implied(any_of([_condition_inside(source, each, equal_to, reading) for each in selects]))


def _joined(
    source: int, expression: BooleanClauseList, reading: Reading, *, is_true: bool
) -> KeyCondition:
    parts = [
        condition_on(source, clause, reading, is_true=is_true) for clause in expression.clauses
    ]
    if expression.operator is operators.and_:
        return all_of(parts) if is_true else any_of(parts)
    if expression.operator is operators.or_:
        return any_of(parts) if is_true else all_of(parts)
    return ANYWHERE


def _binary(
    source: int, binary: BinaryExpression[Any], reading: Reading, *, is_true: bool
) -> KeyCondition:
    if isinstance(binary.right, (True_, False_)):
        wanted = isinstance(binary.right, True_)
        if binary.operator in (operators.eq, operators.ne):
            is_equal = (binary.operator is operators.eq) is is_true
            return condition_on(source, binary.left, reading, is_true=wanted is is_equal)
        if binary.operator is (operators.is_ if is_true else operators.is_not):
            return condition_on(source, binary.left, reading, is_true=wanted)
        return ANYWHERE
    if isinstance(binary.right, Null):
        is_null = binary.operator is (operators.is_ if is_true else operators.is_not)
        is_key = reading.part_of(source, binary.left) is not None
        is_filled = reading.sources[source].is_filled
        return NOWHERE if is_null and is_key and not is_filled else ANYWHERE
    found = comparison_on(source, binary, reading, is_true=is_true)
    if found is not None:
        return found
    if is_true:
        return _comparison_with_subquery(source, binary, reading)
    return ANYWHERE


def _comparison_with_subquery(
    source: int, binary: BinaryExpression[Any], reading: Reading
) -> KeyCondition:
    """``key = (SELECT ...)``, ``key IN (SELECT ...)`` and ``key = ANY (SELECT ...)``."""
    if binary.operator not in (operators.eq, operators.in_op):
        return ANYWHERE
    for left, right in ((binary.left, binary.right), (binary.right, binary.left)):
        left, right = ungrouped(left), ungrouped(right)
        if getattr(right, "operator", None) is operators.any_op:
            right = ungrouped(right.element)
        columns = tuple(left.clauses) if left.__visit_name__ == "tuple" else (left,)
        if isinstance(right, (SelectBase, ScalarSelect)):
            found = condition_of_subquery(source, right, columns, reading)
            if found is not ANYWHERE:
                return found
    return ANYWHERE


def _condition_inside(
    source: int, select: Scope, equal_to: Sequence[Any], reading: Reading
) -> KeyCondition:
    """The same of a row of one SELECT."""
    pairs = [*reading.equal_pairs_inside(select)]
    pairs += (pair for each in select.certain for pair in equal_pairs(each))
    if len(equal_to) == len(select.columns):
        both = zip(equal_to, select.columns, strict=True)
        pairs += (pair for pair in both if reading.means_the_same(pair[0], select))
    inside = reading.inside(select, equal_columns(pairs, reading.around.dialect))
    return all_of(condition_on(source, each, inside) for each in select.certain)
