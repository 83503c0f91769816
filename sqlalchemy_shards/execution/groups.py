"""Groups of several shards made one: the partial results of their aggregates are put together.

Decided by the PostgreSQL types of the columns, as the order is (`sorting`): a type has its place
here only where Python's equality and arithmetic are PostgreSQL's. A group is one entry of a
dictionary, and the row that its first shard gave until another shard has it, too.
"""

from __future__ import annotations

import operator
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from psycopg.errors import NumericValueOutOfRange

from sqlalchemy_shards.plan import Aggregate, GroupKey

from .sorting import (
    EXACTLY_ORDERED,
    INTEGERS,
    NUMERIC,
    TEXTS,
    TIMESTAMPTZ,
    NotMergeable,
    moment,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeAlias

    Row: TypeAlias = "tuple[Any, ...]"
    Together: TypeAlias = "Callable[[Any, Any], Any]"

BIGINT: Final = 20
BIGINT_MAX: Final = 2**63 - 1
BOOLEAN: Final = 16
BYTEA: Final = 17

OID: Final = 26

DIGITS_MAX: Final = 150_000
"""A numeric has at most 131,072 digits before its point and 16,383 behind it."""


def check_columns(columns: Sequence[GroupKey | Aggregate], type_oids: Sequence[int]) -> None:
    """Tell whether columns of these types can be compared and put together.

    An oid cannot: it may be that of a table or type, which has another one on each server.

    :raises NotMergeable: one cannot.
    """
    for column, type_oid in zip(columns, type_oids, strict=True):
        if isinstance(column, Aggregate):
            _together(column, type_oid)
        else:
            _check_key(column, type_oid)


def put_together(
    functions: Sequence[Aggregate], rows: Iterable[Row], type_oids: Sequence[int]
) -> Row:
    """One row of aggregates from one of each shard.

    :raises NotMergeable: the types do not allow it.
    """
    (row,) = grouped(functions, [rows], type_oids)
    return row


def grouped(
    columns: Sequence[GroupKey | Aggregate],
    rows: Sequence[Iterable[Row]],
    type_oids: Sequence[int],
) -> list[Row]:
    """The groups of all shards, each once, in the order in which they are first met.

    :param columns: what each column of the rows is.
    :raises NotMergeable: the types do not allow it.
    """
    check_columns(columns, type_oids)
    steps = [
        (index, _together(column, type_oids[index]))
        for index, column in enumerate(columns)
        if isinstance(column, Aggregate)
    ]
    sums = [
        index
        for index, column in enumerate(columns)
        if column is Aggregate.SUM and type_oids[index] in INTEGERS
    ]
    key_of = _key_reader(columns, type_oids)
    groups: dict[Any, Any] = {}
    for row in chain.from_iterable(rows):
        key = key_of(row)
        known = groups.get(key)
        if known is None:
            groups[key] = row
            continue
        if type(known) is not list:
            known = groups[key] = list(known)
        for index, together in steps:
            value = row[index]
            if value is not None:
                before = known[index]
                known[index] = value if before is None else together(before, value)
    return [_finished(row, sums) if type(row) is list else row for row in groups.values()]


def _finished(row: list[Any], sums: Sequence[int]) -> Row:
    for index in sums:
        total = row[index]
        if total is not None and not -BIGINT_MAX - 1 <= total <= BIGINT_MAX:
            raise NumericValueOutOfRange("bigint out of range")
    return tuple(row)


def _key_reader(
    columns: Sequence[GroupKey | Aggregate], type_oids: Sequence[int]
) -> Callable[[Row], Any]:
    """A function from a row to what is equal for rows of one group, and hashed."""
    keys = [index for index, column in enumerate(columns) if isinstance(column, GroupKey)]
    if not keys:
        return lambda _: None
    plain: Callable[[Row], Any] = itemgetter(*keys)
    if all(type_oids[index] != TIMESTAMPTZ for index in keys):
        return plain
    moments = [type_oids[index] == TIMESTAMPTZ for index in keys]

    def key_of(row: Row) -> Any:
        return tuple(
            moment(row[index]) if is_moment and row[index] is not None else row[index]
            for index, is_moment in zip(keys, moments, strict=True)
        )

    return key_of


def _check_key(key: GroupKey, type_oid: int) -> None:
    if type_oid in EXACTLY_ORDERED and type_oid != OID:
        return
    if type_oid in (TIMESTAMPTZ, BYTEA) or key.is_enum:
        return
    if type_oid in TEXTS and key.is_exact_text:
        return
    raise NotMergeable(
        f"groups of the PostgreSQL type {type_name(type_oid)} over several shards are known to "
        "PostgreSQL alone",
        "give the shard key so that one shard answers, or group in the application",
    )


def _together(function: Aggregate, type_oid: int) -> Together:
    """What makes one of two partial results, neither of which is NULL."""
    found: Together | None = None
    if function is Aggregate.ANY_VALUE:
        found = _first
    elif function in (Aggregate.COUNT, Aggregate.SUM) and type_oid in INTEGERS:
        found = operator.add
    elif function is Aggregate.SUM and type_oid == NUMERIC:
        found = _exact_sum()
    elif function in _OF_BITS and type_oid in INTEGERS:
        found = _OF_BITS[function]
    elif function in _OF_BOOLEANS and type_oid == BOOLEAN:
        found = _OF_BOOLEANS[function]
    elif function in _EXTREMES and type_oid in EXACTLY_ORDERED and type_oid != OID:
        found = _EXTREMES[function]
    elif function in _EXTREMES and type_oid == TIMESTAMPTZ:
        found = _MOMENTS[function]
    if found is None:
        raise NotMergeable(
            f"{function.value}() of the PostgreSQL type {type_name(type_oid)} over several shards "
            "is not supported yet",
            "give the shard key so that one shard answers, or aggregate in the application",
        )
    return found


def _exact_sum() -> Together:
    """The sum of two numbers with all their digits, as many behind the point as either has."""
    add = Context(prec=DIGITS_MAX, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[]).add

    def together(one: Any, other: Any) -> Decimal:
        if type(one) is not Decimal or type(other) is not Decimal:
            raise NotMergeable(
                "the shards' connections give numbers in another form than Decimal",
                "leave the driver's own loader of numeric in place",
            )
        return add(one, other)

    return together


def _first(one: Any, other: Any) -> Any:
    return one


def _earlier(one: Any, other: Any) -> Any:
    return other if moment(other) < moment(one) else one


def _later(one: Any, other: Any) -> Any:
    return other if moment(other) > moment(one) else one


_OF_BITS: Final[dict[Aggregate, Together]] = {
    Aggregate.BIT_AND: operator.and_,
    Aggregate.BIT_OR: operator.or_,
    Aggregate.BIT_XOR: operator.xor,
}
_OF_BOOLEANS: Final[dict[Aggregate, Together]] = {
    Aggregate.BOOL_AND: operator.and_,
    Aggregate.EVERY: operator.and_,
    Aggregate.BOOL_OR: operator.or_,
}
_EXTREMES: Final[dict[Aggregate, Together]] = {Aggregate.MIN: min, Aggregate.MAX: max}
_MOMENTS: Final[dict[Aggregate, Together]] = {Aggregate.MIN: _earlier, Aggregate.MAX: _later}
