"""Calls of functions and aggregates, taken apart."""

from __future__ import annotations

from typing import Any

from sqlalchemy.sql.elements import FunctionFilter, UnaryExpression
from sqlalchemy.sql.operators import distinct_op


def function_of(call: Any) -> Any:
    """The aggregate itself, of a call that may have a FILTER."""
    return call.func if isinstance(call, FunctionFilter) else call


def name_of(function: Any) -> str:
    """The name of a function, with those of the packages that it is in."""
    packages = getattr(function, "packagenames", None) or ()
    return ".".join((*packages, str(getattr(function, "name", type(function).__name__)))).lower()


def is_distinct(function: Any) -> bool:
    """Whether an aggregate is over distinct values of its arguments."""
    return any(
        isinstance(each, UnaryExpression) and each.operator is distinct_op
        for each in function.clauses
    )
