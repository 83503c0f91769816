"""Comparisons of key columns with values -> conditions on the shard key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ARRAY
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BindParameter, ClauseList, Tuple

from sqlalchemy_shards import _compat
from sqlalchemy_shards.models.key_types import KeyFamily

from .conditions import (
    ANYWHERE,
    Constant,
    IdIn,
    KeyCondition,
    PartCompares,
    PartEquals,
    PartIn,
    PartsIn,
    Relation,
    all_of,
    any_of,
)
from .reading import ungrouped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.sql.elements import BinaryExpression

    from .reading import KeyPart, Reading

_NEGATED: Final[Mapping[Any, Any]] = {
    operators.ne: operators.eq,
    operators.lt: operators.ge,
    operators.le: operators.gt,
    operators.gt: operators.le,
    operators.ge: operators.lt,
    operators.not_in_op: operators.in_op,
    operators.between_op: operators.not_between_op,
    operators.not_between_op: operators.between_op,
    operators.is_distinct_from: operators.is_not_distinct_from,
}
"""Operator -> the one that is TRUE exactly where it is FALSE."""

_RELATIONS: Final[Mapping[Any, Relation]] = {
    operators.lt: Relation.BELOW,
    operators.le: Relation.AT_MOST,
    operators.ge: Relation.AT_LEAST,
    operators.gt: Relation.ABOVE,
}
_SWAPPED: Final[Mapping[Relation, Relation]] = {
    Relation.BELOW: Relation.ABOVE,
    Relation.AT_MOST: Relation.AT_LEAST,
    Relation.AT_LEAST: Relation.AT_MOST,
    Relation.ABOVE: Relation.BELOW,
}
_BYTE_ORDER: Final = frozenset({"C", "POSIX", "ucs_basic"})
_OR_EQUAL: Final[Mapping[Relation, Relation]] = {
    Relation.BELOW: Relation.AT_MOST,
    Relation.AT_MOST: Relation.AT_MOST,
    Relation.AT_LEAST: Relation.AT_LEAST,
    Relation.ABOVE: Relation.AT_LEAST,
}


def comparison_on(
    source: int, binary: BinaryExpression[Any], reading: Reading, *, is_true: bool
) -> KeyCondition | None:
    """What a comparison with values says of a source's key; None: it compares with no value.

    :param is_true: it is TRUE, else FALSE.
    """
    operator = binary.operator if is_true else _NEGATED.get(binary.operator)
    left, right = ungrouped(binary.left), ungrouped(binary.right)
    if operator is operators.eq:
        return _equal(source, left, right, reading)
    if operator is operators.in_op:
        return _in(source, left, right, reading)
    if operator in _RELATIONS:
        return _relation(source, (left, right), _RELATIONS[operator], reading)
    if operator in (operators.between_op, operators.not_between_op):
        is_symmetric = bool(binary.modifiers.get("symmetric"))
        is_between = operator is operators.between_op
        bounds = tuple(getattr(right, "clauses", ()))
        if len(bounds) == 2:
            ways = [bounds, bounds[::-1]] if is_symmetric else [bounds]
            found = [_between(source, left, way, reading, is_in=is_between) for way in ways]
            return any_of(found) if is_between else all_of(found)
    if operator is operators.is_not_distinct_from and not reading.sources[source].is_filled:
        return _equal(source, left, right, reading)
    return None


def _equal(source: int, left: Any, right: Any, reading: Reading) -> KeyCondition | None:
    if isinstance(left, Tuple) and isinstance(right, Tuple):
        pairs = zip(left.clauses, right.clauses, strict=False)
        return all_of(_equal(source, *pair, reading) or ANYWHERE for pair in pairs)
    if getattr(right, "operator", None) is operators.any_op:
        return _any_of_array(source, left, ungrouped(right.element), reading)
    for column, value in ((left, right), (right, left)):
        found = _equal_to_value(source, column, value, reading)
        if found is not None:
            return found
    return None


def _equal_to_value(source: int, column: Any, value: Any, reading: Reading) -> KeyCondition | None:
    part = reading.part_of(source, column)
    if part is not None:
        parameter = reading.parameter(value, part.family)
        return None if parameter is None else PartEquals(part.part, parameter)
    if reading.is_generated_id_of(source, column):
        parameter = reading.parameter(value, KeyFamily.INTEGER)
        if parameter is not None and not isinstance(parameter, Constant):
            return None if parameter.compared_as else IdIn(parameter)
    return None


def _any_of_array(source: int, column: Any, array: Any, reading: Reading) -> KeyCondition | None:
    if isinstance(array, BindParameter) and isinstance(array.type, ARRAY):
        return _in_list(source, column, array, array.type.item_type, reading)
    if array.__visit_name__ == "array":
        return any_of(
            [_equal(source, column, ungrouped(each), reading) or ANYWHERE for each in array.clauses]
        )
    return None


def _in(source: int, left: Any, right: Any, reading: Reading) -> KeyCondition | None:
    if isinstance(right, BindParameter) and _compat.is_expanding(right):
        if isinstance(left, Tuple):
            return _rows(source, tuple(left.clauses), right, reading)
        return _in_list(source, left, right, right.type, reading)
    if isinstance(right, ClauseList):
        return any_of(
            [_equal(source, left, ungrouped(each), reading) or ANYWHERE for each in right.clauses]
        )
    return None


def _in_list(
    source: int, column: Any, bind: BindParameter[Any], type_: Any, reading: Reading
) -> KeyCondition | None:
    part = reading.part_of(source, column)
    if part is not None:
        parameter = reading.items_parameter(bind, type_, part.family)
        return None if parameter is None else PartIn(part.part, parameter)
    if reading.is_generated_id_of(source, column):
        parameter = reading.items_parameter(bind, type_, KeyFamily.INTEGER)
        if parameter is not None and parameter.compared_as is None:
            return IdIn(parameter, is_list=True)
    return None


def _rows(
    source: int, columns: Sequence[Any], bind: BindParameter[Any], reading: Reading
) -> KeyCondition | None:
    types = getattr(bind.type, "types", ())
    if len(types) != len(columns):
        return None
    parts, parameters = [], []
    for item, (column, type_) in enumerate(zip(columns, types, strict=True)):
        part = reading.part_of(source, column)
        if part is None:
            continue
        parameter = reading.items_parameter(bind, type_, part.family, item)
        if parameter is not None:
            parts.append(part.part)
            parameters.append(parameter)
    return PartsIn(tuple(parts), tuple(parameters)) if parts else None


def _relation(
    source: int, sides: tuple[Any, Any], relation: Relation, reading: Reading
) -> KeyCondition | None:
    left, right = sides
    if isinstance(left, Tuple) and isinstance(right, Tuple):
        # Rows compare by their first items, and only where these are equal by the next.
        first = (ungrouped(left.clauses[0]), ungrouped(right.clauses[0]))
        return _relation(source, first, _OR_EQUAL[relation], reading)
    part = reading.part_of(source, left)
    if part is not None:
        return _on_one_side(part, left, relation, right, reading)
    part = reading.part_of(source, right)
    if part is not None:
        return _on_one_side(part, right, _SWAPPED[relation], left, reading)
    return None


def _between(
    source: int, column: Any, bounds: Sequence[Any], reading: Reading, *, is_in: bool
) -> KeyCondition:
    low, high = (ungrouped(bound) for bound in bounds)
    relations = (Relation.AT_LEAST, Relation.AT_MOST) if is_in else (Relation.BELOW, Relation.ABOVE)
    found = [
        _relation(source, (column, bound), relation, reading) or ANYWHERE
        for bound, relation in zip((low, high), relations, strict=True)
    ]
    return all_of(found) if is_in else any_of(found)


def _on_one_side(
    part: KeyPart, column: Any, relation: Relation, value: Any, reading: Reading
) -> KeyCondition | None:
    parameter = reading.parameter(value, part.family)
    if parameter is None or isinstance(parameter, Constant):
        return None
    if part.family is KeyFamily.TEXT and not _is_by_code_point(column, value, reading):
        return None
    is_whole = part.family is KeyFamily.INTEGER
    return PartCompares(part.part, relation, parameter, is_whole)


def _is_by_code_point(column: Any, value: Any, reading: Reading) -> bool:
    """Whether texts compare as Python strings do: a collation of the value is the stronger one."""
    collation = getattr(ungrouped(value).type, "collation", None)
    is_plain = collation is None or collation in _BYTE_ORDER
    return is_plain and reading.around.orders_by_code_point(column)
