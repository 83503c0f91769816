"""Names as SQL writes them, for SQL that has no parameters."""

from __future__ import annotations


def without_placeholders(quoted: str) -> str:
    """A quoted name without what is done to it for SQL that has parameters."""
    return quoted.replace("%%", "%")
