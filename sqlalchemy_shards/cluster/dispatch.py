"""One execution of a statement -> the work of each shard.

`dispatch` is the decision: it reads the statement's plan, the options, the values and the shard
map, and returns a `Dispatch`; the cursor performs it. No I/O but for what the catalog must tell.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.selectable import TextualSelect

from sqlalchemy_shards import _compat
from sqlalchemy_shards.errors import (
    RoutingError,
    ScatterNotAllowed,
    ShardKeyChanged,
    UnsupportedStatement,
)
from sqlalchemy_shards.plan import FirstCopy, SumOfCounts
from sqlalchemy_shards.planning.planner import Refusal
from sqlalchemy_shards.routing.route import Reason, Route
from sqlalchemy_shards.routing.router import route_of, shard_of_row
from sqlalchemy_shards.routing.settings import sets_something

from .options import allows_scatter, named_route
from .unread import (
    computed_default,
    definition,
    on_only_shard,
    raw_sql,
    setting_or_refusal,
    unchanged,
)
from .values import ExecutionValues
from .work import Dispatch, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine.default import DefaultExecutionContext

    from sqlalchemy_shards.routing.router import Territory
    from sqlalchemy_shards.routing.sources import ShardedSource

    from .plans import SimpleKey, StatementPlan
    from .work import Given, Surroundings


def shard_by_key(context: DefaultExecutionContext, around: Surroundings) -> str | None:
    """Decide the quick way, as `dispatch` would: the statement was seen before, and its key is
    compared with one parameter. None: it is not so simple.
    """
    plan = getattr(context.compiled, "plan", None)
    if plan is None or plan.simple_key is None or plan.cache is not around.plans:
        return None
    options = context.execution_options
    if "shard" in options or "shard_key" in options or _compat.is_pre_executed_default(context):
        return None
    return _known_shard(plan.simple_key, context.compiled_parameters[0], around.territory)


def _known_shard(key: SimpleKey, parameters: Mapping[str, Any], territory: Territory) -> str | None:
    """The shard of one parameter set; None: the long way tells what is wrong with it, or widens."""
    keyspace, name, plain_type, key_type = key
    value = parameters.get(name)
    try:
        if type(value) is not plain_type:
            value = key_type.stored_value(value)
        return territory.shard_map.keyspaces[keyspace].shard_for((value,))
    except Exception:
        return None


def dispatch(given: Given, around: Surroundings) -> Dispatch:
    """Decide what each shard runs.

    :raises RoutingError: it cannot be told where the statement belongs.
    :raises UnsupportedStatement: several shards could not answer as one.
    :raises ShardKeyChanged: a shard key would be set.
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
    if plan.sources.changed_key:
        raise _key_changed(given, plan)
    named = named_route(options, territory, around.dialect)
    if plan.sources.inserted is not None:
        return _insert(given, plan, around, named)
    if plan.sources.writes_reference:
        return _every_copy(given, plan, around, named)
    if given.is_many:
        return _many(given, plan, around, named)
    if named is not None:
        return _one_statement(given, plan, around, _with_one_copy(named, plan))
    route = _routed(given, plan, around, context_values(given, plan))
    if route.reason is Reason.NO_TABLE and sets_something(given.sql):
        return setting_or_refusal(given, around)
    return _one_statement(given, plan, around, route)


def context_values(given: Given, plan: StatementPlan) -> ExecutionValues:
    """The values of a single execution."""
    return ExecutionValues(_compat.raw_parameters(given.context), plan.processors)


def _with_one_copy(named: Route, plan: StatementPlan) -> Route:
    """Of the shards that an option names, one where only copies of reference tables are read."""
    sources = plan.sources
    if sources.roots or sources.reads_global or not sources.reads_reference:
        return named
    return Route(named.shards[:1], named.reason)


def _is_textual(compiled: Any) -> bool:
    """Whether a statement is ``text().columns()``, which says no more than its text does."""
    return isinstance(_compat.core_statement(compiled), TextualSelect)


# -- one parameter set ------------------------------------------------------------------------


def _routed(
    given: Given, plan: StatementPlan, around: Surroundings, values: ExecutionValues
) -> Route:
    """Route one parameter set, and refuse what would go too far."""
    sources = plan.sources
    if sources.unreadable is not None:
        raise UnsupportedStatement(
            f"it cannot be told where the statement belongs: {sources.unreadable}",
            'say where it runs with execution_options(shard="...") or shard_key=(Model, key)',
            statement=given.sql,
        )

    def locate(source: ShardedSource) -> tuple[Any, ...] | None:
        if around.locator is None or source.primary_key is None:
            return None
        primary_key = tuple(values.parameters.get(each.name) for each in source.primary_key)
        return around.locator.key_of(source.table, primary_key)

    if sources.locks_copies and sources.roots:
        raise UnsupportedStatement(
            "FOR UPDATE would lock the rows of a reference table on one shard only",
            "lock the sharded table alone: with_for_update(of=Model)",
            statement=given.sql,
        )
    route = route_of(sources, around.territory, values, enlisted=around.enlisted, locator=locate)
    # An obstacle is refused with its own reason, whatever scatter says.
    is_possible = sources.obstacle is None
    if not route.is_single and route.reason is Reason.UNKNOWN_KEY and is_possible:
        _check_scatter(given, plan, around)
    return route


