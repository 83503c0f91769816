"""Raw SQL in a statement: what it may read, and whether it stays in its place.

SQLAlchemy writes the text of ``text()``, ``literal_column()`` and ``op()`` as it is, without
parentheses around it. In ``and_(key == 1, text("a OR b"))`` PostgreSQL reads ``(key = 1 AND a) OR
b``, so that the key says nothing any more. Text is trusted to stay in its place only where it
certainly does.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.sql.operators import custom_op

from sqlalchemy_shards.sql_text import Kind, Uncuttable, tokens_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy_shards.sql_text import Token

SIMPLE_OPERATOR: Final = re.compile(
    r"[-+*/<>=~!@#%^&|`?]+|operator\s*\([^()]*\)"
    r"|(\s*\b(at|between|distinct|from|i?like|is|not|overlaps|similar|symmetric|time|to|zone)\b\s*)+",
    re.I,
)
"""Operators that say no more than which function is called; others are raw SQL."""

_READS: Final = frozenset(
    "call copy delete execute from insert join select table update values with".split()
)
"""Words of what reads or writes tables."""

CLAUSES: Final = frozenset(
    """
    except fetch for group having intersect into limit offset or order returning union where window
    """.split()
)
"""Words that end the condition which they stand in, or stand between two."""

_WITHIN: Final = frozenset("extract overlay substring trim".split())
"""Functions with a FROM among their arguments."""

_MOMENT: Final = re.compile(r"[\W\d_]*([ap]m\W*)?(now|today|tomorrow|yesterday)\b", re.I)


def is_constant(text: str) -> bool:
    """Whether raw SQL has no meaning of its own, as what the ORM writes into EXISTS and into the
    union of a concrete hierarchy's tables: a number, a string, a star, or nothing at all."""
    try:
        tokens = tokens_of(text)
    except Uncuttable:
        return False
    if len(tokens) != 1:
        return not tokens
    token = tokens[0]
    if token.kind is Kind.STRING:
        return not names_moment(token.value)
    return token.kind is Kind.NUMBER or token.value in ("*", "null", "true", "false")


def names_moment(value: str | None) -> bool:
    """Whether PostgreSQL may read a string as the time at which it is read."""
    return value is None or _MOMENT.match(value) is not None


def why_unreadable(text: str, *, is_argument: bool = False) -> str | None:
    """Why it cannot be told what a statement with this text reads, or None.

    :param is_argument: it stands alone in the parentheses of a function.
    """
    try:
        tokens = tokens_of(text)
    except Uncuttable as found:
        return f"it holds raw SQL text with {found}"
    if any(_reads(tokens, place) for place in range(len(tokens))):
        return "it holds raw SQL text that may read tables"
    word = None if is_argument else _reaching(tokens)
    if word is not None:
        return (
            f"it holds raw SQL text that may reach beyond its place, as {word} outside parentheses"
        )
    return None


def why_operator_unreadable(node: Any) -> str | None:
    """The same for the operator of an expression, where the application wrote it with ``op()``."""
    operator = getattr(node, "operator", None)
    if isinstance(operator, custom_op) and not stays_in_place(operator.opstring):
        return f"it holds the operator {operator.opstring!r}, which may reach beyond its place"
    return None


def stays_in_place(text: str) -> bool:
    """Whether text means the same with and without parentheses around it, beside AND."""
    try:
        return _reaching(tokens_of(text)) is None
    except Uncuttable:
        return False


def _reads(tokens: Sequence[Token], place: int) -> bool:
    """Whether a token is a word of a statement, and not of an expression."""
    token = tokens[place]
    if token.kind is not Kind.WORD or token.value not in _READS:
        return False
    before = [each.value for each in tokens[max(0, place - 3) : place]]
    if before[-1:] == ["."]:
        return False
    if token.value != "from":
        return True
    is_distinct = before[-2:] == ["is", "distinct"] or before == ["is", "not", "distinct"]
    return not (is_distinct or _function_around(tokens, place) in _WITHIN)


def _function_around(tokens: Sequence[Token], place: int) -> str | None:
    """The word before the parenthesis that a token stands in."""
    depth = tokens[place].depth
    for back in range(place - 1, 0, -1):
        if tokens[back].depth < depth:
            return tokens[back - 1].value if tokens[back].text == "(" else None
    return None


def _reaching(tokens: Sequence[Token]) -> str | None:
    """The word by which text would reach beyond its place, or None."""
    betweens = Counter[int]()
    for before, token in zip((None, *tokens), tokens, strict=False):
        is_keyword = token.kind is Kind.WORD and (before is None or before.text != ".")
        if not is_keyword:
            continue
        if token.depth == 0 and token.value in CLAUSES and not _is_within(before, token):
            return str(token.value).upper()
        if token.value == "between":
            betweens[token.depth] += 1
        elif token.value == "and" and betweens[token.depth]:
            betweens[token.depth] -= 1
    return "BETWEEN without AND" if betweens[0] else None


def _is_within(before: Token | None, token: Token) -> bool:
    """Whether a GROUP is that of WITHIN GROUP."""
    return token.value == "group" and before is not None and before.value == "within"
