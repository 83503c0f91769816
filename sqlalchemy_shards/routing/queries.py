"""The walk of SELECTs and set operations: their FROM lists, their WHERE, what is inside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import CompoundSelect, Select, Values

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
from .row_wise import why_not_row_wise
from .scopes import Derived, Scope, Standing, Subquery, leaves, ungrouped_query, unlabelled
from .targets import locks_copies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .scopes import Place
    from .walk import Walk


def walk_query(
    walk: Walk, query: Any, parent: Scope | None, *, is_from: bool, depth: int = 0
) -> Derived:
    """Walk a SELECT or set operation; return what a FROM list sees of it."""
    query = ungrouped_query(query)
    derived = Derived()
    if isinstance(query, Select):
        derived = _select(walk, query, parent, is_from=is_from, depth=depth)
    elif isinstance(query, CompoundSelect):
        derived = _compound(walk, query, parent, is_from=is_from, depth=depth)
    elif isinstance(query, UpdateBase):
        walk.unreadable = "it changes rows inside a CTE"
    elif isinstance(query, Values) and not _compat.has_expressions(query):
        walk.hinder("VALUES in the FROM list would be there on every shard")
    else:
        walk.unreadable = f"a {type(query).__name__} cannot be looked into"
    if parent is not None:
        parent.subqueries[id(query)] = Subquery(query, derived.selects)
    return derived


def _compound(
    walk: Walk, query: CompoundSelect[Any], parent: Scope | None, *, is_from: bool, depth: int
) -> Derived:
    shape = _compat.select_shape(query)
    around = _scope_within(parent)
    for expression in (*shape.order_by, shape.limit, shape.offset, shape.fetch):
        walk.look_into(expression, around)
    for cte in shape.independent_ctes:
        walk.cte(cte)
    if is_from and len(query.selects) == 1 and is_row_by_row(shape):  # as the ORM writes it
        return walk.query(query.selects[0], parent, is_from=True, depth=depth)
    # Of the outermost one LIMIT and OFFSET are looked at where it is planned.
    is_outermost = walk.is_select and parent is None and depth == 0 and not is_from
    may_add_up = (
        depth == 0
        and (is_outermost or (is_from and is_row_by_row(shape)))
        and query.keyword.value == "UNION ALL"
    )
    members = [
        walk.query(
            member,
            parent,
            is_from=is_from or (is_outermost and may_add_up),
            depth=0 if may_add_up else depth + 1,
        )
        for member in query.selects
    ]
    # Rows of a reference table would come once for each shard.
    adds_up = may_add_up and all(member.is_simple and member.sources for member in members)
    if adds_up:
        walk.unions.append([member.sources for member in members])
    else:
        walk.hinder("UNION, INTERSECT and EXCEPT put rows of all shards together")
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
        is_simple=adds_up and not is_outermost,
        is_local=adds_up and not is_outermost,
        selects=_selects_of_union(query, members),
    )


def _selects_of_union(query: CompoundSelect[Any], members: Sequence[Derived]) -> tuple[Scope, ...]:
    is_known = query.keyword.value.startswith("UNION") and all(each.selects for each in members)
    return tuple(scope for each in members for scope in each.selects) if is_known else ()


def _select(
    walk: Walk, select: Select[Any], parent: Scope | None, *, is_from: bool, depth: int
) -> Derived:
    scope = _scope_within(parent)
    scope.select = select
    final, froms, labels, names = _compat.final_select(
        select,
        is_from=is_from,
        enclosing=scope.enclosing,
        directly_enclosing=scope.directly_enclosing,
    )
    first = len(walk.sources)
    scope.directly_enclosing = frozenset(leaf for each in froms for leaf in leaves(each))
    scope.enclosing |= scope.directly_enclosing
    where = () if final.whereclause is None else (final.whereclause,)
    standing = Standing(is_kept=depth == 0, certain=where)
    obstacle, walk.obstacle = walk.obstacle, None
    for element in froms:
        walk.from_element(element, scope, standing)
    shape = _compat.select_shape(final)
    columns = tuple(final.selected_columns)
    is_simple = (
        walk.obstacle is None
        and is_row_by_row(shape)
        and why_not_row_wise([*columns, *shape.order_by]) is None
    )
    walk.obstacle = obstacle or walk.obstacle
    for expression in (*final.get_children(), *scope.certain):
        if not _compat.is_written_as_label(expression, labels):
            walk.look_into(expression, scope)
    for cte in shape.independent_ctes:
        walk.cte(cte)
    scope.certain += where
    scope.columns, scope.group_by = [unlabelled(each) for each in columns], shape.group_by
    scope.stems_from_rows = stems_from_rows(columns, shape)
    walk.restrict(scope.certain, scope, scope.own)
    walk.is_plain = walk.is_plain and is_plain(final, shape)
    if parent is not None or depth > 0 or is_from:
        is_sharded = len(walk.sources) > first
        walk.hinder_if(why_not_alike(final, shape, is_sharded=is_sharded))
    if shape.embellished:
        walk.unreadable = "it holds raw SQL text as prefix, suffix or hint"
    walk.locks_copies = walk.locks_copies or (shape.for_update and locks_copies(final))
    is_divided = divides_by_key(columns, shape, names, scope, walk)
    if parent is None and depth == 0 and not is_from:
        walk.is_key_by_key = is_divided
    return Derived(
        _shown_places(columns, scope, shape),
        frozenset(range(first, len(walk.sources))),
        is_simple=is_simple,
        is_local=is_simple or (is_divided and is_made_key_by_key(columns, shape)),
        selects=(scope,),
    )


def _shown_places(
    columns: Sequence[Any], scope: Scope, shape: _compat.SelectShape
) -> tuple[tuple[Place, ...], ...]:
    """The places of a SELECT's columns, as the FROM list around it sees them."""
    commuting = commuting_columns(columns, shape)
    return tuple(
        tuple(
            place._replace(is_shown=place.is_direct and is_commuting)
            for place in scope.places(unlabelled(column))
        )
        for column, is_commuting in zip(columns, commuting, strict=True)
    )


def _scope_within(parent: Scope | None) -> Scope:
    if parent is None:
        return Scope()
    return Scope(parent, enclosing=parent.enclosing, directly_enclosing=parent.directly_enclosing)
