"""The answer of a statement that no shard can hold a row for: none, and without a query.

Its columns are those that SQLAlchemy compiled, with PostgreSQL types guessed from their own. What
SQLAlchemy derives from these is kept for this execution only, so that a wrong guess does not change
the rows of another.
"""

from __future__ import annotations

import copy
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from psycopg.postgres import types as postgres_types
from sqlalchemy.exc import CompileError
from sqlalchemy.sql.selectable import Select

from sqlalchemy_shards import _compat

from .work import Dispatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.types import TypeEngine

    from sqlalchemy_shards.cluster.plans import StatementPlan
    from sqlalchemy_shards.routing.route import Route

    from .values import ExecutionValues
    from .work import Given

UNKNOWN_OID: Final = 705
"""The type `unknown` of PostgreSQL."""

_OTHER_NAMES: Final[Mapping[str, str]] = MappingProxyType({"float": "float8", "decimal": "numeric"})
_MODIFIER: Final = re.compile(r"\([^)]*\)")


def no_rows(
    given: Given, plan: StatementPlan, route: Route, values: ExecutionValues
) -> Dispatch | None:
    """The answer of a statement whose route is empty; None: a shard must be asked all the same.

    An aggregate gives a row of no rows, and a LIMIT may be an error.
    """
    compiled: Any = given.context.compiled
    if not plan.shows_absence or not _is_limit_valid(compiled, values.parameters):
        return None
    columns = _compat.result_columns(compiled)
    description = [
        (each.name, type_oid(each.type, compiled), None, None, None, None, None) for each in columns
    ]
    if description:
        # SQLAlchemy keeps what it makes of a description beside the compiled statement.
        given.context.compiled = copy.copy(compiled)
    return Dispatch([], route, writes=False, description=description or None)


def type_oid(type_: TypeEngine[Any], compiled: SQLCompiler) -> int:
    """The OID of the PostgreSQL type that a type of SQLAlchemy stands for, as far as known."""
    try:
        name = type_.compile(dialect=compiled.dialect)
    except CompileError:
        return UNKNOWN_OID
    name = " ".join(_MODIFIER.sub("", name).lower().split())
    element = name.removesuffix("[]")
    info = postgres_types.get(_OTHER_NAMES.get(element, element))
    if info is None:
        return UNKNOWN_OID
    return info.oid if element == name else info.array_oid


def _is_limit_valid(compiled: SQLCompiler, parameters: Mapping[str, Any]) -> bool:
    """Whether LIMIT and OFFSET are numbers of rows that PostgreSQL would take."""
    statement = _compat.core_statement(compiled)
    if not isinstance(statement, Select):
        return True
    shape = _compat.select_shape(statement)
    for clause in (shape.limit, shape.offset, shape.fetch):
        if clause is None:
            continue
        value = parameters.get(compiled.bind_names.get(clause, ""), -1)  # type: ignore[call-overload]
        if value is not None and (type(value) is not int or value < 0):
            return False
    return True
