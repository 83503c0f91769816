"""What is known of a row that a statement names by its primary key only, and when it is believed.

What the session's locator knows is a hint: the row may have been given another shard key since. A
hint is followed only by a statement whose count of rows tells that it did not find the row; the
cursor then looks on all shards, so that the answer is that of one database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.selectable import Select

from sqlalchemy_shards import _compat
from sqlalchemy_shards.routing.route import Reason
from sqlalchemy_shards.routing.row_wise import why_not_row_wise
from sqlalchemy_shards.routing.scopes import unlabelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.sql.compiler import SQLCompiler

    from sqlalchemy_shards.cluster.plans import StatementPlan
    from sqlalchemy_shards.routing.route import Route
    from sqlalchemy_shards.routing.router import Territory
    from sqlalchemy_shards.routing.sources import ShardedSource, StatementSources

    from .values import ExecutionValues
    from .work import Given, Surroundings

    Key = tuple[Any, ...]


def shows_absence(sources: StatementSources, compiled: SQLCompiler) -> bool:
    """Whether a statement that finds none of its root's rows says so by counting no row.

    An aggregate gives a row about nothing, and an outer join a row of its other side.
    """
    if not all(root.stands_for_rows for root in sources.roots):
        return False
    statement = _compat.core_statement(compiled)
    if isinstance(statement, UpdateBase):
        return True
    if not isinstance(statement, Select):
        return False
    shape = _compat.select_shape(statement)
    if shape.group_by or shape.having or shape.extended:
        return False
    # A plain column beside an aggregate would have to be grouped by.
    columns = [unlabelled(column) for column in statement.selected_columns]
    return (
        _compat.is_refresh(compiled)
        or any(isinstance(each, ColumnClause) and not each.is_literal for each in columns)
        or why_not_row_wise(columns) is None
    )


def locator_of(
    given: Given, plan: StatementPlan, values: ExecutionValues, around: Surroundings
) -> Callable[[ShardedSource], tuple[Any, ...] | None] | None:
    """What tells the key of a source's row for one parameter set; None: nothing does."""
    # Of many rows it must be told again where they were looked for.
    is_believed = plan.shows_absence and (given.is_many or not given.looks_again)
    if not is_believed or not given.can_look_again:
        return None

    def locate(source: ShardedSource) -> tuple[Any, ...] | None:
        if source.primary_key is None:
            return None
        primary_key = tuple(values.parameters.get(each.name) for each in source.primary_key)
        return key_of(source.table, primary_key, around)

    return locate


def key_of(table: Any, primary_key: tuple[Any, ...], around: Surroundings) -> Key | None:
    """The shard key of a row that this transaction inserted, or that the session holds.

    Where a row is inserted beside it, a stale hint does no harm: the foreign key fails.
    """
    key = around.inserted.key_of(table, primary_key)
    if key is not None or around.locator is None:
        return key
    return around.locator.key_of(table, primary_key)


def shards_to_ask(given: Given, route: Route, territory: Territory) -> tuple[str, ...]:
    """The shards for one of many parameter sets: at the second look those that were left out."""
    if not given.looks_again:
        return route.shards
    if route.reason is not Reason.LOCATOR:
        return ()
    return tuple(shard for shard in territory.shards if shard not in route.shards)
