"""What raw SQL text may name is found, and too much rather than too little."""

from __future__ import annotations

import pytest
from sqlalchemy import column, func, literal_column, text

from sqlalchemy_shards.routing.raw_names import raw_names
from sqlalchemy_shards.routing.row_wise import why_not_row_wise


@pytest.mark.parametrize(
    ("sql", "names", "functions"),
    [
        ("price", "price", ""),
        ("Price > 2.5e3", "price", ""),
        ('"Price" > :least', "Price", ""),
        ('b . "a""b"', 'b a"b', ""),
        ("lower(b.title) = 'lower(x)'", "b title", "lower"),
        ("app.risk (n)", "n", "app.risk"),
        ("x::numeric(8, 2) + cast(y AS varchar(3))::text", "x numeric y as text", ""),
        ("n IN (1, 2) AND (m)", "n and m", ""),
        ("count(*) FILTER (WHERE n > 1) OVER (ORDER BY m)", "filter where n over order m", "count"),
        ("extract(year from day)", "year from day", "extract"),
        ("CURRENT_USER = n", "n", "current_user"),
        ("tags[1:n]", "tags", ""),
        ('"straße" = ärger', "straße ärger", ""),
        ("a /* b /* c */ */ = d -- e\n", "a d", ""),
        ("string_agg(x, '; ' || $$ -- $$ || E'\\' y')", "x", "string_agg"),
        ("region = registered", "region registered", ""),
        ("t.case = U&'a'", "t case", ""),
    ],
)
def test_names_and_functions(sql: str, names: str, functions: str) -> None:
    found = raw_names(sql)

    assert found is not None
    assert found.names >= set(names.split(" ")) - {"by", "as", "and", "from", "where", "order"}
    assert found.functions == set(functions.split())


@pytest.mark.parametrize(
    "sql",
    [
        "a -- b",
        "a /* b",
        "$$a",
        r"E'\x6eow'",
        "a\\b",
        "a; b",
        'U&"d\\0061t"',
        "s.t.c",
        "x::regclass",
        "'t'::oid",
        "regclass 't'",
        "CAST(x AS pg_catalog.regtype)",
    ],
)
def test_what_is_not_understood(sql: str) -> None:
    assert raw_names(sql) is None


@pytest.mark.parametrize("sql", ["*", "b.*", "b . *, c"])
def test_a_star_stands_for_all_columns(sql: str) -> None:
    found = raw_names(sql)

    assert found is not None
    assert found.has_star


@pytest.mark.parametrize("sql", ["a * b", "count(*)", "2*3"])
def test_a_star_may_be_none(sql: str) -> None:
    found = raw_names(sql)

    assert found is not None
    assert not found.has_star


@pytest.mark.parametrize(
    "expression",
    [
        text("price > 2"),
        text("lower(title) = 'x' AND coalesce(a, 1) = :one"),
        literal_column("price"),
        column("a").op("&&")(1),
        column("a").op("IS DISTINCT FROM")(1),
        column("a").op("OPERATOR(pg_catalog.+)")(1),
    ],
)
def test_row_wise_text(expression: object) -> None:
    assert why_not_row_wise([expression], text_too=True) is None


@pytest.mark.parametrize(
    "expression",
    [
        text("count(*) > 2"),
        literal_column("sum(price) OVER ()"),
        literal_column("DISTINCT price"),
        literal_column("now()"),
        literal_column("current_date"),
        literal_column("'now'::timestamp"),
        text("risk(a) = 1"),
        text("a.b.c"),
        text("b.*"),
        column("a").op("+ count(*) OVER () +")(1),
        func.abs(literal_column("max(a)")),
    ],
)
def test_text_that_is_not_row_wise(expression: object) -> None:
    assert why_not_row_wise([expression], text_too=True) is not None


@pytest.mark.parametrize("expression", [text("price > 2"), literal_column("price")])
def test_text_is_row_wise_only_where_it_is_asked_for(expression: object) -> None:
    assert why_not_row_wise([expression]) is not None
