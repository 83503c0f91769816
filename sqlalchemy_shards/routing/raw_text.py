"""Raw SQL in a statement: what it may read, and whether it stays in its place.

SQLAlchemy writes the text of ``text()``, ``literal_column()`` and ``op()`` as it is, without
parentheses around it. In ``and_(key == 1, text("a OR b"))`` PostgreSQL reads ``(key = 1 AND a) OR
b``, so that the key says nothing any more. Text is trusted to stay in its place only where it
certainly does.
"""

from __future__ import annotations

import re
from typing import Any, Final

from sqlalchemy.sql.operators import custom_op

from sqlalchemy_shards import _compat

CONSTANT_TEXT: Final = re.compile(
    rf"\s*(\*|\d+|null|true|false|'[^'\\]*')\s*|{_compat.COMMENT.pattern}", re.I | re.S
)
"""Raw SQL without any meaning of its own, as the ORM writes it into EXISTS and into the union of a
concrete hierarchy's tables."""

SIMPLE_OPERATOR: Final = re.compile(
    r"[-+*/<>=~!@#%^&|`?]+|operator\s*\([^()]*\)"
    r"|(\s*\b(at|between|distinct|from|i?like|is|not|overlaps|similar|symmetric|time|to|zone)\b\s*)+",
    re.I,
)
"""Operators that say no more than which function is called; others are raw SQL."""

_READS: Final = re.compile(
    r"\b(select|from|join|table|with|values|insert|update|delete|call|execute|copy)\b", re.I
)
HIDES: Final = re.compile(r"--|/\*|\*/|;|\$|\\|\b[eu]&?'", re.I)
"""Comments, dollar quotes and escapes: what follows may not be what it seems."""
_FROM_WITHIN: Final = re.compile(r"(\bextract\s*\(\s*\w+|\bdistinct)\s+from\b", re.I)
"""A word of an expression, not of a FROM list."""
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"")
_INNERMOST: Final = re.compile(r"\([^()]*\)")


def why_unreadable(text: str) -> str | None:
    """Why it cannot be told what a statement with this text reads, or None."""
    if _READS.search(_FROM_WITHIN.sub(" ", text)):
        return "it holds raw SQL text that may read tables"
    if not stays_in_place(text):
        return "it holds raw SQL text that may reach beyond its place, as OR without parentheses"
    return None


def stays_in_place(text: str) -> bool:
    """Whether text means the same with and without parentheses around it, beside AND."""
    if HIDES.search(text):
        return False
    rest = _QUOTED.sub(" ", text)
    before = None
    while rest != before:
        before, rest = rest, _INNERMOST.sub(" ", rest)
    return not re.search(r"[()'\"]|\bor\b", rest, re.I)


def why_operator_unreadable(node: Any) -> str | None:
    """The same for the operator of an expression, where the application wrote it with ``op()``."""
    operator = getattr(node, "operator", None)
    if isinstance(operator, custom_op) and not stays_in_place(operator.opstring):
        return f"it holds the operator {operator.opstring!r}, which may reach beyond its place"
    return None
