"""The aggregates whose partial results Python puts together as PostgreSQL would.

What the model says of types is believed only so far: the types of the rows count for more, later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Boolean, Date, DateTime, Float, Integer, Numeric, Uuid
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.types import NullType

from sqlalchemy_shards import _compat
from sqlalchemy_shards.plan import Aggregate
from sqlalchemy_shards.routing.calls import function_of, is_distinct, name_of
from sqlalchemy_shards.routing.row_wise import text_of, why_not_row_wise
from sqlalchemy_shards.routing.scopes import unlabelled

from .draft import plain_type

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_TEXT: Final = (Boolean, Date, DateTime, Integer, Uuid)
COMPARABLE: Final = (*NO_TEXT, NullType)
"""Types of the model that Python compares as PostgreSQL does; text is a matter of its own."""

_SUMMED: Final = (Integer, NullType, Numeric)
_KNOWN: Final[Mapping[Aggregate, tuple[type[Any], ...]]] = {
    Aggregate.SUM: _SUMMED,
    Aggregate.MIN: COMPARABLE,
    Aggregate.MAX: COMPARABLE,
    Aggregate.BIT_AND: (Integer, NullType),
    Aggregate.BIT_OR: (Integer, NullType),
    Aggregate.BIT_XOR: (Integer, NullType),
}
"""Aggregate -> the types that it must be of; those that are missing here may be of any."""


def aggregate_of(column: Any) -> Aggregate | None:
    """The aggregate that a column is, if its partial results can be put together."""
    function = function_of(unlabelled(column))
    if not isinstance(function, FunctionElement) or _compat.compiles_itself(function):
        return None
    if is_distinct(function):
        return None
    name = name_of(function)
    return next((each for each in Aggregate if each.value == name), None)


def arguments_of(column: Any) -> list[Any]:
    """What an aggregate looks at: its arguments, and the condition of its FILTER."""
    element = unlabelled(column)
    function = function_of(element)
    found = [
        clause
        for clause in function.clauses
        if not (getattr(clause, "is_literal", False) and clause.name == "*")
    ]
    return found if function is element else [*found, element.criterion]


def is_the_same_in_a_group(column: Any) -> bool:
    """Whether a column next to aggregates is none itself.

    PostgreSQL lets it stand there only if it follows from what the rows are grouped by.
    """
    if text_of(column) is not None:
        return False  # it may be any number of columns
    is_nested = any(isinstance(node, SelectBase) for node in iterate(column))
    return not is_nested and why_not_row_wise([column]) is None


def why_not_put_together(column: Any, function: Aggregate) -> str | None:
    """Why Python does not find what an aggregate would be; None: as far as is known, it does."""
    known = _KNOWN.get(function)
    if known is None:
        return None
    clauses = function_of(unlabelled(column)).clauses
    types = [plain_type(argument) for argument in clauses]
    if all(isinstance(each, known) and not isinstance(each, Float) for each in types):
        return None
    return f"Python does not find the {function.value}() that PostgreSQL does"
