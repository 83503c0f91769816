"""The form in which values are shipped to the workspace: text, as PostgreSQL itself writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Integer, Text, case, cast, func, literal_column

from sqlalchemy_shards.routing.calls import OwnCall

if TYPE_CHECKING:
    from sqlalchemy_shards.catalog.columns import ColumnType

UNSHIPPABLE: Final = frozenset(
    """
    aclitem cid money oid refcursor regclass regcollation regconfig regdictionary regnamespace
    regoper regoperator regproc regprocedure regrole regtype tid xid
    """.split()
)
"""Types whose text means something else in another database, or under another locale."""

FLOATING: Final = frozenset(
    ["double precision", "real", "box", "circle", "cube", "line", "lseg", "path", "point"]
) | {"polygon"}
"""Types whose text is rounded where the setting ``extra_float_digits`` says so."""

ROUNDED: Final = "extra_float_digits is below 1: numbers are rounded"
"""What is shipped in place of such a value: better no number than one that is nearly right."""


def is_shippable(type_: ColumnType) -> bool:
    """Whether values of a type, and what is inside them, mean the same at the workspace."""
    return UNSHIPPABLE.isdisjoint({type_.base.removesuffix("[]"), *type_.holds})


def as_text(expression: Any, type_: ColumnType) -> Any:
    """SQL that writes a value as text."""
    if type_.is_padded:
        # A cast would cut off the blanks.
        return func.textin(func.bpcharout(expression))
    text = cast(expression, Text)
    if FLOATING.isdisjoint(type_.holds):
        return text
    # Asked wherever the text is written: an answer may be gathered, as a statement by itself.
    digits = cast(OwnCall("current_setting", literal_column("'extra_float_digits'")), Integer)
    rounded: Any = literal_column(f"'{ROUNDED}'")
    return case((digits > literal_column("0"), text), (expression.is_not(None), rounded))