def _check_scatter(given: Given, plan: StatementPlan, around: Surroundings) -> None:
    sources, options = plan.sources, given.context.execution_options
    names_one_row = any(root.primary_key is not None for root in sources.roots)
    if sources.kind.is_write:
        if names_one_row or options.get("scatter") == "allow":
            return
        raise ScatterNotAllowed(
            f"the {sources.kind.name} of table {sources.target!r} does not say which shard key it "
            "concerns, so that it would write on every shard",
            'add the shard key to its WHERE clause, or say so with execution_options(shard="*")',
            statement=given.sql,
        )
    if not names_one_row and not allows_scatter(options, around.scatter):
        raise ScatterNotAllowed(
            f"the statement does not say which shard key of {sources.tables[0]!r} it concerns, "
            "and scatter is refused",
            "add the shard key to its WHERE clause, or allow it with execution_options("
            'scatter="allow")',
            statement=given.sql,
        )


def _one_statement(
    given: Given, plan: StatementPlan, around: Surroundings, route: Route
) -> Dispatch:
    sources = plan.sources
    writes = None if sources.kind.is_write or not plan.is_plain_read else False
    if route.is_single:
        return unchanged(given, route, writes=writes)
    compiled: Any = given.context.compiled
    try:
        prepared = plan.prepared(compiled, around.facts)
    except Refusal as refusal:
        raise unsupported(refusal, given.sql, route.reason) from None
    merge = prepared.scatter.merge
    if prepared.rewritten is None:
        works = [Work(shard, given.sql, given.parameters) for shard in route.shards]
        return Dispatch(works, route, merge, writes=writes)
    values = _compat.raw_parameters(given.context)
    sql, parameters = prepared.rewritten.render(given.context, values)
    works = [Work(shard, sql, parameters) for shard in route.shards]
    return Dispatch(works, route, merge, values, writes)


def unsupported(refusal: Refusal, sql: str, reason: Reason) -> UnsupportedStatement:
    """The error for a plan's refusal; ``reason`` is why the statement goes to several shards."""
    advice = "add the shard key to its WHERE clause"
    if reason is Reason.KEY:
        advice = "ask for one shard key at a time, as those given lie on several shards"
    return UnsupportedStatement(
        f"several shards cannot answer this statement as one PostgreSQL would: {refusal.reason}",
        refusal.advice or f'{advice}, or name one shard with execution_options(shard="...")',
        statement=sql,
    )


def _key_changed(given: Given, plan: StatementPlan) -> ShardKeyChanged:
    columns = ", ".join(repr(column) for column in plan.sources.changed_key)
    return ShardKeyChanged(
        f"shard-key column {columns} of table {plan.sources.target!r} would be set, which would "
        "leave the row on the shard of its old key",
        "delete the row and insert it under the new key",
        statement=given.sql,
    )


# -- many parameter sets ----------------------------------------------------------------------


def _many(given: Given, plan: StatementPlan, around: Surroundings, named: Route | None) -> Dispatch:
    """UPDATE or DELETE with many parameter sets: each goes where its values say."""
    if named is not None and named.is_single:
        return unchanged(given, named)
    rows: defaultdict[str, list[int]] = defaultdict(list)
    key = plan.simple_key if named is None else None
    territory = around.territory
    for index, parameters in enumerate(given.context.compiled_parameters):
        known = None if key is None else _known_shard(key, parameters, territory)
        if known is not None:
            rows[known].append(index)
            continue
        values = ExecutionValues(parameters, plan.processors)
        for shard in (named or _routed(given, plan, around, values)).shards:
            rows[shard].append(index)
    route = Route(territory.in_order(rows), Reason.KEY)
    if not route.is_single:
        try:
            plan.prepared(given.context.compiled, around.facts)  # type: ignore[arg-type]
        except Refusal as refusal:
            raise unsupported(refusal, given.sql, route.reason) from None
    works = [
        Work(shard, given.sql, [given.parameters[index] for index in rows[shard]], is_many=True)
        for shard in route.shards
    ]
    return Dispatch(works, route, None if route.is_single else SumOfCounts())


