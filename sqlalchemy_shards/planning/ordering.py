"""ORDER BY, taken apart: expression, direction, place of NULLs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import Grouping, Label, UnaryExpression

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Ordering(NamedTuple):
    """One key of ORDER BY. PostgreSQL puts NULLs last, and first where the key descends."""

    expression: Any
    descending: bool
    nulls_first: bool


def orderings(order_by: Sequence[Any], labels: Mapping[str, Any]) -> tuple[Ordering, ...] | None:
    """The keys of an ORDER BY clause, or None where one of them cannot be understood.

    :param labels: what a name given as a string stands for.
    """
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
        expression = _named(expression, labels)
        if expression is None:
            return None
        is_descending = bool(descending)
        found.append(
            Ordering(
                expression, is_descending, is_descending if nulls_first is None else nulls_first
            )
        )
    return tuple(found)


def directed(key: Any, ordering: Ordering) -> Any:
    """A key of ORDER BY, in the direction of another one."""
    key = key.desc() if ordering.descending else key
    return key.nulls_first() if ordering.nulls_first else key.nulls_last()


_MODIFIERS = (
    operators.desc_op,
    operators.asc_op,
    operators.nulls_first_op,
    operators.nulls_last_op,
)


def _named(expression: Any, labels: Mapping[str, Any]) -> Any:
    """The expression itself; for a name or label, the expression it stands for."""
    while isinstance(expression, Grouping):
        expression = expression.element
    if isinstance(expression, Label):
        return expression.element
    if expression.__visit_name__ == "textual_label_reference":
        meant = labels.get(expression.element)
        return None if meant is None else _named(meant, labels)
    if expression.__visit_name__ in ("textclause", "clauselist", "tuple"):
        return None
    if getattr(expression, "is_literal", False):
        return None  # a number here is the position of a column
    return expression
