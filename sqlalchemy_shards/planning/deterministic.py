"""Whether a write does on each shard what it would do on one database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.dml import Insert
from sqlalchemy.sql.selectable import CTE, Select, SelectBase

from sqlalchemy_shards import _compat
from sqlalchemy_shards.catalog.functions import DRAWN
from sqlalchemy_shards.routing.row_wise import why_not_row_wise
from sqlalchemy_shards.routing.scopes import conditions_of

from .nodes import nodes_of
from .refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.sql.dml import UpdateBase

    from .draft import Facts


def check_deterministic(
    statement: UpdateBase,
    compiled: Any,
    facts: Facts,
    *,
    writes_reference: bool = False,
    further: Collection[str] = (),
) -> None:
    """Refuse a write whose values or rows depend on the shard that it runs on.

    Rows of a sharded table have no copies: what a function makes of a row is written once, so that
    UPDATE and DELETE may call whatever the catalog vouches for.

    :param compiled: a `ShardsCompiler`, which knows what it has rendered.
    :param further: functions that are known to give the same on each, as the time where it is told.
    :raises Refusal: with the expression that may be another there.
    """
    if _compat.has_extensions(statement):
        raise Refusal("it has a clause of a syntax extension")
    expressions: list[Any] = _compat.dml_expressions(compiled)
    where = getattr(statement, "whereclause", None)
    expressions += [where] if where is not None else []
    expressions += _compat.returning(statement)
    select = statement.select if isinstance(statement, Insert) else None
    if isinstance(select, Select) and not writes_reference:
        expressions += conditions_of(select)
    conflict = _compat.post_values_clause(statement) if isinstance(statement, Insert) else None
    expressions += _compat.conflict_expressions(conflict) if conflict is not None else []
    allowed = frozenset(further)
    reason = why_not_row_wise(expressions, further=allowed)
    if reason is not None and not writes_reference and not isinstance(statement, Insert):
        allowed |= _vouched_for(statement, compiled, facts)
        reason = why_not_row_wise(expressions, further=allowed)
    if reason is None and isinstance(select, Select):
        # Groups and windows are those of one key each, or the statement has an obstacle.
        reason = why_not_row_wise(
            [*_compat.column_list(select), *_compat.select_shape(select).having],
            aggregates_too=True,
            windows_too=not writes_reference,
        )
    if reason is not None:
        raise Refusal(reason, "compute the value in the application and pass it as a parameter")


def _vouched_for(statement: UpdateBase, compiled: Any, facts: Facts) -> frozenset[str]:
    """Names of functions that make of a row on its shard what they make of it on one database."""
    nodes = list(nodes_of(statement, compiled))
    if any(map(_compat.compiles_itself, nodes)):
        return frozenset()  # what it writes may be another function than its name says
    calls = compiled.rendered_calls
    # What is told of functions is told by names, which in a schema may be those of others.
    hidden = {call.name.rpartition(".")[2] for call in calls if "." in call.name}
    found = frozenset(facts.row_wise(call for call in calls if call.name not in hidden)) - hidden
    if sum(compiled.rendered_tables.values()) > 1 or any(
        isinstance(node, (SelectBase, CTE)) for node in nodes
    ):
        found -= DRAWN  # one draw may be meant for many rows
    return found
