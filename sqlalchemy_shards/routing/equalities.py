"""Equalities that are true of every row that matters: between columns, and with parameters."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    ColumnClause,
    Tuple,
)

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.key_types import family_of

from .reading import ungrouped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import Dialect

    from .reading import Reading
    from .scopes import Place


def conjuncts(expression: Any) -> Iterator[Any]:
    """The expressions that an expression joins by AND."""
    expression = ungrouped(expression)
    if isinstance(expression, BooleanClauseList) and expression.operator is operators.and_:
        for clause in expression.clauses:
            yield from conjuncts(clause)
    elif expression is not None:
        yield expression


def equal_pairs(expression: Any) -> Iterator[tuple[Any, Any]]:
    """Both sides of the equalities that an expression, being true, means."""
    for conjunct in conjuncts(expression):
        if not isinstance(conjunct, BinaryExpression) or conjunct.operator is not operators.eq:
            continue
        left, right = ungrouped(conjunct.left), ungrouped(conjunct.right)
        if isinstance(left, Tuple) and isinstance(right, Tuple):
            if len(left.clauses) == len(right.clauses):
                yield from zip(left.clauses, right.clauses, strict=True)
        else:
            yield left, right


def equal_columns(
    pairs: Iterable[tuple[Any, Any]], dialect: Dialect
) -> Mapping[Any, Sequence[Any]]:
    """Plain column -> the columns that equal it, directly or through others.

    Only within one type family, where equality is that of the values.
    """
    classes: dict[Any, list[Any]] = {}
    for left, right in pairs:
        if not (isinstance(left, ColumnClause) and isinstance(right, ColumnClause)):
            continue
        family = family_of(left.type, dialect)
        if family is None or family_of(right.type, dialect) is not family:
            continue
        one, other = classes.get(left, [left]), classes.get(right, [right])
        if one is other:
            continue
        together = [*one, *other]
        classes.update(dict.fromkeys(together, together))
    return classes


def equal_places(reading: Reading) -> Iterator[tuple[Place, Place]]:
    """Columns of two sources that are equal in every row that matters."""
    for columns in reading.equal_classes():
        places = [place for column in columns for place in reading.places(column)]
        for left, right in combinations(places, 2):
            if left.source != right.source:
                yield left, right


def equalities_with_parameters(
    source: int, expression: Any, reading: Reading
) -> Iterator[tuple[str, Any]]:
    """(column key, bind parameter) of plain equalities of a source's own columns."""
    for left, right in equal_pairs(expression):
        for column, value in ((left, right), (right, left)):
            if not isinstance(value, BindParameter) or _compat.is_expanding(value):
                continue
            for place in reading.places(column):
                if place.source == source and place.is_direct:
                    yield place.column, value
