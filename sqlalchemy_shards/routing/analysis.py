"""A compiled statement -> `StatementSources`: its tables, and what decides where it must run.

The statement is walked scope by scope: `queries`, `from_lists`, `expressions`, `modifications`,
which meet in `walk`. Every occurrence of a sharded table becomes a *source* with the conditions
that WHERE and ON put on its shard key (`restrictions`, `predicates`). An *edge* a -> b says: rows
of b matter only where their whole shard key equals that of some row of a that matters; so b needs
no look-up of its own, and lies beside a. Edges run both ways through inner joins and WHERE, from
the preserved to the NULL-filled side of an outer join, and from outside into a correlated subquery.

Fails closed: the tables that were found must be those that the compiler rendered, else the
statement is *unreadable*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import SelectBase

from sqlalchemy_shards import _compat

from .modifications import walk_modification
from .sources import StatementKind, StatementSources
from .walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.selectable import FromClause

    from .scopes import Occurrence


def analyse(
    compiled: SQLCompiler,
    dialect: Dialect,
    *,
    undeclared_is_global: bool,
    rendered: Mapping[FromClause, int],
    orders_by_code_point: Callable[[Any], bool] | None = None,
) -> StatementSources:
    """Find the sources of a compiled statement.

    :param undeclared_is_global: tables that say nothing are global; else they are refused.
    :param rendered: FROM element -> how often the compiler rendered it, for tables.
    :param orders_by_code_point: whether a text column certainly sorts as Python strings do; without
        it, no text does.
    :raises ConfigurationError: a table says nothing, and that is not allowed.
    """
    for shares_ctes in (False, True):
        walk = Walk(
            compiled.bind_names,
            dialect,
            undeclared_is_global=undeclared_is_global,
            orders_by_code_point=orders_by_code_point or _never,
            shares_ctes=shares_ctes,
        )
        sources = _walked(walk, compiled, rendered)
        if not walk.names_cte_again:
            break  # else each of them was taken for the only one that is restricted
    return sources


def occurrences_of(compiled: SQLCompiler) -> Sequence[Occurrence]:
    """The places of tables in a statement that `analyse` could read.

    Fails closed: the caller compares their number with what the compiler rendered.
    """
    walk = Walk(
        compiled.bind_names,
        compiled.dialect,
        undeclared_is_global=True,
        orders_by_code_point=_never,
        shares_ctes=True,
    )
    statement: Any = _compat.core_statement(compiled)
    if isinstance(statement, UpdateBase):
        walk_modification(walk, statement, compiled, compiled.rendered_tables)  # type: ignore[attr-defined]
    else:
        walk.query(statement, None, is_from=False)
    return walk.occurrences


def _never(expression: Any) -> bool:
    return False


def _walked(
    walk: Walk, compiled: SQLCompiler, rendered: Mapping[FromClause, int]
) -> StatementSources:
    statement = _compat.core_statement(compiled)
    if isinstance(statement, UpdateBase):
        return walk_modification(walk, statement, compiled, rendered)
    if isinstance(statement, SelectBase):
        walk.is_select = True
        walk.query(statement, None, is_from=False)
        return walk.result(StatementKind.SELECT, rendered)
    walk.unreadable = f"a {type(statement).__name__} cannot be looked into"
    return walk.result(StatementKind.OTHER, rendered)
