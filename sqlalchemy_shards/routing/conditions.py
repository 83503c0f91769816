"""What a WHERE clause says about the shard key of one table: a small algebra, and its evaluation.

A condition holds parameter names, never values. Evaluating it with the values of one execution
gives the *bindings* that matching rows can have: a set of tuples, one item per part of the key,
`UNBOUND` where a part may have any value; or None, which means: any row may match.

Invariant: a row whose key is in none of the bindings does not match. The set may be too large,
never too small, so every operation here may drop a condition of an AND and none of an OR.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from sqlalchemy_shards.models.key_types import KeyType

BINDINGS_MAX: Final = 10_000
"""More combinations than these are not built for a composite key: one side is dropped."""


class _Unbound(enum.Enum):
    UNBOUND = "unbound"

    def __repr__(self) -> str:
        return "UNBOUND"


UNBOUND: Final = _Unbound.UNBOUND

Bindings: TypeAlias = "set[tuple[Any, ...]] | None"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A bind parameter that a key column is compared with, or set to."""

    name: str
    key_type: KeyType


@dataclass(frozen=True, slots=True)
class Anywhere:
    """Nothing is known: rows with any key may match."""


@dataclass(frozen=True, slots=True)
class PartEquals:
    """The key's part number ``part`` equals the parameter."""

    part: int
    parameter: Parameter


@dataclass(frozen=True, slots=True)
class PartIn:
    """The key's part number ``part`` is one of the parameter's values."""

    part: int
    parameter: Parameter


@dataclass(frozen=True, slots=True)
class AllOf:
    """All conditions hold."""

    conditions: tuple[KeyCondition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one condition holds."""

    conditions: tuple[KeyCondition, ...]


KeyCondition: TypeAlias = "Anywhere | PartEquals | PartIn | AllOf | AnyOf"

ANYWHERE: Final = Anywhere()


class UnusableValue(Exception):
    """A value is not of the key column's type: nothing can be told from it.

    Its arguments are the name of the value's type and, where there is one, the reason.
    """


class UnknownValue(UnusableValue):
    """A parameter has no value that routing could read."""


class ValueReader(Protocol):
    """Gives the values of one execution, as the column's type binds them."""

    def one(self, parameter: Parameter) -> Any:
        """The value, None for NULL. Raises `UnusableValue`, `UnknownValue` where there is none."""

    def many(self, parameter: Parameter) -> Sequence[Any]:
        """The values of an expanding parameter, without NULLs. Raises `UnusableValue`."""


def all_of(conditions: Sequence[KeyCondition]) -> KeyCondition:
    """AND, with what says nothing left out."""
    flat: list[KeyCondition] = []
    for condition in conditions:
        flat.extend(condition.conditions if isinstance(condition, AllOf) else (condition,))
    known = tuple(dict.fromkeys(c for c in flat if not isinstance(c, Anywhere)))
    if not known:
        return ANYWHERE
    return known[0] if len(known) == 1 else AllOf(known)


def any_of(conditions: Sequence[KeyCondition]) -> KeyCondition:
    """OR, which says nothing as soon as one of its conditions says nothing."""
    if not conditions or any(isinstance(condition, Anywhere) for condition in conditions):
        return ANYWHERE
    return conditions[0] if len(conditions) == 1 else AnyOf(tuple(conditions))


def bindings(condition: KeyCondition, width: int, values: ValueReader) -> Bindings:
    """The keys that matching rows can have.

    :param width: how many parts the key has.
    """
    match condition:
        case PartEquals(part, parameter):
            try:
                value = values.one(parameter)
            except UnusableValue:
                return None
            return set() if value is None else {_binding(part, value, width)}
        case PartIn(part, parameter):
            try:
                return {_binding(part, value, width) for value in values.many(parameter)}
            except UnusableValue:
                return None
        case AllOf(conditions):
            found: Bindings = None
            for each in conditions:
                found = _both(found, bindings(each, width, values))
            return found
        case AnyOf(conditions):
            union: set[tuple[Any, ...]] = set()
            for each in conditions:
                if (part_of_union := bindings(each, width, values)) is None:
                    return None
                union |= part_of_union
            return union
        case _:
            return None


def _binding(part: int, value: object, width: int) -> tuple[Any, ...]:
    if width == 1:
        return (value,)
    return tuple(value if i == part else UNBOUND for i in range(width))


def _both(left: Bindings, right: Bindings) -> Bindings:
    if left is None:
        return right
    if right is None:
        return left
    if not left or not right:
        return set()
    if len(next(iter(left))) == 1:
        return left & right
    if len(left) * len(right) > BINDINGS_MAX:
        return min(left, right, key=len)
    return {
        merged for one in left for other in right if (merged := _merged(one, other)) is not None
    }


def _merged(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...] | None:
    parts = []
    for left, right in zip(one, other, strict=True):
        if left is UNBOUND:
            parts.append(right)
        elif right is UNBOUND or left == right:
            parts.append(left)
        else:
            return None
    return tuple(parts)
