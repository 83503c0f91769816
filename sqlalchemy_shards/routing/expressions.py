"""The walk of expressions: the subqueries and the raw SQL text in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, ColumnClause, TextClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import FromClause, ScalarSelect, SelectBase

from sqlalchemy_shards import _compat

from .raw_text import is_constant, why_operator_unreadable, why_unreadable
from .reading import ungrouped
from .restrictions import tie_members

if TYPE_CHECKING:
    from .scopes import Scope
    from .walk import Walk


def walk_expression(walk: Walk, expression: Any, scope: Scope) -> None:
    """Look for subqueries and raw text in an expression."""
    pending = [(expression, False)]
    while pending:
        node, is_argument = pending.pop()
        if isinstance(node, BindParameter) or (
            isinstance(node, ColumnClause) and not node.is_literal
        ):
            continue  # most are: there is nothing in them
        walk.unreadable = walk.unreadable or why_operator_unreadable(node)
        if is_membership(node):
            pending.append((node.left, is_argument))
            derived = walk.query(ungrouped(node.right).element, scope, is_from=False, depth=1)
            tie_members(walk, node.left, derived, scope)
        elif isinstance(node, SelectBase):
            walk.query(node, scope, is_from=False, depth=1)
        elif isinstance(node, (TextClause, ColumnClause)):
            text = node.text if isinstance(node, TextClause) else str(node.name)
            _text(walk, text, is_argument=is_argument)
        elif isinstance(node, FunctionElement):  # SQLAlchemy makes them FROM clauses, too
            stands_in_parentheses = not _compat.compiles_itself(node)
            pending += [(child, stands_in_parentheses) for child in node.get_children()]
        elif isinstance(node, (FromClause, BindParameter)) or node is None:
            continue  # FROM lists are walked apart
        else:
            pending += [(child, is_argument) for child in node.get_children()]


def is_membership(node: Any) -> bool:
    """Whether an expression is ``... IN (SELECT ...)`` or its opposite."""
    if not isinstance(node, BinaryExpression):
        return False
    is_in = node.operator in (operators.in_op, operators.not_in_op)
    return is_in and isinstance(ungrouped(node.right), ScalarSelect)


def _text(walk: Walk, text: str, *, is_argument: bool) -> None:
    walk.unreadable = walk.unreadable or why_unreadable(text, is_argument=is_argument)
    if not is_constant(text):
        walk.hinder("it holds raw SQL text")
