"""Why a column type cannot be that of a shard key, and what to use instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Enum, TypeDecorator
from sqlalchemy.dialects.postgresql import DOMAIN
from sqlalchemy.exc import CompileError

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine


def why_unfit(type_: TypeEngine[Any], dialect: Dialect) -> str:
    """The rest of the sentence "shard key ... has type ...," for a type without a key family."""
    implementation: Any = type_.dialect_impl(dialect)
    while isinstance(implementation, TypeDecorator):
        implementation = implementation.load_dialect_impl(dialect).dialect_impl(dialect)
    if isinstance(implementation, Enum):
        return _ENUM
    if isinstance(implementation, DOMAIN):
        return _DOMAIN
    if getattr(implementation, "asdecimal", True) is False:
        return _FLOAT
    rendered = _rendered(type_, dialect)
    for name, reason in _BY_NAME:
        if rendered.startswith(name):
            return reason
    if " COLLATE " in rendered:
        return _COLLATION
    return (
        "whose equality is not that of its bytes or is unknown; use an integer, text, uuid, bytea, "
        "date, timestamp, numeric or boolean"
    )


def _rendered(type_: TypeEngine[Any], dialect: Dialect) -> str:
    try:
        return type_.compile(dialect=dialect).upper()
    except CompileError:
        return ""


_FLOAT: Final = "which is rounded, and has two zeros that are equal; use Numeric or an integer"

_COLLATION: Final = (
    "with a collation of its own, which may call different texts equal; leave the collation out or "
    'use "C"'
)

_ENUM: Final = (
    "whose labels can be renamed under the rows; use Enum(..., native_enum=False), which is text"
)

_DOMAIN: Final = (
    "a domain, whose equality is that of a type which the model does not see for certain; "
    "give the column that type, and a CheckConstraint"
)

_BY_NAME: Final = (
    (
        "CITEXT",
        "which calls texts equal that differ in case, and they have different hashes; use text, "
        "and let the client lower its values, in a TypeDecorator",
    ),
    ("CHAR(", "which ignores trailing blanks; use String or Text"),
    ("FLOAT", _FLOAT),
    ("REAL", _FLOAT),
    ("DOUBLE PRECISION", _FLOAT),
)
