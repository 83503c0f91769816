"""What raw SQL text may name: columns, functions, whole rows.

PostgreSQL alone parses SQL. Here text is cut into words, and each word that could be a name counts
as one, so that too much is found and never too little; text that cannot be cut for certain, with
comments or escapes in it, is not understood. Words are folded to lower case as PostgreSQL does.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .raw_text import HIDES

_WORD: Final = r'(?:[^\W\d][\w$]*|"(?:[^"]|"")+")'
_TOKEN: Final = re.compile(
    rf"""
      \s+
    | (?P<text>'(?:[^']|'')*')
    | (?P<parameter>(?<![:\w]):(?!:)[^\W\d]\w*|%\(\w+\)s)
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\b)
    | (?P<chain>{_WORD}(?:\s*\.\s*(?:{_WORD}|\*))*)
    | (?P<sign>::|.)
    """,
    re.X | re.I | re.S,
)
_WORD_IN_CHAIN: Final = re.compile(rf"{_WORD}|\*")

_SYNTAX: Final = frozenset(
    """
    all and any array as between bit by case cast char character decimal else escape filter float
    group ilike in interval like not numeric or over row similar some symmetric then time timestamp
    to values varchar varying when within zone
    """.split()
)
"""Words that a parenthesis may follow which begins no arguments."""

_CALLED_BARE: Final = frozenset(
    """
    current_catalog current_date current_role current_schema current_time current_timestamp
    current_user localtime localtimestamp session_user system_user user
    """.split()
)
"""Functions that are called without parentheses."""

_ELSEWHERE_ANOTHER: Final = re.compile(r"reg\w+|oid|xid|cid|tid|money")
"""Types whose values mean something else in another database."""

SEARCHES: Final = frozenset(["@@", "@@@"])
"""Operators that make words of text, by a setting of the database."""

_OVER_ROWS: Final = frozenset("distinct filter over within".split())
_MOMENT: Final = re.compile(r"'\s*(now|today|tomorrow|yesterday)\b", re.I)


class RawNames(NamedTuple):
    """What text may name.

    :param names: of columns, or of anything else.
    :param alone: those without a table before them: as a table's, they mean its whole row.
    :param functions: what is called, with its schema.
    :param has_star: it stands for all columns.
    :param names_moment: it holds a word that PostgreSQL may read as the time.
    :param is_over_rows: other rows have a part in its value.
    """

    names: frozenset[str]
    alone: frozenset[str]
    functions: frozenset[str]
    has_star: bool
    names_moment: bool
    is_over_rows: bool


def raw_names(text: str) -> RawNames | None:
    """Read text; None: it is not understood."""
    if HIDES.search(text):
        return None
    tokens = [match for match in _TOKEN.finditer(text) if match.lastgroup is not None]
    chains: list[list[str]] = []
    functions: set[str] = set()
    for place, token in enumerate(tokens):
        if token.lastgroup != "chain":
            continue
        chain = [_folded(word) for word in _WORD_IN_CHAIN.findall(token[0])]
        following = tokens[place + 1][0] if place + 1 < len(tokens) else ""
        is_called = following == "(" and not (len(chain) == 1 and chain[0] in _SYNTAX)
        if is_called or chain[0] in _CALLED_BARE:
            functions.add(".".join(chain))
        elif len(chain) > 2 or _ELSEWHERE_ANOTHER.fullmatch(chain[-1]):
            return None
        else:
            chains.append(chain)
    if any(sign in text for sign in SEARCHES):
        functions.add("to_tsvector")
    names = frozenset(word for chain in chains for word in chain)
    return RawNames(
        names,
        frozenset(chain[0] for chain in chains if len(chain) == 1),
        frozenset(functions),
        "*" in names or text.strip() == "*",
        _MOMENT.search(text) is not None,
        bool(names & _OVER_ROWS),
    )


def _folded(word: str) -> str:
    return word[1:-1].replace('""', '"') if word.startswith('"') else word.lower()
