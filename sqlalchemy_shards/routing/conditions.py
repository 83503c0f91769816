"""What a WHERE clause says about the shard key of one table: a small algebra, and its evaluation.

A condition holds parameter names, never values. Evaluating it with the values of one execution
gives the *regions* in which the keys of matching rows can lie (`topology.key_regions`); or None,
which means: any row may match.

Invariant: a row whose key is in none of the regions does not match. They may hold too much, never
too little, so every operation here may drop a condition of an AND and none of an OR.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from math import ceil, floor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy_shards.models.key_types import KeyFamily
from sqlalchemy_shards.topology.generated_id import bucket_of_id
from sqlalchemy_shards.topology.key_regions import UNBOUND, InBucket, Interval, overlap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from sqlalchemy_shards.models.key_types import KeyType
    from sqlalchemy_shards.topology.key_regions import Region

REGIONS_MAX: Final = 10_000
"""More combinations than these are not built for an AND: one side is dropped."""

Regions: TypeAlias = "set[Region] | None"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A bind parameter that a key column is compared with, or set to.

    :param compared_as: the column's family, where the parameter is of another one whose values
        are exactly values of the column's, or of no row.
    :param item: which item of the parameter's rows it is, where the parameter is a list of rows.
    """

    name: str
    key_type: KeyType
    compared_as: KeyFamily | None = None
    item: int | None = None

    @property
    def slot(self) -> str:
        """The name of the bind parameter, or of the item of its rows."""
        return self.name if self.item is None else f"{self.name}.{self.item}"


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that stands in the SQL itself."""

    value: Any


class Relation(enum.Enum):
    """How a part of the key compares with a parameter."""

    BELOW = "<"
    AT_MOST = "<="
    AT_LEAST = ">="
    ABOVE = ">"


@dataclass(frozen=True, slots=True)
class Anywhere:
    """Nothing is known: rows with any key may match."""


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No row matches."""


@dataclass(frozen=True, slots=True)
class PartEquals:
    """The key's part number ``part`` equals the parameter."""

    part: int
    parameter: Parameter | Constant


@dataclass(frozen=True, slots=True)
class PartIn:
    """The key's part number ``part`` is one of the parameter's values."""

    part: int
    parameter: Parameter


