"""Expression -> a text that two expressions have in common if PostgreSQL takes them for the same.

PostgreSQL finds the expressions of GROUP BY again in the rest of a statement by comparing what was
written. Here they are written with the parameters' names in the whole statement, so that two
parameters with one value are two; and columns with their FROM element, whatever its name will be.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.sql.compiler import SQLCompiler


class _Spelling:
    """What a compiler writes for parameters and columns."""

    names: Mapping[Any, str]

    def visit_bindparam(self, bindparam: Any, *_: Any, **__: Any) -> str:
        return f":{self.names.get(bindparam, id(bindparam))}"

    def visit_column(self, column: Any, *arguments: Any, **keywords: Any) -> Any:
        if column.table is None:
            parent: Any = super()
            return parent.visit_column(column, *arguments, **keywords)
        # The ORM annotates FROM elements; what is annotated has the hash of what it was.
        return f"<{hash(column.table)}>.{column.name}"


def speller(compiled: SQLCompiler) -> Callable[[Any], str]:
    """What writes the expressions of a statement, for comparison only."""
    dialect: Any = copy.copy(compiled.dialect)
    compiler = dialect.statement_compiler
    dialect.statement_compiler = type(
        f"Spelling{compiler.__name__}", (_Spelling, compiler), {"names": compiled.bind_names}
    )

    def spelled(expression: Any) -> str:
        return str(expression.compile(dialect=dialect).string)

    return spelled
