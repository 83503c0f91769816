"""SQL is cut as PostgreSQL cuts it, and what cannot be cut for certain is told."""

from __future__ import annotations

import pytest

from sqlalchemy_shards.routing.raw_text import stays_in_place, why_unreadable
from sqlalchemy_shards.sql_text import Uncuttable, is_comment, past_comments, tokens_of


@pytest.mark.parametrize(
    ("sql", "tokens"),
    [
        ("a='it''s; --'", ["a", "=", "'it''s; --'"]),
        (r"E'\'; ' || e'a'", [r"E'\'; '", "|", "|", "e'a'"]),
        (r"U&'\0061' || u&\"b\"".replace(r"\"", '"'), [r"U&'\0061'", "|", "|", 'u&"b"']),
        ("$$a;$b$ $$ || $x$ $$ $x$", ["$$a;$b$ $$", "|", "|", "$x$ $$ $x$"]),
        ("a$$b", ["a$$b"]),
        ('"a;""b" -- c\n + 1', ['"a;""b"', "+", "1"]),
        ("a /* b /* ' */ ; */ b", ["a", "b"]),
        ("B'01' || x'fF' || N'n'", ["B'01'", "|", "|", "x'fF'", "|", "|", "N'n'"]),
        ("x::int[1:2] + :y", ["x", "::", "int", "[", "1", ":", "2", "]", "+", ":y"]),
        ("1.5e-3 - .5", ["1.5e-3", "-", ".5"]),
        ("ä\u00a0b", ["ä\u00a0b"]),
        ("CASE WHEN a THEN t.end END", "CASE WHEN a THEN t . end END".split()),
    ],
)
def test_tokens(sql: str, tokens: list[str]) -> None:
    assert [token.text for token in tokens_of(sql)] == tokens


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("'a", "a quote without its end"),
        ("E'a", "a quote without its end"),
        ('"a', "a quote without its end"),
        ('U&"a', "a quote without its end"),
        (r"'a\'", "a backslash in a string that does not begin with E"),
        ("$$a$b$", "'$'"),
        ("$1", "'$'"),
        ("a /* b /* c */", "a comment without its end"),
        ("a */ b", "'*'"),
        ("a -- b", "a comment without its end"),
        ("a +-- b", "a comment without its end"),
        ("a; b", "a semicolon outside quotes"),
        ("(a", "'(' without its end"),
        ("a) OR (b", "')' without its beginning"),
        ("(a] + [b)", "']' without its beginning"),
        ("array[true", "'[' without its end"),
        ("case when a then b", "'CASE' without its end"),
        ("b end", "'END' without its beginning"),
        ("\x00", r"'\x00'"),
    ],
)
def test_what_cannot_be_cut_is_told(sql: str, told: str) -> None:
    with pytest.raises(Uncuttable) as found:
        tokens_of(sql)

    assert str(found.value) == told
    assert why_unreadable(sql) == f"it holds raw SQL text with {told}"


@pytest.mark.parametrize(
    "sql",
    [
        "x = 1 AND y = 2",
        "(a OR b)",
        "x = ' or ' || '; -- '",
        "CASE WHEN a OR b THEN c ELSE d END",
        "x BETWEEN 1 AND 2 AND y BETWEEN SYMMETRIC 3 AND 4",
        "percentile_cont(0.5) WITHIN GROUP (ORDER BY x)",
        't.order > t.limit AND "or"',
        "substring(x FROM 1 FOR 2) = 'a'",
    ],
)
def test_text_that_stays_in_its_place(sql: str) -> None:
    assert stays_in_place(sql)
    assert why_unreadable(sql) is None


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("a or b", "OR"),
        ("a = 1 ORDER BY b", "ORDER"),
        ("a LIMIT 1", "LIMIT"),
        ("a GROUP BY b", "GROUP"),
        ("a BETWEEN 1", "BETWEEN without AND"),
        ("(x between 1 and 2) between 3", "BETWEEN without AND"),
    ],
)
def test_text_that_reaches_beyond_its_place(sql: str, word: str) -> None:
    assert why_unreadable(sql) == (
        f"it holds raw SQL text that may reach beyond its place, as {word} outside parentheses"
    )


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("x IN (SELECT 1)", True),
        ("TABLE t", True),
        ("1 FROM t", True),
        ("f(a FROM t)", True),
        ("x = ' from t'", False),
        ("extract(year FROM x)", False),
        ("trim(both 'x' from y)", False),
        ("overlay(a placing lower(b) from 2)", False),
        ("x IS NOT DISTINCT FROM y", False),
        ("DISTINCT FROM t", True),
        ("t.values", False),
    ],
)
def test_text_that_reads_tables(sql: str, *, reads: bool) -> None:
    assert (why_unreadable(sql) == "it holds raw SQL text that may read tables") is reads


def test_leading_comments() -> None:
    assert past_comments("-- a\n /* b /* c */ */ SELECT") == 22
    assert past_comments("/* a") == 0
    assert is_comment("/* a */ -- b\n")
    assert not is_comment("/* a */ -- b")
    assert not is_comment("/* a */ b")