@dataclass(frozen=True, slots=True)
class PartCompares:
    """The key's part number ``part`` is on one side of the parameter.

    :param is_whole: the part is a whole number.
    """

    part: int
    relation: Relation
    parameter: Parameter
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class PartsIn:
    """Several parts of the key together are one of the rows of a parameter.

    :param parameters: for each of the parts, its item of the rows.
    """

    parts: tuple[int, ...]
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class IdIn:
    """A generated id, which carries the bucket of its row's key, is (one of) the parameter's."""

    parameter: Parameter
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class AllOf:
    """All conditions hold."""

    conditions: tuple[KeyCondition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one condition holds."""

    conditions: tuple[KeyCondition, ...]


@dataclass(frozen=True, slots=True)
class Implied:
    """A condition of a subquery holds, which the SQL does not ask of the row itself."""

    condition: KeyCondition


KeyCondition: TypeAlias = (
    "Anywhere | Nowhere | PartEquals | PartIn | PartCompares | PartsIn | IdIn "
    "| AllOf | AnyOf | Implied"
)

ANYWHERE: Final = Anywhere()
NOWHERE: Final = Nowhere()


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

    def rows(self, parameters: Sequence[Parameter]) -> Sequence[tuple[Any, ...]]:
        """The items of an expanding parameter's rows, None for NULL. Raises `UnusableValue`."""


def all_of(conditions: Iterable[KeyCondition]) -> KeyCondition:
    """AND, with what says nothing left out."""
    flat: list[KeyCondition] = []
    for condition in conditions:
        flat.extend(condition.conditions if isinstance(condition, AllOf) else (condition,))
    known = tuple(dict.fromkeys(c for c in flat if not isinstance(c, Anywhere)))
    if not known:
        return ANYWHERE
    if NOWHERE in known:
        return NOWHERE
    return known[0] if len(known) == 1 else AllOf(known)


def any_of(conditions: Sequence[KeyCondition]) -> KeyCondition:
    """OR, which says nothing as soon as one of its conditions says nothing."""
    if not conditions or any(isinstance(condition, Anywhere) for condition in conditions):
        return ANYWHERE
    possible = tuple(dict.fromkeys(c for c in conditions if not isinstance(c, Nowhere)))
    if not possible:
        return NOWHERE
    return possible[0] if len(possible) == 1 else AnyOf(possible)


def implied(condition: KeyCondition) -> KeyCondition:
    """A condition that is found in a subquery."""
    return condition if isinstance(condition, (Anywhere, Nowhere)) else Implied(condition)


def parameters_of(condition: KeyCondition) -> Iterable[Parameter]:
    """Every parameter that a condition reads."""
    if isinstance(condition, (AllOf, AnyOf)):
        for each in condition.conditions:
            yield from parameters_of(each)
    elif isinstance(condition, Implied):
        yield from parameters_of(condition.condition)
    elif isinstance(condition, PartsIn):
        yield from condition.parameters
    elif isinstance(condition, (PartEquals, PartIn, PartCompares, IdIn)) and isinstance(
        condition.parameter, Parameter
    ):
        yield condition.parameter


def regions(condition: KeyCondition, width: int, values: ValueReader) -> Regions:
    """Where the keys of matching rows can lie.

    :param width: how many parts the key has.
    """
    try:
        return _REGIONS[type(condition)](condition, width, values)
    except UnusableValue:
        return None


def _of_all(condition: AllOf, width: int, values: ValueReader) -> Regions:
    found: Regions = None
    for each in condition.conditions:
        found = _both(found, regions(each, width, values))
    return found


def _of_any(condition: AnyOf, width: int, values: ValueReader) -> Regions:
    union: set[Region] = set()
    for each in condition.conditions:
        if (part_of_union := regions(each, width, values)) is None:
            return None
        union |= part_of_union
    return union


def _of_equal(condition: PartEquals, width: int, values: ValueReader) -> Regions:
    parameter = condition.parameter
    if isinstance(parameter, Constant):
        value = parameter.value
    else:
        value = _converted(parameter, values.one(parameter))
    return set() if value is None else {_region(condition.part, value, width)}


def _of_list(condition: PartIn, width: int, values: ValueReader) -> Regions:
    parameter, part = condition.parameter, condition.part
    if width == 1 and parameter.compared_as is None:
        return set(zip(values.many(parameter)))  # the regions of thousands, made at once
    listed = [_converted(parameter, value) for value in values.many(parameter)]
    return {_region(part, value, width) for value in listed if value is not None}


def _of_comparison(condition: PartCompares, width: int, values: ValueReader) -> Regions:
    value = values.one(condition.parameter)
    if value is None:
        return set()
    if condition.parameter.compared_as is KeyFamily.NUMERIC:
        value = Decimal(value)
    interval = _interval(condition.relation, value, condition.is_whole)
    return {_region(condition.part, interval, width)}


def _of_rows(condition: PartsIn, width: int, values: ValueReader) -> Regions:
    found: set[Region] = set()
    for row in values.rows(condition.parameters):
        items = [_converted(*each) for each in zip(condition.parameters, row, strict=True)]
        if None in items:
            continue
        region: Region | None = (UNBOUND,) * width
        for part, value in zip(condition.parts, items, strict=True):
            region = region and _merged(region, _region(part, value, width))
        if region is not None:
            found.add(region)
    return found


def _of_ids(condition: IdIn, width: int, values: ValueReader) -> Regions:
    if condition.is_list:
        ids = values.many(condition.parameter)
    else:
        value = values.one(condition.parameter)
        ids = [] if value is None else [value]
    buckets = {bucket_of_id(each) for each in ids}
    if None in buckets:
        return None  # it was not generated, so that its row may lie anywhere
    return {(*(UNBOUND,) * width, InBucket(bucket)) for bucket in buckets if bucket is not None}


_REGIONS: Final[Mapping[type[Any], Callable[[Any, int, ValueReader], Regions]]] = MappingProxyType(
    {
        Anywhere: lambda condition, width, values: None,
        Nowhere: lambda condition, width, values: set(),
        PartEquals: _of_equal,
        PartIn: _of_list,
        PartCompares: _of_comparison,
        PartsIn: _of_rows,
        IdIn: _of_ids,
        AllOf: _of_all,
        AnyOf: _of_any,
        Implied: lambda condition, width, values: regions(condition.condition, width, values),
    }
)


def _region(part: int, value: object, width: int) -> Region:
    if width == 1:
        return (value,)
    return tuple(value if i == part else UNBOUND for i in range(width))


def _converted(parameter: Parameter, value: Any) -> Any:
    """A value as one of the column's family; None: no row has it, or it is NULL."""
    if parameter.compared_as is None or value is None:
        return value
    if parameter.compared_as is KeyFamily.NUMERIC:
        return Decimal(value)
    whole = int(value)
    return whole if whole == value else None


def _interval(relation: Relation, value: Any, is_whole: bool) -> Interval:
    # In whole numbers "above 99" is "from 100", which may be another bucket.
    if relation is Relation.AT_LEAST:
        return Interval(low=ceil(value) if is_whole else value)
    if relation is Relation.AT_MOST:
        return Interval(high=floor(value) if is_whole else value)
    if relation is Relation.ABOVE:
        return Interval(floor(value) + 1) if is_whole else Interval(value, is_open_below=True)
    if is_whole:
        return Interval(high=ceil(value) - 1)
    return Interval(high=value, is_open_above=True)


def _both(left: Regions, right: Regions) -> Regions:
    if left is None:
        return right
    if right is None:
        return left
    if not left or not right:
        return set()
    if len(left) * len(right) > REGIONS_MAX:
        return left & right if _are_keys(left, right) else min(left, right, key=len)
    return {
        merged for one in left for other in right if (merged := _merged(one, other)) is not None
    }


def _are_keys(*sets: set[Region]) -> bool:
    """Whether there are single keys in sets of regions, and nothing else."""
    return all(
        part is not UNBOUND and not isinstance(part, (Interval, InBucket))
        for each in sets
        for region in each
        for part in region
    )


def _merged(one: Region, other: Region) -> Region | None:
    parts = []
    for left, right in zip_longest(one, other, fillvalue=UNBOUND):
        part = overlap(left, right)
        if part is None:
            return None
        parts.append(part)
    return tuple(parts)
