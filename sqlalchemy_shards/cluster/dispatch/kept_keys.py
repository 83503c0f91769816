"""Refuses to give a row another shard key; a statement that writes the one that is there may run.

SQLAlchemy writes a key that does not change where an object takes the place of a deleted one, and
applications do with rows that they write as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy_shards import _compat
from sqlalchemy_shards.errors import RoutingError, ShardKeyChanged
from sqlalchemy_shards.routing.conditions import Parameter, UnusableValue
from sqlalchemy_shards.routing.router import key_of_row, route_of
from sqlalchemy_shards.routing.set_parts import is_set_to, keeps_what_where_demands

from .values import ExecutionValues
from .whereabouts import locator_of

if TYPE_CHECKING:
    from sqlalchemy_shards.cluster.plans import StatementPlan
    from sqlalchemy_shards.routing.route import Route
    from sqlalchemy_shards.routing.sources import SetPart

    from .work import Given, Surroundings


def check_key_is_kept(
    given: Given, plan: StatementPlan, around: Surroundings, named: Route | None
) -> None:
    """Check what a statement sets the shard key to.

    :raises ShardKeyChanged: it may be another value than each row has.
    """
    context: Any = given.context
    sets = context.compiled_parameters
    if len(sets) == 1:
        sets = [_compat.raw_parameters(context)]
    for parameters in sets:
        values = ExecutionValues(parameters, plan.processors)
        if plan.sources.inserted is not None:
            is_kept = _is_inserted(plan, values)
        else:
            is_kept = _is_there(given, plan, around, values, named)
        if not is_kept:
            raise _key_changed(given, plan, values)


def _is_inserted(plan: StatementPlan, values: ExecutionValues) -> bool:
    """Whether ON CONFLICT sets the key that each row was to be inserted with."""
    sources, inserted = plan.sources, plan.sources.inserted
    assert inserted is not None
    if inserted.is_selected or inserted.lies_beside:
        return False
    rows = range(len(inserted.rows)) if inserted.rows else (None,)
    try:
        keys = [key_of_row(inserted, values, row) for row in rows]
    except RoutingError:
        return False
    return all(
        is_set_to(each, key[each.part], values) for key in keys for each in sources.changed_key
    )


def _is_there(
    given: Given,
    plan: StatementPlan,
    around: Surroundings,
    values: ExecutionValues,
    named: Route | None,
) -> bool:
    """Whether each row that an UPDATE can change has the key already."""
    sources = plan.sources
    if sources.unreadable is not None or len(sources.roots) != 1:
        return False
    if not sources.roots[0].stands_for_rows:
        return False  # the root is another table than the one that is changed
    if keeps_what_where_demands(sources.changed_key, sources.roots[0], values):
        return True
    return named is None and _is_as_seen(given, plan, around, values)


def _is_as_seen(
    given: Given, plan: StatementPlan, around: Surroundings, values: ExecutionValues
) -> bool:
    """Whether the key is set to that which the session has seen of the row.

    It may be stale, but the UPDATE goes to the home of this key only, and there a row with it is
    in its place, whatever key it had.
    """
    sources, (root,) = plan.sources, plan.sources.roots
    locate = locator_of(given, plan, values, around)
    key = None if locate is None or given.looks_again else locate(root)
    if key is None or len(sources.changed_key) != root.width:
        return False
    if not all(is_set_to(each, key[each.part], values) for each in sources.changed_key):
        return False
    try:
        home = around.territory.shard_map.shard_for(root.keyspace, key)
    except RoutingError:
        return False
    route = route_of(sources, around.territory, values, locator=locate, may_be_empty=True)
    return route.shards == (home,)


def _key_changed(given: Given, plan: StatementPlan, values: ExecutionValues) -> ShardKeyChanged:
    nulls = [each.column for each in plan.sources.changed_key if _is_null(each, values)]
    if nulls:
        return ShardKeyChanged(
            f"NULL would be written into shard-key column {', '.join(map(repr, nulls))} of table "
            f"{plan.sources.target!r}, as SQLAlchemy does where an object is taken out of a "
            "relationship",
            'give the relationship cascade="all, delete-orphan", which deletes such an object, or '
            "give the object another parent with the same shard key",
            statement=given.sql,
        )
    columns = ", ".join(repr(each.column) for each in plan.sources.changed_key)
    return ShardKeyChanged(
        f"shard-key column {columns} of table {plan.sources.target!r} would be set, which would "
        "leave the row on the shard of its old key",
        "move the object with session.rehome(), or delete the row and insert it under the new key",
        statement=given.sql,
    )


def _is_null(part: SetPart, values: ExecutionValues) -> bool:
    """Whether a part of the key is set to a NULL that the client gives."""
    if not isinstance(part.value, Parameter):
        return False
    try:
        return values.one(part.value) is None
    except UnusableValue:
        return False
