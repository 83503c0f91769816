"""Aggregates in two steps: what each shard computes, and what makes one value of it.

SQL before:  avg(price)
per shard:   sum(price) AS sum_0, count(price) AS count_1
together:    sum(sum_0) / nullif(sum(count_1), 0)

Only where PostgreSQL comes to the same value, digit by digit, whichever rows lie on which shard. So
sums of floating-point numbers are not split, as they depend on the order of the rows.

- `sum` of integers and numerics is exact. Its type is that of the sum: of integer bigint, of bigint
  numeric; a sum of bigints is numeric, and is made bigint again.
- `avg` is what PostgreSQL itself does at its end: the sum as numeric, divided by the count. The
  scale of a quotient follows from the digits of both, which are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Float, Numeric, cast, func, literal_column
from sqlalchemy.sql.elements import FunctionFilter, Grouping

from sqlalchemy_shards.routing.calls import function_of, is_distinct, name_of

from .refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy_shards.catalog.columns import ColumnType


class NotSplittable(Refusal):
    """The reason why a statement is not answered from parts of its groups, but from rows.

    The application is never told.
    """


SAME_AGAIN: Final = frozenset("bit_and bit_or bool_and bool_or every max min".split())
"""Aggregates that are put together by themselves, and do not care how often a value comes."""

SPLIT: Final = SAME_AGAIN | {"avg", "bit_xor", "count", "sum"}
"""Aggregates that are computed in two steps."""


def is_split(call: Any) -> bool:
    """Whether an aggregate is computed in two steps."""
    function = function_of(call)
    name = name_of(function)
    return name in SAME_AGAIN or (name in SPLIT and not is_distinct(function))


def pieces(call: Any) -> Sequence[tuple[str, Any]]:
    """What each shard computes of an aggregate: names and expressions."""
    function = function_of(call)
    name = name_of(function)
    if name != "avg":
        return ((name, call),)
    found: list[tuple[str, Any]] = []
    for part in (func.sum(*function.clauses), func.count(*function.clauses)):
        has_filter = isinstance(call, FunctionFilter) and call.criterion is not None
        found.append((part.name, part.filter(call.criterion) if has_filter else part))
    return found


def together(call: Any, columns: Sequence[Any], types: Sequence[ColumnType] | None) -> Any:
    """The aggregate's value, from columns that hold its `pieces`.

    :param types: those of the columns; None: they are not known yet.
    :raises NotSplittable: its type does not allow it.
    """
    function = function_of(call)
    name = name_of(function)
    type_ = function.type
    first = columns[0]
    if name == "count":
        return cast(func.coalesce(func.sum(first), _ZERO), BigInteger)
    if name not in ("avg", "sum"):
        return getattr(func, name)(first, type_=type_)
    base = "numeric" if types is None else types[0].base
    if base not in ("bigint", "interval", "numeric"):
        raise NotSplittable(f"{name}() of floating-point numbers depends on the order of the rows")
    total = func.sum(first, type_=type_)
    if name == "sum":
        return cast(total, BigInteger) if base == "bigint" else total
    count = func.nullif(func.sum(columns[1]), _ZERO, type_=Numeric())
    divisor: Any = cast(count, Float(53)) if base == "interval" else count
    return Grouping(total.op("/", return_type=type_)(divisor))


_ZERO: Final[Any] = literal_column("0")
