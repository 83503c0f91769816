"""The walk of SELECTs and set operations: their FROM lists, their WHERE, what is inside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import CompoundSelect, Select, SelectStatementGrouping

from sqlalchemy_shards import _compat

from .nested import is_plain, is_row_by_row, why_not_alike
from .row_wise import why_not_row_wise
from .scopes import Derived, Scope, leaves, unlabelled
from .targets import locks_copies

if TYPE_CHECKING:
    from .walk import Walk


def walk_query(
    walk: Walk, query: Any, parent: Scope | None, *, is_from: bool, depth: int = 0
) -> Derived:
    """Walk a SELECT or set operation; return what a FROM list sees of it."""
    while isinstance(query, SelectStatementGrouping):
        query = query.element
    first = len(walk.occurrences)
    if isinstance(query, Select):
        return _select(walk, query, parent, is_from=is_from, depth=depth)
    if isinstance(query, CompoundSelect):
        for member in query.selects:
            walk.query(member, parent, is_from=is_from, depth=depth + 1)
        walk.hinder("UNION, INTERSECT and EXCEPT compare rows of all shards")
    elif isinstance(query, UpdateBase):
        walk.unreadable = "it changes rows inside a CTE"
    else:
        walk.unreadable = f"a {type(query).__name__} cannot be looked into"
    return Derived(sources=frozenset(range(first, len(walk.occurrences))))


def _select(
    walk: Walk, select: Select[Any], parent: Scope | None, *, is_from: bool, depth: int
) -> Derived:
    scope = _scope_within(parent)
    final, froms, labels = _compat.final_select(
        select,
        is_from=is_from,
        enclosing=scope.enclosing,
        directly_enclosing=scope.directly_enclosing,
    )
    first = len(walk.occurrences)
    scope.directly_enclosing = frozenset(leaf for each in froms for leaf in leaves(each))
    scope.enclosing |= scope.directly_enclosing
    obstacle, walk.obstacle = walk.obstacle, None
    for element in froms:
        walk.from_element(element, scope, is_kept=depth == 0)
    shape = _compat.select_shape(final)
    columns = tuple(final.selected_columns)
    is_simple = walk.obstacle is None and is_row_by_row(shape) and why_not_row_wise(columns) is None
    walk.obstacle = obstacle or walk.obstacle
    where = [*scope.conjuncts]
    if final.whereclause is not None:
        where.append(final.whereclause)
    walk.restrict(where, scope, scope.own)
    for cte in shape.independent_ctes:
        walk.cte(cte, scope)
    for expression in (*final.get_children(), *scope.conjuncts):
        if not _compat.is_written_as_label(expression, labels):
            walk.look_into(expression, scope)
    walk.is_plain = walk.is_plain and is_plain(final, shape)
    if parent is not None or depth > 0 or is_from:
        is_sharded = len(walk.occurrences) > first
        walk.hinder_if(why_not_alike(final, shape, is_sharded=is_sharded))
    if shape.embellished:
        walk.unreadable = "it holds raw SQL text as prefix, suffix or hint"
    walk.locks_copies = walk.locks_copies or (shape.for_update and locks_copies(final))
    return Derived(
        tuple(scope.resolve(unlabelled(column), walk.occurrences) for column in columns),
        frozenset(range(first, len(walk.occurrences))),
        is_simple=is_simple,
    )


def _scope_within(parent: Scope | None) -> Scope:
    if parent is None:
        return Scope()
    return Scope(parent, enclosing=parent.enclosing, directly_enclosing=parent.directly_enclosing)