def _insert(
    given: Given, plan: StatementPlan, around: Surroundings, named: Route | None
) -> Dispatch:
    """Rows for a sharded table: each goes to the shard of its key."""
    sources, context = plan.sources, given.context
    style = context.execute_style.name
    first, count = 0, len(context.compiled_parameters)
    if style == "INSERTMANYVALUES":
        first, count = _next_batch(given)
    rows: defaultdict[str, list[int]] = defaultdict(list)
    territory = around.territory
    for index in range(first, first + count):
        parameters = context.compiled_parameters[index]
        shard = plan.inserted_key and _known_shard(plan.inserted_key, parameters, territory)
        if shard is None:
            values = ExecutionValues(parameters, plan.processors)
            shard = shard_of_row(sources.inserted, territory.shard_map, values)  # type: ignore[arg-type]
        rows[shard].append(index)
    route = Route(territory.in_order(rows), Reason.KEY)
    _check_insert(given, plan, around, route, named)
    if route.is_single:
        return unchanged(given, route)
    if style == "INSERTMANYVALUES":
        return _split_batch(given, rows, route)
    works = [
        Work(shard, given.sql, [given.parameters[index] for index in rows[shard]], is_many=True)
        for shard in route.shards
    ]
    return Dispatch(works, route, SumOfCounts())


def _next_batch(given: Given) -> tuple[int, int]:
    """Which parameter sets this call of an "insertmanyvalues" execution holds."""
    context: Any = given.context
    page_size = context.execution_options.get(
        "insertmanyvalues_page_size", context.dialect.insertmanyvalues_page_size
    )
    done = getattr(context, "shards_rows_done", 0)
    batch = _compat.insertmanyvalues_batch(context, given.parameters, done, page_size)
    context.shards_rows_done = done + batch.rows
    return batch.first, batch.rows


def _split_batch(given: Given, rows: Mapping[str, Sequence[int]], route: Route) -> Dispatch:
    compiled: Any = given.context.compiled
    if _compat.insertmanyvalues_sorts_by_server_key(compiled):
        raise UnsupportedStatement(
            "rows that are returned in the order of keys made by the server cannot be matched to "
            "their parameters over several shards",
            "give the primary key a client-side default",
            statement=given.sql,
        )
    works = []
    for shard in route.shards:
        sql, parameters = _compat.render_insertmanyvalues(given.context, rows[shard])
        works.append(Work(shard, sql, parameters))
    return Dispatch(works, route, SumOfCounts())


def _check_insert(
    given: Given,
    plan: StatementPlan,
    around: Surroundings,
    route: Route,
    named: Route | None,
) -> None:
    """Rows must not land beside their shard, nor be computed from rows of another."""
    sources = plan.sources
    if named is not None and not set(route.shards) <= set(named.shards):
        raise RoutingError(
            f"a row for table {sources.target!r} belongs to shard {route.shards[0]!r}, and the "
            f"execution option names {', '.join(map(repr, named.shards))}",
            "leave the option away: inserted rows go where their shard key says",
            shard=route.shards[0],
            statement=given.sql,
        )
    if sources.unreadable is not None:
        raise UnsupportedStatement(
            f"it cannot be told what the INSERT reads: {sources.unreadable}",
            "insert plain values",
            statement=given.sql,
        )
    if sources.roots or sources.reads_global:
        values = ExecutionValues(given.context.compiled_parameters[0], plan.processors)
        read = route_of(sources, around.territory, values)
        is_one_row = len(given.context.compiled_parameters) == 1
        if not is_one_row or not read.is_single or read.shards != route.shards:
            raise UnsupportedStatement(
                f"the INSERT into {sources.target!r} reads tables of other shards than its row's",
                "read first, and insert plain values",
                statement=given.sql,
            )


def _every_copy(
    given: Given, plan: StatementPlan, around: Surroundings, named: Route | None
) -> Dispatch:
    """A reference table is written on all shards, or on none."""
    shards = around.territory.shards
    if named is not None and named.shards != shards:
        raise RoutingError(
            f"reference table {plan.sources.target!r} would be written on some shards only",
            'leave the option away, or use shard="*"',
            statement=given.sql,
        )
    try:
        plan.prepared(given.context.compiled, around.facts)  # type: ignore[arg-type]
    except Refusal as refusal:
        raise UnsupportedStatement(
            f"reference table {plan.sources.target!r} would not become the same on every shard: "
            f"{refusal.reason}",
            refusal.advice or "write plain values",
            statement=given.sql,
        ) from None
    works = [Work(shard, given.sql, given.parameters, given.is_many) for shard in shards]
    return Dispatch(works, Route(shards, Reason.EVERY_COPY), FirstCopy(), is_ordered=True)
