"""Dispatch of a statement with one parameter set: where it goes, and what each shard runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy_shards import _compat
from sqlalchemy_shards.cluster.gather.gather import gathered, of_named
from sqlalchemy_shards.cluster.gather.supplying import supplied
from sqlalchemy_shards.cluster.limits import asked_gather_limit
from sqlalchemy_shards.cluster.moved_rows import is_movable, moved
from sqlalchemy_shards.cluster.options import allows_scatter
from sqlalchemy_shards.errors import ScatterNotAllowed, UnsupportedStatement
from sqlalchemy_shards.plan import ForeignOrder
from sqlalchemy_shards.planning.derived import render
from sqlalchemy_shards.planning.refusal import Refusal, advice_on_unreadable
from sqlalchemy_shards.routing.route import Reason, Route
from sqlalchemy_shards.routing.router import route_of
from sqlalchemy_shards.routing.sources import StatementKind, StatementSources

from .no_rows import no_rows
from .own_values import own_values
from .unread import check_as_made, unchanged
from .values import ExecutionValues
from .whereabouts import locator_of
from .work import Dispatch, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy_shards.cluster.compiler import ShardsCompiler
    from sqlalchemy_shards.cluster.plans import StatementPlan
    from sqlalchemy_shards.planning.rewriting import Rewritten
    from sqlalchemy_shards.routing.sources import ShardedSource, WrittenSource

    from .work import Given, Surroundings


_WRITE_OTHERWISE: Final = (
    "add the shard key to its WHERE clause; or read the rows first, by a SELECT, and write them by "
    "their keys"
)


def routed(
    given: Given, plan: StatementPlan, around: Surroundings, values: ExecutionValues
) -> Route:
    """Route one parameter set, and refuse what would go too far."""
    sources = plan.sources
    if sources.unreadable is not None:
        raise UnsupportedStatement(
            f"it cannot be told where the statement belongs: {sources.unreadable}",
            advice_on_unreadable(sources.unreadable),
            statement=given.sql,
        )
    if sources.locks_copies and sources.roots:
        raise UnsupportedStatement(
            "FOR UPDATE would lock the rows of a reference table on one shard only",
            "lock the sharded table alone: with_for_update(of=Model)",
            statement=given.sql,
        )
    locate = locator_of(given, plan, values, around)
    route = route_of(
        sources,
        around.territory,
        values,
        enlisted=around.enlisted,
        locator=locate,
        may_be_empty=True,
    )
    # An obstacle is refused with its own reason, whatever scatter says.
    is_possible = sources.obstacle is None
    if not route.is_single and route.reason is Reason.UNKNOWN_KEY and is_possible:
        check_scatter(given, plan, around)
    return route


def check_scatter(
    given: Given,
    plan: StatementPlan,
    around: Surroundings,
    roots: Sequence[ShardedSource] | None = None,
) -> None:
    """Refuse a statement that may go to several shards, unless that is wanted.

    :param roots: the sources that decide where it goes, if not those of the plan.
    :raises ScatterNotAllowed: it is refused.
    """
    sources, options = plan.sources, given.context.execution_options
    roots = sources.roots if roots is None else roots
    names_one_row = any(root.primary_key is not None for root in roots)
    if sources.kind.is_write:
        if names_one_row or allows_scatter(options, "refuse"):
            return
        is_insert = sources.kind is StatementKind.INSERT
        clause = "the WHERE clause of its SELECT" if is_insert else "its WHERE clause"
        raise ScatterNotAllowed(
            f"the {sources.kind.name} of table {sources.target!r} does not say which shard key it "
            "concerns, so that it would write on every shard",
            f'add the shard key to {clause}, or say so with execution_options(shard="*")',
            statement=given.sql,
        )
    if plan.is_loaders:
        return  # an attribute is read, of an object that was found by a statement before
    if not names_one_row and not allows_scatter(options, around.scatter):
        raise ScatterNotAllowed(
            f"the statement does not say which shard key of {sources.tables[0]!r} it concerns, "
            "and scatter is refused",
            "add the shard key to its WHERE clause, or allow it with execution_options("
            'scatter="allow")',
            statement=given.sql,
        )


def context_values(given: Given, plan: StatementPlan) -> ExecutionValues:
    """The values of a single execution."""
    if given.values is None:
        given.values = ExecutionValues(_compat.raw_parameters(given.context), plan.processors)
    return given.values


def with_one_copy(named: Route, plan: StatementPlan) -> Route:
    """Of the shards that an option names, one where only copies of reference tables are read."""
    sources = plan.sources
    if sources.roots or sources.reads_global or not sources.reads_reference:
        return named
    return Route(named.shards[:1], named.reason)


def one_set(given: Given, plan: StatementPlan, around: Surroundings, route: Route) -> Dispatch:
    """Decide what each shard of a route runs, and how the answers become one."""
    sources = plan.sources
    if route.is_empty:
        nothing = no_rows(given, plan, route, context_values(given, plan))
        if nothing is not None:
            return nothing
        route = route.asked()
    writes = None if sources.kind.is_write or not plan.is_plain_read else False
    if route.is_single:
        whole = unchanged(given, route, writes=writes)
        if route.reason is Reason.LOCATOR:
            whole.believed = 1
        return whole
    compiled: Any = given.context.compiled
    try:
        prepared = plan.prepared(compiled, around.facts)
    except Refusal as refusal:
        return _gathered(given, plan, around, route, refusal)
    values = context_values(given, plan)
    works = _works(given, plan, around, route, values, prepared.rewritten)
    decided = Dispatch(works, route, prepared.scatter.merge, values.parameters, writes)
    decided.is_timed = prepared.rewritten is not None and prepared.rewritten.is_timed
    if isinstance(decided.merge, ForeignOrder):
        options = given.context.execution_options
        decided.limit = asked_gather_limit(options, around.gather_limit)
    return decided


def _works(
    given: Given,
    plan: StatementPlan,
    around: Surroundings,
    route: Route,
    values: ExecutionValues,
    rewritten: Rewritten | None,
) -> list[Work]:
    """What each of several shards runs: its own values of lists of keys, and no others."""
    context, compiled = given.context, cast("ShardsCompiler", given.context.compiled)
    # Where the application asks for shards, or has changed the SQL, nothing is left out.
    is_as_made = given.sql is context.statement and given.parameters is context.parameters[0]
    if rewritten is not None and not is_as_made:
        check_as_made(given)
    lists = plan.key_lists(compiled) if is_as_made and route.reason is not Reason.OPTION else ()
    own = own_values(lists, values, route, around.territory.shard_map) if lists else {}

    def rendered(mine: Mapping[str, Any]) -> tuple[str, Any]:
        parameters = {**values.parameters, **mine}
        if rewritten is not None:
            return rewritten.render(context, parameters)
        if not mine and not (is_as_made and compiled.list_forms):
            return given.sql, given.parameters
        return render(compiled, plan.processors_of_all(compiled), context, parameters)

    common = None if len(own) == len(route.shards) else rendered({})
    return [
        Work(shard, *(rendered(own[shard]) if common is None or shard in own else common))
        for shard in route.shards
    ]


def _gathered(
    given: Given, plan: StatementPlan, around: Surroundings, route: Route, refusal: Refusal
) -> Dispatch:
    """The workspace answers, where shards alone cannot."""
    if is_movable(given):
        if route.reason is Reason.UNKNOWN_KEY and not plan.sources.writes_global:
            check_scatter(given, plan, around)
        named = route if route.reason is Reason.OPTION else None
        return moved(given, plan, around, named, refusal.reason)
    if plan.sources.kind is not StatementKind.SELECT:
        return _supplied(given, plan, around, route, refusal)
    if route.reason is not Reason.OPTION:
        check_scatter(given, plan, around)
    check_as_made(given)
    try:
        decided = gathered(given, plan.gathering(given, around), around, route)
    except Refusal as reason:
        raise unsupported(_of_both(refusal, reason), given.sql, route.reason) from None
    decided.obstacle = refusal.reason
    return decided


def _supplied(
    given: Given, plan: StatementPlan, around: Surroundings, route: Route, refusal: Refusal
) -> Dispatch:
    """The shards write, and are given what they lack of others."""
    if plan.sources.written is not None:
        check_as_made(given)
        try:
            supply = plan.supply(given, around)
        except Refusal as reason:
            both = _of_both(refusal, reason)
            refusal = Refusal(both.reason, both.advice or refusal.advice)
        else:
            target = _route_of_target(given, plan, around, plan.sources.written, route)
            if target.is_empty:
                return one_set(given, plan, around, target)
            decided = supplied(given, supply, around, target, route)
            decided.obstacle = refusal.reason
            return decided
    advice = refusal.advice or _WRITE_OTHERWISE
    raise unsupported(Refusal(refusal.reason, advice), given.sql, route.reason) from None


def _route_of_target(
    given: Given,
    plan: StatementPlan,
    around: Surroundings,
    written: WrittenSource,
    whole: Route,
) -> Route:
    """Where the rows are that a statement writes."""
    territory = around.territory
    if written.root is None:
        home = Route((territory.global_shard,), Reason.GLOBAL)
        if whole.reason is not Reason.OPTION:
            return home
        return of_named(whole, StatementSources(plan.sources.kind, reads_global=True), around)
    if whole.reason is Reason.OPTION:
        return whole
    sources = StatementSources(plan.sources.kind, roots=(written.root,))
    route = route_of(
        sources,
        territory,
        context_values(given, plan),
        enlisted=around.enlisted,
        may_be_empty=True,
    )
    if not route.is_single and route.reason is Reason.UNKNOWN_KEY:
        check_scatter(given, plan, around, sources.roots)
    return route


def _of_both(obstacle: Refusal, reason: Refusal) -> Refusal:
    """Why neither the shards can answer nor the workspace."""
    if obstacle.reason.startswith("FOR UPDATE") or obstacle.reason == reason.reason:
        return obstacle
    together = f"{reason.reason} (rows are brought together: {obstacle.reason})"
    return Refusal(together, reason.advice)


def gather_instead(
    given: Given, around: Surroundings, route: Route, *, is_for_good: bool
) -> Dispatch:
    """Let the workspace answer.

    :param is_for_good: also when the statement comes again.
    :raises UnsupportedStatement: it cannot.
    """
    compiled: Any = given.context.compiled
    plan = around.plans.plan_of(compiled)
    refusal = Refusal("its rows cannot be merged")
    if is_for_good:
        plan.refuse_merge(refusal)
    return _gathered(given, plan, around, route, refusal)


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
