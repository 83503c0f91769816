"""The walk of SELECTs and set operations: their FROM lists, their WHERE, what is inside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import CompoundSelect, Select, SelectStatementGrouping

from sqlalchemy_shards import _compat

from .key_by_key import divides_by_key, is_made_key_by_key
from .nested import (
    commuting_columns,
    is_cut_off,
    is_plain,
    is_row_by_row,
    stems_from_rows,
    why_not_alike,
)
from .reading import Answer
from .row_wise import why_not_row_wise
from .scopes import Derived, Scope, leaves, unlabelled
from .targets import locks_copies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .scopes import Place
    from .walk import Walk


def walk_query(
    walk: Walk, query: Any, parent: Scope | None, *, is_from: bool, depth: int = 0
) -> Derived:
    """Walk a SELECT or set operation; return what a FROM list sees of it."""
    query = _ungrouped(query)
    if isinstance(query, Select):
        return _select(walk, query, parent, is_from=is_from, depth=depth)
    if isinstance(query, CompoundSelect):
        return _compound(walk, query, parent, is_from=is_from, depth=depth)
    if isinstance(query, UpdateBase):
        walk.unreadable = "it changes rows inside a CTE"
    else:
        walk.unreadable = f"a {type(query).__name__} cannot be looked into"
    return Derived()


def _compound(
    walk: Walk, query: CompoundSelect[Any], parent: Scope | None, *, is_from: bool, depth: int
) -> Derived:
    shape = _compat.select_shape(query)
    if is_from and len(query.selects) == 1 and is_row_by_row(shape):  # as the ORM writes it
        return walk.query(query.selects[0], parent, is_from=True, depth=depth)
    may_add_up = (
        is_from and depth == 0 and query.keyword.value == "UNION ALL" and is_row_by_row(shape)
    )
    members = [
        walk.query(member, parent, is_from=is_from, depth=0 if may_add_up else depth + 1)
        for member in query.selects
    ]
    # Rows of a reference table would come once for each shard.
    adds_up = may_add_up and all(member.is_simple and member.sources for member in members)
    if adds_up:
        walk.unions.append([member.sources for member in members])
    else:
        walk.hinder("UNION, INTERSECT and EXCEPT compare rows of all shards")
    if query.keyword.value.startswith("UNION"):
        answers = [walk.answers.get(id(_ungrouped(member))) for member in query.selects]
        walk.answers[id(query)] = Answer(Scope(), members=answers)
    columns = zip(*(member.places for member in members), strict=False)
    is_cut = is_cut_off(shape)
    return Derived(
        tuple(
            tuple(
                place._replace(is_alternative=True, is_shown=place.is_shown and not is_cut)
                for places in column
                for place in places
            )
            for column in columns
        ),
        frozenset().union(*(member.sources for member in members)),
        is_simple=adds_up,
        is_local=adds_up,
    )


def _select(
    walk: Walk, select: Select[Any], parent: Scope | None, *, is_from: bool, depth: int
) -> Derived:
    scope = _scope_within(parent)
    final, froms, labels, names = _compat.final_select(
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
    is_simple = (
        walk.obstacle is None
        and is_row_by_row(shape)
        and why_not_row_wise([*columns, *shape.order_by]) is None
    )
    walk.obstacle = obstacle or walk.obstacle
    where = [*scope.conjuncts]
    if final.whereclause is not None:
        where.append(final.whereclause)
    for expression in (*final.get_children(), *scope.conjuncts):
        if not _compat.is_written_as_label(expression, labels):
            walk.look_into(expression, scope)
    for cte in shape.independent_ctes:
        walk.cte(cte)
    walk.restrict(where, scope, scope.own)
    if stems_from_rows(columns, shape):
        walk.answers[id(select)] = Answer(scope, where, [unlabelled(each) for each in columns])
    walk.is_plain = walk.is_plain and is_plain(final, shape)
    if parent is not None or depth > 0 or is_from:
        is_sharded = len(walk.occurrences) > first
        walk.hinder_if(why_not_alike(final, shape, is_sharded=is_sharded))
    if shape.embellished:
        walk.unreadable = "it holds raw SQL text as prefix, suffix or hint"
    walk.locks_copies = walk.locks_copies or (shape.for_update and locks_copies(final))
    is_divided = divides_by_key(columns, shape, names, where, scope, walk)
    if parent is None and depth == 0 and not is_from:
        walk.is_key_by_key = is_divided
    return Derived(
        _shown_places(columns, scope, shape, walk),
        frozenset(range(first, len(walk.occurrences))),
        is_simple=is_simple,
        is_local=is_simple or (is_divided and is_made_key_by_key(columns, shape)),
    )


def _shown_places(
    columns: Sequence[Any], scope: Scope, shape: _compat.SelectShape, walk: Walk
) -> tuple[tuple[Place, ...], ...]:
    """The places of a SELECT's columns, as the FROM list around it sees them."""
    commuting = commuting_columns(columns, shape)
    return tuple(
        tuple(
            place._replace(is_shown=place.is_direct and is_commuting)
            for place in scope.places(unlabelled(column), walk.occurrences)
        )
        for column, is_commuting in zip(columns, commuting, strict=True)
    )


def _ungrouped(query: Any) -> Any:
    while isinstance(query, SelectStatementGrouping):
        query = query.element
    return query


def _scope_within(parent: Scope | None) -> Scope:
    if parent is None:
        return Scope()
    return Scope(parent, enclosing=parent.enclosing, directly_enclosing=parent.directly_enclosing)
