"""The walk of FROM lists: tables, joins, aliases, subqueries and CTEs, and what names them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.sql.selectable import (
    CTE,
    Alias,
    AliasedReturnsRows,
    FromClause,
    FromGrouping,
    Join,
    Lateral,
    Subquery,
    TableClause,
    TableSample,
    TableValuedAlias,
    Values,
)

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.distribution import Reference, Sharded

from .row_wise import why_not_row_wise
from .scopes import Derived, Occurrence, OuterJoin, Scope, Standing, ungrouped_query

if TYPE_CHECKING:
    from .walk import Walk


def walk_from(walk: Walk, element: Any, scope: Scope, standing: Standing) -> set[int]:
    """Walk one FROM element; return the sources in it."""
    while isinstance(element, FromGrouping):
        element = element.element
    if isinstance(element, Join):
        return _join(walk, element, scope, standing)
    if isinstance(element, Table):
        return _table(walk, element, element, scope, standing)
    if isinstance(element, CTE):
        return _named(walk, element, walk_cte(walk, element, is_kept=standing.is_kept), scope)
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
        return _alias(walk, element, scope, standing)
    walk.unreadable = _why_unknown(element)
    scope.names[element] = None
    return set()


def _why_unknown(element: Any) -> str:
    if isinstance(element, TextClause):
        return "the FROM list holds raw SQL text"
    if isinstance(element, TableClause):
        return f"{element.name!r} in the FROM list is no Table that says how it spreads"
    return f"the FROM list holds a {type(element).__name__}"


def walk_cte(walk: Walk, cte: CTE, *, is_kept: bool) -> Derived:
    """Walk a CTE where it is first named; named again, it shows no places."""
    name = id(cte.element)
    if name in walk.ctes:
        walk.names_cte_again = walk.names_cte_again or name not in walk.open_ctes
        return Derived(selects=walk.ctes[name])
    # Put down before the walk: a recursive CTE names itself. What is named there looks like its
    # first SELECT, but also shows the rows of every step.
    names = {name} | (_members(cte) if cte.recursive else set())
    walk.ctes.update(dict.fromkeys(names, ()))
    walk.open_ctes |= names
    if cte.recursive:
        walk.hinder("each step of a recursive CTE looks for rows on all shards")
    depth = 0 if is_kept and not walk.shares_ctes and not cte.recursive else 1
    derived = walk.query(cte.element, None, is_from=True, depth=depth)
    walk.open_ctes -= names
    if cte.recursive:
        return Derived(sources=derived.sources, is_shared=True)
    walk.ctes[name] = derived.selects
    if walk.shares_ctes:
        return replace(derived, is_simple=False, is_local=False, is_shared=True)
    return derived


def _members(cte: CTE) -> set[int]:
    """The ids of the SELECTs that the steps of a recursive CTE may take for all of it."""
    return {id(ungrouped_query(each)) for each in getattr(cte.element, "selects", ())}


def _alias(walk: Walk, element: AliasedReturnsRows, scope: Scope, standing: Standing) -> set[int]:
    inner: Any = element.element
    while isinstance(inner, (Alias, Subquery)):
        inner = inner.element  # an alias of an alias or subquery
    if isinstance(inner, Table):
        return _table(walk, inner, element, scope, standing)
    is_from = not isinstance(element, Lateral)
    # A subquery is as good as its table where it only filters and projects.
    depth = 0 if standing.is_kept and is_from else 1
    return _named(walk, element, walk.query(inner, scope, is_from=is_from, depth=depth), scope)


def _named(walk: Walk, element: FromClause, derived: Derived, scope: Scope) -> set[int]:
    scope.names[element] = derived.named(element)
    is_beside = isinstance(element, Lateral)  # it is beside its row, if anything is
    if derived.sources and not derived.is_local and not is_beside:
        walk.hinder("a subquery in the FROM list needs the rows of all shards first")
    if not derived.is_local:
        for source in derived.sources:
            walk.sources[source].is_eligible_root = False
    if derived.is_shared:
        return set()
    scope.own |= derived.sources
    return set(derived.sources)


def _join(walk: Walk, join: Join, scope: Scope, standing: Standing) -> set[int]:
    if join.full:
        walk.hinder("FULL JOIN fills both sides with NULLs")
    reason = why_not_row_wise([join.onclause])
    walk.hinder_if(reason)
    walk.is_plain = walk.is_plain and reason is None
    on_left, on_right = _standing_of_sides(join, standing)
    left = walk.from_element(join.left, scope, on_left)
    right = walk.from_element(join.right, scope, on_right)
    for source in (right if join.isouter else set()) | (left | right if join.full else set()):
        walk.sources[source].is_filled = True
    if on_right.is_inner:
        scope.certain.append(join.onclause)
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


def _standing_of_sides(join: Join, standing: Standing) -> tuple[Standing, Standing]:
    """How the sides of a join stand: a side that is filled meets ON, and one that is kept does not.

    What is certain of the rows of an outer join is not of those of the side that it fills: rows
    that do not meet it would be filled.
    """
    if join.full:
        return Standing(is_inner=False), Standing(is_inner=False)
    on = (join.onclause,)
    if join.isouter:
        return standing, Standing(is_inner=False, certain=on)
    both = standing._replace(certain=standing.certain + on)
    return both, both


def _table(
    walk: Walk, table: Table, element: FromClause, scope: Scope, standing: Standing
) -> set[int]:
    walk.seen[table] += 1
    distribution = walk.distribution(table)
    source = None
    if isinstance(distribution, Sharded):
        source = walk.source(table, element, distribution, is_eligible_root=standing.is_kept)
    occurrence = Occurrence(table, distribution, element, scope, standing.certain, source)
    walk.occurrences.append(occurrence)
    scope.names[element] = occurrence
    if source is not None:
        scope.own.add(source.index)
        return {source.index}
    if isinstance(distribution, Reference):
        walk.references += 1
    else:
        walk.globals += 1
    return set()
