"""Dispatch of what is not looked into: raw SQL, settings, DDL, and all on the only shard."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy.schema import CreateTable, DropTable

from sqlalchemy_shards.cluster.options import named_route
from sqlalchemy_shards.errors import MissingShardKey, UnsupportedStatement
from sqlalchemy_shards.models.distribution import Global, distribution_of
from sqlalchemy_shards.plan import Concatenate, FirstCopy
from sqlalchemy_shards.routing.route import Reason, Route
from sqlalchemy_shards.routing.settings import sets_role, sets_something, setting_of
from sqlalchemy_shards.routing.transaction_control import transaction_control
from sqlalchemy_shards.sql_text import is_comment

from .carried_buckets import check_carried_buckets
from .work import Dispatch, Work

if TYPE_CHECKING:
    from .work import Given, Surroundings


def on_only_shard(given: Given, around: Surroundings) -> Dispatch:
    """One shard takes everything; but models must be declared from the first day on."""
    context = given.context
    compiled: Any = context.compiled
    if not (around.plans.undeclared_is_global or context.isddl or context.is_text):
        check_carried_buckets(given, around.plans.plan_of(compiled), around)
    named_route(context.execution_options, around.territory, around.dialect)
    return unchanged(given, Route(around.territory.shards, Reason.ONLY_SHARD))


def unchanged(given: Given, route: Route, *, writes: bool | None = None) -> Dispatch:
    """Each shard runs what was given."""
    merge = None if route.is_single else Concatenate()
    works = [Work(shard, given.sql, given.parameters, given.is_many) for shard in route.shards]
    return Dispatch(works, route, merge, writes=writes)


def check_as_made(given: Given) -> None:
    """Refuse SQL that an event has changed, where the shards are to run other SQL than it.

    :raises UnsupportedStatement: more than comments was added, or a parameter changed.
    """
    context = given.context
    made: Any = context.statement
    before, found, after = given.sql.partition(made)
    is_sql_made = found and is_comment(before) and is_comment(after + "\n")
    # The option no_parameters gives None where there are none.
    parameters: Any = context.parameters if given.is_many else context.parameters[0]
    are_made = (given.parameters or {}) == (parameters or {})
    if not (is_sql_made and are_made):
        raise UnsupportedStatement(
            "its SQL or its parameters were changed by a before_cursor_execute event, and several "
            "shards are to run what was made of the statement before",
            "change the statement itself, in a before_execute or do_orm_execute event",
            statement=given.sql,
        )


def definition(given: Given, around: Surroundings) -> Dispatch:
    """DDL concerns every shard; tables of the global shard concern that one.

    :raises UnsupportedStatement: it would begin or end a transaction on a shard alone.
    """
    check_transaction_stays(given, around)
    territory = around.territory
    named = named_route(given.context.execution_options, territory, around.dialect)
    statement: Any = getattr(given.context.compiled, "statement", None)
    if named is None and isinstance(statement, (CreateTable, DropTable)):
        distribution = distribution_of(statement.element)
        is_global = distribution is None and around.plans.undeclared_is_global
        if is_global or isinstance(distribution, Global):
            return unchanged(given, Route((territory.global_shard,), Reason.GLOBAL))
    return unchanged(given, named or Route(territory.shards, Reason.EVERY_SHARD))


def raw_sql(given: Given, around: Surroundings) -> Dispatch:
    """Raw SQL runs where an option says; what it sets for the transaction, on every shard.

    :raises MissingShardKey: it names no shard.
    :raises UnsupportedStatement: it would begin or end a transaction on a shard alone.
    """
    context = given.context
    check_transaction_stays(given, around)
    route = named_route(context.execution_options, around.territory, around.dialect)
    if route is None and context.compiled is None and not context.is_text:
        # A sequence or default that was executed on its own.
        route = Route((around.territory.global_shard,), Reason.GLOBAL)
    if route is None:
        return setting_or_refusal(given, around)
    decided = unchanged(given, route)
    decided.is_raw = True
    return decided


def check_transaction_stays(given: Given, around: Surroundings) -> None:
    """Refuse SQL that would part one shard's transaction from that of the others.

    :raises UnsupportedStatement: it would.
    """
    control = None if around.autocommit else transaction_control(given.sql)
    if control is not None:
        raise UnsupportedStatement(
            f"{control} in SQL text would begin or end the transaction on one shard alone, and"
            " what the others wrote would be half of it",
            "use commit(), rollback() and begin_nested() of the session or connection",
            statement=given.sql,
        )


def setting_or_refusal(given: Given, around: Surroundings) -> Dispatch:
    """What is set for the transaction is set on each shard, those that join later included.

    :raises UnsupportedStatement: it sets the role.
    :raises MissingShardKey: it sets nothing of the kind, and names no shard.
    """
    setting = None if given.is_many else setting_of(given.sql, given.parameters)
    if setting is not None:
        whole = unchanged(given, Route(around.territory.shards, Reason.SETTING), writes=False)
        return replace(whole, merge=FirstCopy(), setting=setting)
    if sets_role(given.sql):
        raise UnsupportedStatement(
            "the role decides who may finish what a transaction prepares, and is not set on shards "
            "that join later",
            "connect as the role that is meant, and tell policies who asks with SET LOCAL "
            "app.name; or take the role on every shard at once, with SET LOCAL ROLE and "
            'execution_options(shard="*")',
            statement=given.sql,
        )
    if sets_something(given.sql):
        raise MissingShardKey(
            "a setting that is not certainly one of the transaction alone names no shard",
            "set it for the transaction with SET LOCAL name = value or SELECT set_config(name, "
            'value, true); for all connections, listen to the event "connect" of each '
            "cluster.shards[name].engine",
            statement=given.sql,
        )
    raise MissingShardKey(
        "raw SQL names no shard",
        'say where it runs with execution_options(shard="...") ("*" for all shards) or '
        "shard_key=(Model, key)",
        statement=given.sql,
    )


def computed_default(given: Given, around: Surroundings) -> Dispatch:
    """A default that is computed before its INSERT runs on the shard of a global table.

    :raises MissingShardKey: the table is another one.
    """
    compiled: Any = given.context.compiled
    sources = around.plans.plan_of(compiled).sources
    if sources.writes_global:
        return unchanged(given, Route((around.territory.global_shard,), Reason.GLOBAL))
    raise MissingShardKey(
        f"a default of table {sources.target!r} would be computed by SQL before the row's shard "
        "is known",
        "give the column a client-side default",
        statement=given.sql,
    )
