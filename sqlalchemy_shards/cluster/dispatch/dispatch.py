"""One execution of a statement -> the work of each shard.

`dispatch` is the decision: it reads the statement's plan, the options, the values and the shard
map, and returns a `Dispatch`; the cursor performs it. No I/O but for what the catalog must tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.selectable import TextualSelect

from sqlalchemy_shards import _compat
from sqlalchemy_shards.cluster.options import named_route
from sqlalchemy_shards.routing.route import Reason
from sqlalchemy_shards.routing.settings import sets_something

from .carried_buckets import check_carried_buckets
from .copies import every_copy
from .inserts import check_conflict, insert
from .kept_keys import check_key_is_kept
from .many_sets import many_sets
from .one_set import context_values, one_set, routed, with_one_copy
from .unread import computed_default, definition, on_only_shard, raw_sql, setting_or_refusal

if TYPE_CHECKING:
    from .work import Dispatch, Given, Surroundings


def dispatch(given: Given, around: Surroundings) -> Dispatch:
    """Decide what each shard runs.

    :raises RoutingError: it cannot be told where the statement belongs.
    :raises UnsupportedStatement: neither the shards nor the workspace could answer as one would.
    :raises ShardKeyChanged: a shard key would be set to another value.
    """
    context = given.context
    territory = around.territory
    if len(territory.shards) == 1:
        return on_only_shard(given, around)
    options = context.execution_options
    if context.isddl:
        return definition(given, around)
    compiled: Any = context.compiled
    if compiled is None or compiled.isplaintext or _is_textual(compiled):
        return raw_sql(given, around)
    if _compat.is_pre_executed_default(context):
        return computed_default(given, around)
    plan = around.plans.plan_of(compiled)
    named = named_route(options, territory, around.dialect)
    if plan.sources.changed_key:
        check_key_is_kept(given, plan, around, named)
    check_carried_buckets(given, plan, around)
    inserted = plan.sources.inserted
    if inserted is not None:
        check_conflict(given, inserted)
    if inserted is not None and not inserted.is_colocated:
        return insert(given, plan, around, named)
    if plan.sources.writes_reference:
        return every_copy(given, plan, around, named)
    if given.is_many:
        return many_sets(given, plan, around, named)
    if named is not None:
        return one_set(given, plan, around, with_one_copy(named, plan))
    route = routed(given, plan, around, context_values(given, plan))
    if route.reason is Reason.NO_TABLE and sets_something(given.sql):
        return setting_or_refusal(given, around)
    return one_set(given, plan, around, route)


def _is_textual(compiled: Any) -> bool:
    """Whether a statement is ``text().columns()``, which says no more than its text does."""
    return isinstance(_compat.core_statement(compiled), TextualSelect)
