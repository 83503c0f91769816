"""Parts of a shard key that a statement sets: to what, and whether that is what is there already.

Invariant: a part counts as kept only where every row that the statement can touch has, in that
part, a value of the same canonical form as the one that is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.elements import BindParameter, ClauseElement

from sqlalchemy_shards import _compat
from sqlalchemy_shards.errors import RoutingError
from sqlalchemy_shards.models.key_types import NotOfFamily
from sqlalchemy_shards.topology.canonical import identity_bytes
from sqlalchemy_shards.topology.key_regions import UNBOUND, InBucket, Interval

from .conditions import Constant, Parameter, UnusableValue, regions
from .inserts import parameter_of, parameter_of_row
from .sources import SetPart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.types import TypeEngine

    from sqlalchemy_shards.models.distribution import Sharded
    from sqlalchemy_shards.models.key_types import KeyType

    from .conditions import ValueReader
    from .sources import ShardedSource


def parts_set(
    compiled: SQLCompiler, sharded: Sharded, key_types: Sequence[KeyType]
) -> tuple[SetPart, ...]:
    """The parts of the shard key that an UPDATE sets."""
    given = _compat.dml_values(compiled) or {}
    named = {*given, *(compiled.column_keys or ())}
    return tuple(
        SetPart(key, part, parameter_of_row(given.get(key), key, key_type, compiled))
        for part, (key, key_type) in enumerate(zip(sharded.key, key_types, strict=False))
        if key in named
    )


def assigned_value(
    value: Any, key_type: KeyType, type_: TypeEngine[Any], compiled: SQLCompiler
) -> Parameter | Constant | None:
    """What ON CONFLICT sets a column to; None: only SQL knows it, or it is none of the column's.

    A value that SQLAlchemy makes no parameter of belongs to this one statement, which is not
    cached.
    """
    if isinstance(value, BindParameter):
        return parameter_of(value, compiled, key_type)
    if isinstance(value, ClauseElement) or value is None:
        return None
    processor = type_.dialect_impl(compiled.dialect).bind_processor(compiled.dialect)
    try:
        return Constant(key_type.stored_value(processor(value) if processor else value))
    except (NotOfFamily, ValueError, TypeError):
        return None


def keeps_what_where_demands(
    parts: Sequence[SetPart], source: ShardedSource, values: ValueReader
) -> bool:
    """Whether WHERE demands of each row, in each part, the value that is set."""
    found = regions(source.condition, source.width, values)
    return found is not None and all(
        is_set_to(each, region[each.part] if each.part < len(region) else UNBOUND, values)
        for each in parts
        for region in found
    )


def is_set_to(part: SetPart, there: Any, values: ValueReader) -> bool:
    """Whether a part is set to the value that is there already."""
    if part.value is None or there is UNBOUND or isinstance(there, (Interval, InBucket)):
        return False
    try:
        value = part.value.value if isinstance(part.value, Constant) else values.one(part.value)
        return identity_bytes((value,)) == identity_bytes((there,))
    except (UnusableValue, RoutingError):
        return False
