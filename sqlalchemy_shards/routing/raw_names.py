"""What raw SQL text may name: columns, functions, whole rows.

PostgreSQL alone parses SQL. Here text is cut into tokens (`sql_text`), and each word that could be
a name counts as one, so that too much is found and never too little; text that cannot be cut for
certain is not understood. Words are folded to lower case as PostgreSQL does.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy_shards.sql_text import Kind, Uncuttable, tokens_of

from .raw_text import CLAUSES, names_moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy_shards.sql_text import Token

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

_ELSEWHERE_ANOTHER: Final = frozenset(
    """
    cid money oid regclass regcollation regconfig regdictionary regnamespace regoper regoperator
    regproc regprocedure regrole regtype tid xid xid8
    """.split()
)
"""Types whose values mean something else in another database."""

SEARCHES: Final = frozenset(["@@", "@@@"])
"""Operators that make words of text, by a setting of the database."""

_OVER_ROWS: Final = CLAUSES.union("distinct filter over within".split()) - {"for", "or"}


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


class _Chain(NamedTuple):
    """Names with dots between them, and the tokens before and behind them."""

    words: tuple[str, ...]
    before: str
    after: Token | None

    @property
    def is_called(self) -> bool:
        """Whether it names a function."""
        is_syntax = len(self.words) == 1 and self.words[0] in _SYNTAX
        is_before = self.after is not None and self.after.text == "("
        return (is_before and not is_syntax) or self.words[0] in _CALLED_BARE

    @property
    def is_unclear(self) -> bool:
        """Whether it may mean something else in another database."""
        is_string = self.after is not None and self.after.kind is Kind.STRING
        is_type = is_string or self.before in ("::", "as")
        return len(self.words) > 2 or (is_type and self.words[-1] in _ELSEWHERE_ANOTHER)


def raw_names(text: str) -> RawNames | None:
    """Read text; None: it is not understood."""
    try:
        tokens = tokens_of(text)
    except Uncuttable:
        return None
    if any(token.value is None for token in tokens):
        return None
    chains = list(_chains(tokens))
    called = {".".join(chain.words) for chain in chains if chain.is_called}
    others = [chain for chain in chains if not chain.is_called]
    if any(chain.is_unclear for chain in others):
        return None
    signs = "".join(token.text for token in tokens if token.kind is Kind.SIGN)
    if any(sign in signs for sign in SEARCHES):
        called.add("to_tsvector")
    names = frozenset(word for chain in others for word in chain.words)
    return RawNames(
        names,
        frozenset(chain.words[0] for chain in others if len(chain.words) == 1),
        frozenset(called),
        "*" in names or [token.text for token in tokens] == ["*"],
        any(map(names_moment, _strings(tokens))),
        bool(names & _OVER_ROWS),
    )


def _chains(tokens: Sequence[Token]) -> Iterator[_Chain]:
    place = 0
    while place < len(tokens):
        start, words = place, []
        while place < len(tokens) and _may_be_name(tokens[place], is_first=place == start):
            words.append(str(tokens[place].value))
            place += 1
            if place + 1 >= len(tokens) or tokens[place].text != ".":
                break
            place += 1
        if words:
            before = str(tokens[start - 1].value) if start else ""
            yield _Chain(tuple(words), before, tokens[place] if place < len(tokens) else None)
        else:
            place = start + 1


def _may_be_name(token: Token, *, is_first: bool) -> bool:
    is_star = token.text == "*" and not is_first
    return token.kind in (Kind.WORD, Kind.QUOTED) or is_star


def _strings(tokens: Iterable[Token]) -> Iterator[str]:
    """What strings mean; PostgreSQL makes one of those that follow each other."""
    for kind, group in groupby(tokens, lambda token: token.kind):
        if kind is Kind.STRING:
            yield "".join(str(token.value) for token in group)
