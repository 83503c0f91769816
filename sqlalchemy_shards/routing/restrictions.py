"""What expressions that must be true say about the rows of sources: conditions and edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.models.key_types import family_of

from .predicates import Reading, condition_on, equalities_with_parameters, key_equalities

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .conditions import Parameter
    from .scopes import Scope
    from .walk import Walk


def restrict(walk: Walk, expressions: Sequence[Any], scope: Scope, own: Iterable[int]) -> None:
    """Take note of what expressions that must be true say about the sources ``own``."""
    reading = Reading(scope, walk.occurrences, walk.bind_names, walk.dialect)
    own = set(own)
    for source in own:
        occurrence = walk.occurrences[source]
        for expression in expressions:
            occurrence.conditions.append(condition_on(source, expression, reading))
        _find_primary_key(walk, source, expressions, reading)
    parts: dict[tuple[int, int], set[int]] = {}
    for expression in expressions:
        for left, right, part in key_equalities(expression, reading):
            for one, other in ((left, right), (right, left)):
                if other.is_direct and other.source in own:
                    parts.setdefault((one.source, other.source), set()).add(part)
    for (one_source, other_source), equal in parts.items():
        if len(equal) == len(walk.occurrences[other_source].families):
            walk.edges.add((one_source, other_source))


def _find_primary_key(
    walk: Walk, source: int, expressions: Sequence[Any], reading: Reading
) -> None:
    table = walk.occurrences[source].table
    wanted = [column.key for column in table.primary_key.columns]
    found: dict[str, Parameter] = {}
    for expression in expressions:
        for column, bind in equalities_with_parameters(source, expression, reading):
            family = family_of(table.c[column].type, walk.dialect)
            if family is not None and column in wanted:
                parameter = reading.parameter(bind, family)
                if parameter is not None:
                    found[column] = parameter
    if wanted and all(column in found for column in wanted):
        walk.primary_keys[source] = tuple(found[column] for column in wanted)
