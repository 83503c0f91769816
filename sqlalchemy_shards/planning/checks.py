"""What a statement may not hold that the workspace is to run, whatever is shipped to it.

One check per question, in `CHECKS`. A check raises `Refusal`, or lets the statement pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.sql.selectable import Select, TableSample

from sqlalchemy_shards import _compat

from .nodes import nodes_of
from .refusal import LOCK_OTHERWISE, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

RESERVED: Final = "shards_"
"""How the names of parameters begin that are added to the statement."""


def check_statement(statement: Any, compiled: Any) -> None:
    """Refuse what the workspace would not do as the shards do.

    :raises Refusal: with the reason.
    """
    for check in CHECKS:
        check(statement, compiled)


def _names_its_own_parameters(_statement: Any, compiled: Any) -> None:
    """None of its parameters could be taken for one that is added."""
    if any(name.startswith(RESERVED) for name in compiled.bind_names.values()):
        raise Refusal(f"the names of its parameters begin with {RESERVED!r}", "call them otherwise")


def _names_its_schemas(_statement: Any, compiled: Any) -> None:
    """Its tables are the same at each execution."""
    if compiled.schema_translate_map:
        raise Refusal("schema_translate_map is not understood where rows are brought together")


def _draws_no_sample(statement: Any, compiled: Any) -> None:
    """Each copy of a table gives the same rows."""
    if any(isinstance(node, TableSample) for node in nodes_of(statement, compiled)):
        raise Refusal("TABLESAMPLE picks other rows in every copy of a table")


def _locks_nothing(statement: Any, compiled: Any) -> None:
    """It is enough to have copies of the rows."""
    selects = (node for node in nodes_of(statement, compiled) if isinstance(node, Select))
    if any(_compat.select_shape(each).for_update for each in selects):
        more = ", with selectinload() in place of joinedload()"
        has_joined = _compat.loads_by_joins(compiled)
        raise Refusal(
            "FOR UPDATE would lock copies of the rows, not the rows of the shards",
            LOCK_OTHERWISE + (more if has_joined else ""),
        )


CHECKS: Final[tuple[Callable[[Any, Any], None], ...]] = (
    _names_its_own_parameters,
    _names_its_schemas,
    _draws_no_sample,
    _locks_nothing,
)
