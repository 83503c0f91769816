"""Calls of functions and aggregates, taken apart."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy.dialects.postgresql import REGCONFIG, array
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    Case,
    Cast,
    ColumnClause,
    Extract,
    False_,
    FunctionFilter,
    Grouping,
    Null,
    Over,
    True_,
    Tuple,
    TypeCoerce,
    UnaryExpression,
)
from sqlalchemy.sql.functions import Function, FunctionElement, next_value
from sqlalchemy.sql.operators import distinct_op
from sqlalchemy.sql.selectable import ScalarSelect

from sqlalchemy_shards import _compat
from sqlalchemy_shards.sql_text import Uncuttable, tokens_of

_ONE_ARGUMENT: Final = (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    Case,
    Cast,
    ColumnClause,
    Extract,
    False_,
    FunctionElement,
    FunctionFilter,
    Null,
    Over,
    ScalarSelect,
    True_,
    Tuple,
    UnaryExpression,
    array,
)
"""What is written without a comma outside parentheses."""


class OwnCall(Function[Any]):
    """A call that the cluster adds to a statement, and that may give what it gives, anywhere."""

    inherit_cache = True


class Call(NamedTuple):
    """A function as it is called.

    :param name: with those of the packages that it is in.
    :param arity: number of its arguments; None: it is not known.
    :param is_configured: the first of them is a configuration of the text search.
    """

    name: str
    arity: int | None = None
    is_configured: bool = False


def call_of(function: Any) -> Call:
    """A function's name and the number of its arguments, if that is certain."""
    name = name_of(function)
    arguments = getattr(function, "clauses", None)  # a sequence's next value has none
    if arguments is None or not all(map(_is_one_argument, arguments)):
        return Call(name)
    given = list(arguments)
    if name == "unnest" and len(given) > 1:
        # In a FROM list PostgreSQL calls it for each argument by itself.
        return Call(name)
    return Call(name, len(given), bool(given) and _is_configuration(given[0]))


def _is_configuration(node: Any) -> bool:
    """Whether an argument is certainly of PostgreSQL's type ``regconfig``."""
    return isinstance(node, (BindParameter, Cast)) and isinstance(node.type, REGCONFIG)


def _is_one_argument(node: Any) -> bool:
    while isinstance(node, (Grouping, TypeCoerce)):
        node = node.typed_expression if isinstance(node, TypeCoerce) else node.element
    if _compat.compiles_itself(node) or not isinstance(node, _ONE_ARGUMENT):
        return False
    if isinstance(node, BindParameter):
        return not _compat.is_expanding(node)
    if not isinstance(node, ColumnClause) or not node.is_literal:
        return True
    try:
        return not any(token.depth == 0 and token.text == "," for token in tokens_of(node.name))
    except Uncuttable:
        return False


def function_of(call: Any) -> Any:
    """The aggregate itself, of a call that may have a FILTER."""
    return call.func if isinstance(call, FunctionFilter) else call


def name_of(function: Any) -> str:
    """The name of a function, with those of the packages that it is in."""
    if isinstance(function, next_value):
        return "nextval"  # as it is written
    packages = getattr(function, "packagenames", None) or ()
    return ".".join((*packages, str(getattr(function, "name", type(function).__name__)))).lower()


def is_distinct(function: Any) -> bool:
    """Whether an aggregate is over distinct values of its arguments."""
    return any(
        isinstance(each, UnaryExpression) and each.operator is distinct_op
        for each in getattr(function, "clauses", ())  # a sequence's next value has none
    )
