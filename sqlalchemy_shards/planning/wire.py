"""The form in which values are shipped to the workspace: text, as PostgreSQL itself writes it."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Text, cast, func

UNSHIPPABLE: Final = frozenset({"money", "oid", "xid", "tid", "cid", "refcursor"})
"""Types whose text means something else in another database, or under another locale."""


def is_shippable(base: str) -> bool:
    """Whether values of a type, or of an array of it, mean the same at the workspace."""
    return base.removesuffix("[]") not in UNSHIPPABLE


def as_text(expression: Any, base: str) -> Any:
    """SQL that writes a value as text.

    :param base: the type, as `ColumnType.base` has it.
    """
    if base in ("character", "bpchar"):
        # A cast would cut off the blanks.
        return func.textin(func.bpcharout(expression))
    return cast(expression, Text)
