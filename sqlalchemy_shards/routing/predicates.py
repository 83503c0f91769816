"""SQL expressions -> conditions on shard keys, and equalities between them.

Only what is certain is understood: equality and IN between a plain key column and a parameter of
the same type family, AND, OR. Everything else becomes `ANYWHERE`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    Grouping,
)

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.key_types import key_type_of

from .conditions import ANYWHERE, KeyCondition, Parameter, PartEquals, PartIn, all_of, any_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.engine import Dialect

    from sqlalchemy_shards.models.key_types import KeyFamily

    from .scopes import Occurrence, Place, Scope


class Reading(NamedTuple):
    """What it takes to understand an expression of one scope."""

    scope: Scope
    occurrences: list[Occurrence]
    bind_names: Mapping[Any, str]
    dialect: Dialect

    def place(self, expression: Any) -> Place | None:
        """The place of a plain column."""
        return self.scope.resolve(expression, self.occurrences)

    def parameter(self, expression: Any, family: KeyFamily) -> Parameter | None:
        """The parameter that an expression is, if its type compares as ``family`` does."""
        if not isinstance(expression, BindParameter):
            return None
        name = self.bind_names.get(expression)
        key_type = key_type_of(expression.type, self.dialect)
        if name is None or key_type is None or key_type.family is not family:
            return None
        return Parameter(name, key_type)


def conjuncts(expression: Any) -> Iterator[Any]:
    """The expressions that an expression joins by AND."""
    while isinstance(expression, Grouping):
        expression = expression.element
    if isinstance(expression, BooleanClauseList) and expression.operator is operators.and_:
        for clause in expression.clauses:
            yield from conjuncts(clause)
    elif expression is not None:
        yield expression


def condition_on(source: int, expression: Any, reading: Reading) -> KeyCondition:
    """What an expression, being true, says about the shard key of a source's row."""
    if isinstance(expression, Grouping):
        return condition_on(source, expression.element, reading)
    if isinstance(expression, BooleanClauseList):
        parts = [condition_on(source, clause, reading) for clause in expression.clauses]
        if expression.operator is operators.and_:
            return all_of(parts)
        return any_of(parts) if expression.operator is operators.or_ else ANYWHERE
    if isinstance(expression, BinaryExpression):
        return _comparison(source, expression, reading)
    return ANYWHERE


def _comparison(source: int, binary: BinaryExpression[Any], reading: Reading) -> KeyCondition:
    if binary.operator is operators.eq:
        sides: list[tuple[Any, Any]] = [(binary.left, binary.right), (binary.right, binary.left)]
        for column, value in sides:
            place = _part_of(source, column, reading)
            if place is None:
                continue
            part, family = place
            parameter = reading.parameter(value, family)
            if parameter is not None and not _compat.is_expanding(value):
                return PartEquals(part, parameter)
    elif binary.operator is operators.in_op:
        place = _part_of(source, binary.left, reading)
        if place is not None:
            part, family = place
            value = binary.right
            while isinstance(value, Grouping):
                value = value.element
            parameter = reading.parameter(value, family)
            if parameter is not None and _compat.is_expanding(value):
                return PartIn(part, parameter)
    return ANYWHERE


def _part_of(source: int, column: Any, reading: Reading) -> tuple[int, KeyFamily] | None:
    place = reading.place(column)
    if place is None or place.source != source or place.part is None or not place.is_direct:
        return None
    return place.part, reading.occurrences[source].families[place.part]


class KeyEquality(NamedTuple):
    """Two columns that are the same part of the same keyspace's key, and are equal."""

    left: Place
    right: Place
    part: int


def key_equalities(expression: Any, reading: Reading) -> Iterator[KeyEquality]:
    """Equalities between shard-key columns of two sources that an expression, being true, means."""
    for conjunct in conjuncts(expression):
        if not isinstance(conjunct, BinaryExpression) or conjunct.operator is not operators.eq:
            continue
        left, right = reading.place(conjunct.left), reading.place(conjunct.right)
        if left is None or right is None or left.source == right.source:
            continue
        one, other = reading.occurrences[left.source], reading.occurrences[right.source]
        if (
            left.part is not None
            and left.part == right.part
            and one.sharded.keyspace == other.sharded.keyspace
            and one.families == other.families
        ):
            yield KeyEquality(left, right, left.part)


def equalities_with_parameters(
    source: int, expression: Any, reading: Reading
) -> Iterator[tuple[str, Any]]:
    """(column key, bind parameter) of plain equalities of a source's own columns."""
    for conjunct in conjuncts(expression):
        if not isinstance(conjunct, BinaryExpression) or conjunct.operator is not operators.eq:
            continue
        for column, value in (
            (conjunct.left, conjunct.right),
            (conjunct.right, conjunct.left),
        ):
            place = reading.place(column)
            if (
                place is not None
                and place.source == source
                and place.is_direct
                and isinstance(value, BindParameter)
                and not _compat.is_expanding(value)
            ):
                yield place.column, value
