"""The walk of FROM lists: tables, joins, aliases, subqueries and CTEs, and what names them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table
from sqlalchemy.sql.selectable import (
    CTE,
    Alias,
    AliasedReturnsRows,
    CompoundSelect,
    FromClause,
    FromGrouping,
    Join,
    Lateral,
    Subquery,
    TableSample,
    TableValuedAlias,
    Values,
)

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.distribution import Reference, Sharded

from .row_wise import why_not_row_wise
from .scopes import Derived, OuterJoin, Scope

if TYPE_CHECKING:
    from .walk import Walk


def walk_from(
    walk: Walk, element: Any, scope: Scope, *, is_kept: bool, is_inner: bool = True
) -> set[int]:
    """Walk one FROM element; return the sources in it.

    :param is_kept: it stands in the outermost FROM list, and no outer join fills it.
    :param is_inner: no outer join of its own FROM list fills it.
    """
    while isinstance(element, FromGrouping):
        element = element.element
    if isinstance(element, Join):
        return _join(walk, element, scope, is_kept=is_kept, is_inner=is_inner)
    if isinstance(element, Table):
        return _table(walk, element, element, scope, is_kept=is_kept)
    if isinstance(element, CTE):
        return _named(walk, element, walk_cte(walk, element, is_kept=is_kept), scope)
    if isinstance(element, TableValuedAlias):
        walk.is_plain = False
        walk.look_into(element.element, scope)
        walk.hinder("a function in the FROM list would run on every shard")
        scope.names[element] = None
        return set()
    if isinstance(element, Values) and not _compat.has_expressions(element):
        walk.hinder("VALUES in the FROM list would be there on every shard")
        scope.names[element] = None
        return set()
    if isinstance(element, TableSample):
        walk.hinder("TABLESAMPLE picks other rows on every shard")
    if isinstance(element, (Alias, Subquery, Lateral, TableSample)):
        return _alias(walk, element, scope, is_kept=is_kept)
    walk.unreadable = f"the FROM list holds a {type(element).__name__}"
    return set()


def walk_cte(walk: Walk, cte: CTE, *, is_kept: bool) -> Derived:
    """Walk a CTE where it is first named; named again, it shows nothing."""
    names = {id(cte.element)}
    if isinstance(cte.element, CompoundSelect):
        names.update(id(member) for member in cte.element.selects)
    if names & walk.seen_ctes:
        walk.names_cte_again = walk.names_cte_again or not names & walk.open_ctes
        return Derived()
    # Put down before the walk: a recursive CTE names itself.
    walk.seen_ctes |= names
    walk.open_ctes |= names
    depth = 0 if is_kept and not walk.shares_ctes and not cte.recursive else 1
    derived = walk.query(cte.element, None, is_from=True, depth=depth)
    walk.open_ctes -= names
    if cte.recursive:
        return Derived(sources=derived.sources, is_shared=True)
    if walk.shares_ctes:
        return replace(derived, is_simple=False, is_local=False, is_shared=True)
    return derived


def _alias(walk: Walk, element: AliasedReturnsRows, scope: Scope, *, is_kept: bool) -> set[int]:
    inner: Any = element.element
    while isinstance(inner, (Alias, Subquery)):
        inner = inner.element  # an alias of an alias or subquery
    if isinstance(inner, Table):
        return _table(walk, inner, element, scope, is_kept=is_kept)
    is_from = not isinstance(element, Lateral)
    # A subquery is as good as its table where it only filters and projects.
    depth = 0 if is_kept and is_from else 1
    return _named(walk, element, walk.query(inner, scope, is_from=is_from, depth=depth), scope)


def _named(walk: Walk, element: FromClause, derived: Derived, scope: Scope) -> set[int]:
    scope.names[element] = derived.named(element)
    is_beside = isinstance(element, Lateral)  # it is beside its row, if anything is
    if derived.sources and not derived.is_local and not is_beside:
        walk.hinder("a subquery in the FROM list needs the rows of all shards first")
    if not derived.is_local:
        for source in derived.sources:
            walk.occurrences[source].is_eligible_root = False
    if derived.is_shared:
        return set()
    scope.own |= derived.sources
    return set(derived.sources)


def _join(walk: Walk, join: Join, scope: Scope, *, is_kept: bool, is_inner: bool) -> set[int]:
    if join.full:
        walk.hinder("FULL JOIN fills both sides with NULLs")
    reason = why_not_row_wise([join.onclause])
    walk.hinder_if(reason)
    walk.is_plain = walk.is_plain and reason is None
    keeps_left, keeps_right = not join.full, not join.isouter and not join.full
    left = walk.from_element(
        join.left, scope, is_kept=is_kept and keeps_left, is_inner=is_inner and keeps_left
    )
    right = walk.from_element(
        join.right, scope, is_kept=is_kept and keeps_right, is_inner=is_inner and keeps_right
    )
    for source in (right if join.isouter else set()) | (left | right if join.full else set()):
        walk.occurrences[source].is_filled = True
    if is_inner and keeps_right:
        scope.conjuncts.append(join.onclause)
        return left | right
    walk.look_into(join.onclause, scope)
    if join.isouter and not join.full:
        if right and not left:
            walk.hinder("an outer join keeps rows that are on every shard")
        walk.restrict([join.onclause], scope, right)
        scope.outer_joins.append(OuterJoin(join.onclause, frozenset(left), frozenset(right)))
    elif not join.full:
        walk.restrict([join.onclause], scope, left | right)
    return left | right


def _table(
    walk: Walk, table: Table, element: FromClause, scope: Scope, *, is_kept: bool
) -> set[int]:
    walk.seen[table] += 1
    distribution = walk.distribution(table)
    if isinstance(distribution, Sharded):
        index = walk.occurrence(table, element, distribution, is_eligible_root=is_kept)
        scope.names[element] = index
        scope.own.add(index)
        return {index}
    scope.names[element] = None
    if isinstance(distribution, Reference):
        walk.references += 1
    else:
        walk.globals += 1
    return set()
