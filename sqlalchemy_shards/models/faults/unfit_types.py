"""Why a column type cannot be that of a shard key, and what to use instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import CHAR, Enum, Float, TypeDecorator
from sqlalchemy.dialects.postgresql import CITEXT, DOMAIN

from sqlalchemy_shards.models.key_types import EXACT_COLLATIONS

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine


def why_unfit(type_: TypeEngine[Any], dialect: Dialect) -> str:
    """The rest of the sentence "shard key ... has type ...," for a type without a key family."""
    implementation: Any = type_.dialect_impl(dialect)
    while isinstance(implementation, TypeDecorator):
        implementation = implementation.load_dialect_impl(dialect).dialect_impl(dialect)
    if getattr(implementation, "asdecimal", True) is False:
        return _FLOAT
    for kind, reason in _REASONS:
        if isinstance(implementation, kind):
            return reason
    if getattr(implementation, "collation", None) not in {None, *EXACT_COLLATIONS}:
        return _COLLATION
    return (
        "whose equality is not that of its bytes or is unknown; use an integer, text, uuid, bytea, "
        "date, timestamp, numeric or boolean"
    )


_FLOAT: Final = "which is rounded, and has two zeros that are equal; use Numeric or an integer"

_COLLATION: Final = (
    "with a collation of its own, which may call different texts equal; leave the collation out or "
    'use "C"'
)

_REASONS: Final = (
    (
        CITEXT,
        "which calls texts equal that differ in case, and they have different hashes; use text, "
        "and let the client lower its values, in a TypeDecorator",
    ),
    (CHAR, "which ignores trailing blanks; use String or Text"),
    (
        Enum,
        "whose labels can be renamed under the rows; use Enum(..., native_enum=False), which is "
        "text",
    ),
    (
        DOMAIN,
        "a domain, whose equality is that of a type which the model does not see for certain; "
        "give the column that type, and a CheckConstraint",
    ),
    (Float, _FLOAT),
)
