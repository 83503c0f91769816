"""Raw SQL, cut into tokens by the lexical rules of PostgreSQL (its documentation, chapter 4.1).

Only what certainly ends where it seems to is cut: each quote, comment and parenthesis that a
fragment opens must be closed within it, so that it cannot swallow what is written behind it, and a
semicolon must stand in quotes. Anything else is `Uncuttable`, and so is a backslash in a string
without ``E``, which means something else where standard_conforming_strings is off.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_LETTER: Final = r"[A-Za-z_\x80-\U0010ffff]"
_IDENTIFIER: Final = rf"{_LETTER}[\w$\x80-\U0010ffff]*"

_TOKEN: Final = re.compile(
    rf"""
      (?P<space>[ \t\n\r\f]+|--[^\n\r]*[\n\r])
    | (?P<comment>/\*)
    | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<unicode>[uU]&(?:'(?:[^']|'')*'|"(?:[^"]|"")+"))
    | (?P<bits>[bBxX]'[^'\\]*')
    | (?P<text>[nN]?'(?:[^'\\]|'')*')
    | (?P<dollar>\$(?P<tag>(?:{_LETTER}[\w\x80-\U0010ffff]*)?)\$.*?\$(?P=tag)\$)
    | (?P<quoted>"(?:[^"]|"")+")
    | (?P<parameter>(?<![:\w\x80-\U0010ffff]):(?!:)[^\W\d]\w*|%\(\w+\)s)
    | (?P<word>{_IDENTIFIER})
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<cast>::)
    | (?P<sign>(?!\*/|--)[-()\[\],.:+*/<>=~!@\#%^&|`?])
    """,
    re.X | re.S | re.A,
)
_PLAIN_STRING: Final = re.compile(r"'(?:[^']|'')*'")
_COMMENT_MARK: Final = re.compile(r"/\*|\*/")
_PARTNERS: Final = {")": "(", "]": "[", "end": "case"}
_STRINGS: Final = frozenset(["escaped", "unicode", "bits", "text", "dollar"])
_SIGNS: Final = frozenset(["sign", "cast"])
_ESCAPE: Final = re.compile(r"\\(.)", re.S)
_CONTROLS: Final = dict.fromkeys("bfnrt", " ")


class Uncuttable(Exception):
    """SQL text of which it is not certain where its parts end; says what is in it."""


class Kind(Enum):
    """What a token is. Words are keywords or names that stand without quotes."""

    WORD = "word"
    QUOTED = "quoted"
    STRING = "string"
    NUMBER = "number"
    PARAMETER = "parameter"
    SIGN = "sign"


class Token(NamedTuple):
    """A piece of SQL.

    :param text: as it is written.
    :param value: what a word, name or string means, words in lower case; of others, their text.
        None: its escapes are not read.
    :param depth: how many parentheses, brackets and CASE expressions are open around it.
    """

    kind: Kind
    text: str
    value: str | None
    depth: int


def tokens_of(sql: str) -> tuple[Token, ...]:
    """Cut SQL into tokens, without its comments.

    :raises Uncuttable: it is not certain where its parts end.

    >>> [token.text for token in tokens_of("a = ';' /* not -- this */")]
    ['a', '=', "';'"]
    """
    found: list[Token] = []
    open_: list[str] = []
    place = 0
    while place < len(sql):
        match = _TOKEN.match(sql, place)
        if match is None:
            raise Uncuttable(_told_of(sql, place))
        place = _past_comment(sql, place) if match.lastgroup == "comment" else match.end()
        if match["space"] is None and match["comment"] is None:
            is_name = bool(found) and found[-1].text == "."
            found.append(_token(match, open_, is_name=is_name))
    if open_:
        raise Uncuttable(f"{open_[-1].upper()!r} without its end")
    return tuple(found)


def past_comments(sql: str) -> int:
    """How many characters of SQL are comments and spaces, from its beginning.

    >>> past_comments("/* a /* b */ */ SELECT 1")
    16
    """
    place = 0
    while True:
        match = _TOKEN.match(sql, place)
        if match is not None and match.lastgroup == "space":
            place = match.end()
        elif match is not None and match.lastgroup == "comment":
            try:
                place = _past_comment(sql, place)
            except Uncuttable:
                return place
        else:
            return place


def beginnings(sql: str) -> Iterator[tuple[str, ...]]:
    """The first words of each statement, three at most, in lower case; "" for what is no word.

    Nothing is refused here: a backslash is a character of a string, as PostgreSQL has it unless
    standard_conforming_strings is off, and what is never closed reaches to the end.

    >>> list(beginnings("UPDATE t SET a = ';'; /* now */ commit"))
    [('update', 't', 'set'), ('commit',)]
    """
    words: list[str] = []
    place = 0
    last = sql.rstrip("; \t\n\r\f").rfind(";")
    # Most SQL is one statement, and long: what is behind its first words begins no other.
    while place < len(sql) and (len(words) < 3 or place <= last):
        match = _TOKEN.match(sql, place) or _PLAIN_STRING.match(sql, place)
        if match is None and sql[place] == ";":
            yield tuple(words)
            words = []
        elif match is not None and match.lastgroup == "comment":
            try:
                place = _past_comment(sql, place)
            except Uncuttable:
                break
            continue
        elif match is None and sql.startswith("--", place):
            break  # no line ends after it
        elif (match is None or match.lastgroup != "space") and len(words) < 3:
            is_word = match is not None and match.lastgroup == "word"
            words.append(match[0].lower() if match is not None and is_word else "")
        place = place + 1 if match is None else match.end()
    yield tuple(words)


def is_comment(sql: str) -> bool:
    """Whether SQL holds comments only, which say nothing to PostgreSQL."""
    return past_comments(sql) == len(sql)


def _token(match: re.Match[str], open_: list[str], *, is_name: bool) -> Token:
    """The token of a match; what it opens or closes is noted.

    :param is_name: it stands behind a dot, where a keyword is none.
    """
    group, text = str(match.lastgroup), match[0]
    if group in _STRINGS and not text.endswith('"'):
        return Token(Kind.STRING, text, _string(group, text), len(open_))
    if group in ("quoted", "unicode"):
        value = text[1:-1].replace('""', '"') if group == "quoted" else None
        return Token(Kind.QUOTED, text, value, len(open_))
    if group == "word":
        word = text.lower()
        if not is_name:
            _note_partner(word, open_)
        return Token(Kind.WORD, text, word, len(open_) - (word == "case" and not is_name))
    if group in _SIGNS:
        _note_partner(text, open_)
        return Token(Kind.SIGN, text, text, len(open_) - (text in ("(", "[")))
    return Token(Kind(group), text, text, len(open_))


def _note_partner(text: str, open_: list[str]) -> None:
    partner = _PARTNERS.get(text)
    if text in ("(", "[", "case"):
        open_.append(text)
    elif partner is not None and (not open_ or open_.pop() != partner):
        raise Uncuttable(f"{text.upper()!r} without its beginning")


def _string(group: str, text: str) -> str | None:
    """What a string means, as far as that is read; control characters become spaces."""
    if group == "dollar":
        return text[text.index("$", 1) + 1 : text.rindex("$", 0, -1)]
    inside = text[text.index("'") + 1 : -1].replace("''", "'")
    if group == "unicode":
        return None if "\\" in inside else inside
    if group == "escaped":
        if re.search(r"\\[0-7xuU]", inside):
            return None
        return _ESCAPE.sub(lambda found: _CONTROLS.get(found[1], found[1]), inside)
    return inside


def _past_comment(sql: str, place: int) -> int:
    """Where the comment ends that begins at a place; they nest."""
    depth = 0
    for mark in _COMMENT_MARK.finditer(sql, place):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    raise Uncuttable("a comment without its end")


def _told_of(sql: str, place: int) -> str:
    """What stands at a place where no token begins."""
    rest = sql[place:]
    if rest.startswith(";"):
        return "a semicolon outside quotes"
    if rest.startswith("--"):
        return "a comment without its end"
    if re.match(r"[nN]?'", rest) and re.match(r"[^']*\\", rest[rest.index("'") + 1 :]):
        return "a backslash in a string that does not begin with E"
    if re.match(r"[eEnNbBxX]?'|[uU]&['\"]|\"", rest):
        return "a quote without its end"
    return f"{rest[0]!r}"
