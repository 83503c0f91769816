"""ORDER BY, taken apart: expression, direction, place of NULLs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import Grouping, Label, UnaryExpression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.sql.selectable import Select


class Ordering(NamedTuple):
    """One key of ORDER BY. PostgreSQL puts NULLs last, and first where the key descends."""

    expression: Any
    descending: bool
    nulls_first: bool


def orderings(select: Select[Any], order_by: Sequence[Any]) -> tuple[Ordering, ...] | None:
    """The keys of an ORDER BY clause, or None where one of them cannot be understood."""
    found = []
    for clause in order_by:
        descending: bool | None = None
        nulls_first: bool | None = None
        expression: Any = clause
        while True:
            if expression.__visit_name__ in ("label_reference", "grouping"):
                expression = expression.element
            elif isinstance(expression, UnaryExpression) and (expression.modifier in _MODIFIERS):
                modifier = expression.modifier
                if modifier in (operators.desc_op, operators.asc_op):
                    descending = modifier is operators.desc_op
                else:
                    nulls_first = modifier is operators.nulls_first_op
                expression = expression.element
            else:
                break
        expression = _named(select, expression)
        if expression is None:
            return None
        is_descending = bool(descending)
        found.append(
            Ordering(
                expression, is_descending, is_descending if nulls_first is None else nulls_first
            )
        )
    return tuple(found)


_MODIFIERS = (
    operators.desc_op,
    operators.asc_op,
    operators.nulls_first_op,
    operators.nulls_last_op,
)


def _named(select: Select[Any], expression: Any) -> Any:
    """The expression itself; for a name or label, the selected expression it stands for."""
    while isinstance(expression, Grouping):
        expression = expression.element
    if isinstance(expression, Label):
        return expression.element
    if expression.__visit_name__ == "textual_label_reference":
        matches = [column for column in select.selected_columns if column.key == expression.element]
        if len(matches) != 1:
            return None
        return _named(select, matches[0])
    if expression.__visit_name__ in ("textclause", "clauselist"):
        return None
    return expression
