"""What expressions that must be true say about the rows of sources: conditions and edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.elements import Tuple

from sqlalchemy_shards.models.key_types import family_of

from .beside import lies_beside
from .conditions import ANYWHERE, Parameter
from .equalities import (
    equal_columns,
    equal_pairs,
    equal_places,
    equalities_with_parameters,
)
from .predicates import condition_on
from .reading import Reading, ungrouped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .scopes import Derived, Place, Scope
    from .walk import Walk


def restrict(walk: Walk, expressions: Sequence[Any], scope: Scope, own: Iterable[int]) -> set[int]:
    """Take note of what expressions that must be true say about the sources ``own``.

    :returns: those that they say something about, which are then not filled with NULLs.
    """
    pairs = [pair for expression in expressions for pair in equal_pairs(expression)]
    reading = Reading(scope, walk.surrounding, equal_columns(pairs, walk.dialect))
    own, restricted = set(own), set()
    for source in own:
        restrained = walk.sources[source]
        for expression in expressions:
            condition = condition_on(source, expression, reading)
            if condition is not ANYWHERE:
                restrained.conditions.append(condition)
                restricted.add(source)
        _find_primary_key(walk, source, expressions, reading)
    equal: dict[tuple[int, int], set[tuple[str, str]]] = {}
    for left, right in equal_places(reading):
        for one, other in ((left, right), (right, left)):
            if other.is_direct and other.source in own and not one.is_alternative:
                _note_equal(equal, one, other)
    _lay_beside(walk, equal)
    # What is compared with anything, and is so, is not NULL.
    compared = (place for pair in pairs for each in pair for place in reading.places(each))
    return restricted | {place.source for place in compared if place.is_direct} & own


def tie_members(walk: Walk, left: Any, derived: Derived, scope: Scope) -> None:
    """Lay the rows of a subquery beside those that IN looks up in it by their whole key.

    Rows with other keys make no difference, to NOT IN neither: no key is NULL. But one that an
    outer join has filled may be, and NULL IN (...) depends on whether there is any row. Groups of
    one key each are made of rows with this key alone.
    """
    columns = tuple(left.clauses) if isinstance(left, Tuple) else (left,)
    if not derived.is_local or len(columns) != len(derived.places):
        return
    equal: dict[tuple[int, int], set[tuple[str, str]]] = {}
    for column, inside in zip(columns, derived.places, strict=True):
        for one in scope.places(ungrouped(column)):
            for other in inside:
                is_filled = any(walk.sources[each.source].is_filled for each in (one, other))
                if one.source != other.source and other.is_shown and not is_filled:
                    _note_equal(equal, one, other)
    _lay_beside(walk, equal)


def _note_equal(
    equal: dict[tuple[int, int], set[tuple[str, str]]], one: Place, other: Place
) -> None:
    equal.setdefault((one.source, other.source), set()).add((one.column, other.column))


def _lay_beside(walk: Walk, equal: Mapping[tuple[int, int], set[tuple[str, str]]]) -> None:
    """Add edges from one source to another where what is equal says so."""
    for (one, other), pairs in equal.items():
        if lies_beside(walk.sources[one], walk.sources[other], pairs):
            walk.edges.add((one, other))


def restrict_by_outer_joins(walk: Walk, scope: Scope, restricted: set[int]) -> None:
    """Take ON clauses as true where WHERE leaves no row that an outer join has filled."""
    for join in reversed(scope.outer_joins):
        if join.right & restricted:
            restricted |= restrict(walk, [join.onclause], scope, join.left | join.right)


def _find_primary_key(
    walk: Walk, source: int, expressions: Sequence[Any], reading: Reading
) -> None:
    table = walk.sources[source].table
    wanted = [column.key for column in table.primary_key.columns]
    found: dict[str, Parameter] = {}
    for expression in expressions:
        for column, bind in equalities_with_parameters(source, expression, reading):
            family = family_of(table.c[column].type, walk.dialect)
            if family is not None and column in wanted:
                parameter = reading.parameter(bind, family)
                if isinstance(parameter, Parameter) and parameter.compared_as is None:
                    found[column] = parameter
    if wanted and all(column in found for column in wanted):
        walk.primary_keys[source] = tuple(found[column] for column in wanted)
