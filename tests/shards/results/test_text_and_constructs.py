"""Raw SQL text, constructs of the application's own, and whole rows, over several shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    DateTime,
    Integer,
    String,
    cast,
    column,
    exists,
    func,
    literal_column,
    select,
    table,
    text,
    values,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement, GenericFunction

from sqlalchemy_shards.errors import UnsupportedStatement
from tests.shards.results.same import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.orm import Session

    from tests.shards.results.same import Same
    from tests.shards.shop import World

    Statements = Mapping[str, Callable[[Any], Any]]


class Greatest(FunctionElement[int]):
    """Written by the application, for PostgreSQL alone."""

    name = "greatest_of"
    type = Integer()
    inherit_cache = True


@compiles(Greatest, "postgresql")
def _greatest(element: Any, compiler: Any, **keywords: Any) -> str:
    return f"greatest({compiler.process(element.clauses, **keywords)})"


class Sum(FunctionElement[int]):
    """Bears the name of another function than it writes."""

    name = "sum"
    type = Integer()
    inherit_cache = True


@compiles(Sum)
def _sum(element: Any, compiler: Any, **keywords: Any) -> str:
    return f"avg({compiler.process(element.clauses, **keywords)})"


class Loud(ColumnElement[str]):
    type = String()
    inherit_cache = True

    def __init__(self, clause: Any) -> None:
        self.clause = clause

    def get_children(self, **_: Any) -> Any:
        return [self.clause]


@compiles(Loud)
def _loud(element: Any, compiler: Any, **keywords: Any) -> str:
    return f"upper({compiler.process(element.clause, **keywords)} || title)"


class UtcNow(FunctionElement[Any]):
    type = DateTime()
    inherit_cache = True


@compiles(UtcNow, "postgresql")
def _utcnow(element: Any, compiler: Any, **keywords: Any) -> str:
    return "TIMEZONE('utc', CURRENT_TIMESTAMP)"


class Most(GenericFunction[int]):
    """A function of PostgreSQL's under another name in Python."""

    name = "max"
    identifier = "the_most"
    type = Integer()
    inherit_cache = True


LISTED = (
    values(column("number", Integer), column("word", String), name="words")
    .data([(1, "one"), (2, "two"), (7, "seven")])
    .cte("listed")
)


def rows_of(make: Callable[[Any], Any]) -> Callable[[Session, Any], Any]:
    return lambda session, m: [tuple(row) for row in session.execute(make(m))]


TEXT: Statements = {
    "a condition": lambda m: (
        select(m.Book.id).join(m.Book.author).where(text("price > 2")).order_by(m.Book.id)
    ),
    "a condition with a parameter": lambda m: (
        select(m.Book.id)
        .join(m.Book.author)
        .where(text("books.price > :least").bindparams(least=2))
        .order_by(m.Book.id)
    ),
    "quoted names": lambda m: (
        select(m.Author.id).where(text('"authors"."name" = \'bob\'')).order_by(m.Author.id)
    ),
    "an order": lambda m: select(m.Book.id).order_by(text("books.price DESC NULLS LAST, id")),
    "the order of a position": lambda m: select(m.Book.publisher_id, m.Book.id).order_by(
        text("1 NULLS FIRST, 2 DESC")
    ),
    "a label": lambda m: select(text("lower(title) AS low"), m.Book.id).order_by(text("low DESC")),
    "an aggregate": lambda m: select(literal_column("count(*)")).select_from(m.Book),
    "an aggregate beside one that adds up": lambda m: select(
        func.count(m.Book.id), text("'x'"), func.coalesce(literal_column("sum(price)"), 0)
    ),
    "separators of lists": lambda m: select(
        *(
            func.string_agg(m.Author.mood, aggregate_order_by(literal_column(text), m.Author.id))
            for text in ("';'", "' -- '", "' /* '", "$$ ' $$", r"E'\n\''", "'('", "' FROM t '")
        )
    ),
    "separators of lists of one shard": lambda m: select(
        func.string_agg(m.Author.mood, literal_column("'; -- '"))
    ).where(m.Author.id == 1),
    "a comment": lambda m: select(text("price /* ; */ -- dear\n"), m.Book.id).order_by(m.Book.id),
    "an order among arguments": lambda m: select(
        func.array_agg(literal_column("title || E'\\\\' ORDER BY id"))
    ).select_from(m.Book),
    "a window": lambda m: select(
        m.Book.id,
        literal_column("row_number() OVER (PARTITION BY author_id ORDER BY price DESC, id)"),
    ).order_by(m.Book.id),
    "a group": lambda m: (
        select(text("publisher_id"), func.count())
        .select_from(m.Book)
        .group_by(text("publisher_id"))
        .order_by(text("2, 1"))
    ),
    "a group by the primary key": lambda m: (
        select(m.Author.name, func.count())
        .join(m.Author.books)
        .group_by(text("authors.id"))
        .order_by(text("2 DESC"), m.Author.name)
    ),
    "HAVING": lambda m: (
        select(m.Book.author_id)
        .group_by(m.Book.author_id)
        .having(text("count(*) > 2"))
        .order_by(m.Book.author_id)
    ),
    "DISTINCT": lambda m: (
        select(text("DISTINCT publisher_id")).select_from(m.Book).order_by(text("1"))
    ),
    "a join": lambda m: (
        select(m.Book.id, m.Author.id)
        .join(m.Author, text("authors.id = books.author_id"))
        .order_by(m.Book.id)
    ),
    "an operator that is more": lambda m: select(m.Book.id.op("+ count(*) OVER () +")(1)).order_by(
        text("1")
    ),
    "an operator": lambda m: (
        select(m.Book.id)
        .where(m.Book.tags.op("&&")(cast(["new"], ARRAY(String))))
        .order_by(m.Book.id)
    ),
    "numbers and intervals": lambda m: (
        select(m.Book.published + literal_column("interval '1 day'"), literal_column("-1.5"))
        .join(m.Book.author)
        .order_by(m.Book.id)
    ),
    "years": lambda m: (
        select(m.Book.id)
        .where(text("extract(year FROM published) IS NOT DISTINCT FROM 2001"))
        .order_by(m.Book.id)
    ),
    "a draw": lambda m: select(m.Book.id).where(text("random() < 2")).order_by(m.Book.id),
    "comments": lambda m: (
        select(m.Book.id)
        .join(m.Book.author)
        .prefix_with("/*+ SeqScan(books) */")
        .suffix_with("/* 100% */")
        .order_by(m.Book.id)
    ),
    "comments on every shard": lambda m: (
        select(m.Book.id).with_statement_hint("/* by hand */").order_by(m.Book.id).limit(3)
    ),
    "a constant beside an order": lambda m: select(m.Book.id, text("1")).order_by(m.Book.id),
}

WHOLE_ROWS: Statements = {
    "a star": lambda m: select(text("*")).select_from(m.Book).order_by(text("id")),
    "a star in order": lambda m: (
        select(literal_column("*")).select_from(m.Book).order_by(m.Book.id)
    ),
    "a star over a join": lambda m: (
        select(text("*"))
        .select_from(m.Book.__table__.join(m.Author, m.Book.author_id == m.Author.id))
        .order_by(m.Book.id)
    ),
    "a star of an alias": lambda m: (
        select(text("b.*")).select_from(m.Book.__table__.alias("b")).order_by(text("b.id"))
    ),
    "a star in a union": lambda m: (
        select(text("*")).select_from(m.Medal).union(select(text("*")).select_from(m.Medal))
    ).order_by(text("1")),
    "a star in EXISTS": lambda m: (
        select(m.Author.id)
        .where(exists(text("*")).where(m.Book.author_id == m.Author.id))
        .order_by(m.Author.id)
    ),
    "a row": lambda m: select(text("books")).select_from(m.Book).order_by(text("id")),
    "rows as JSON": lambda m: (
        select(
            func.row_to_json(m.Author.__table__.table_valued()),
            func.to_jsonb(m.Book.__table__.table_valued()),
        )
        .join(m.Author.books)
        .order_by(m.Book.id)
    ),
    "a row as JSON by its alias": lambda m: (
        select(text("row_to_json(b)"))
        .select_from(m.Book.__table__.alias("b"))
        .order_by(text("b.id"))
    ),
    "rows that an outer join leaves out": lambda m: (
        select(m.Author.id, func.count(m.Book.__table__.table_valued()))
        .outerjoin(m.Author.books)
        .group_by(m.Author.id)
        .order_by(m.Author.id)
    ),
}

CONSTRUCTS: Statements = {
    "of one table": lambda m: select(Greatest(m.Book.id, m.Book.author_id)).order_by(m.Book.id),
    "of two tables": lambda m: (
        select(Greatest(m.Book.id, m.Author.id)).join(m.Book.author).order_by(m.Book.id)
    ),
    "that bears another's name": lambda m: select(Sum(m.Book.id)),
    "that names a column itself": lambda m: (
        select(Loud(m.Author.mood)).join(m.Author.books).order_by(m.Book.id)
    ),
    "a function under another name": lambda m: (
        select(Most(m.Book.id), m.Author.id)
        .join(m.Book.author)
        .group_by(m.Author.id)
        .order_by(m.Author.id)
    ),
    "ARRAY of a query": lambda m: select(
        m.Author.id,
        func.array(
            select(m.Book.id)
            .where(m.Book.author_id == m.Author.id)
            .order_by(m.Book.id)
            .scalar_subquery()
        ),
    ).order_by(m.Author.id),
    "a function with a stable namesake that takes one argument": lambda m: select(
        func.count(m.Book.id.distinct()),
        func.max(func.age(m.Book.published, func.to_date("2020-01-01", "YYYY-MM-DD"))),
        func.count().filter(
            func.to_tsvector("simple", m.Book.title).op("@@")(func.to_tsquery("simple", "a | b"))
        ),
        func.max(func.date(m.Book.published)),
        func.max(
            func.ts_headline("simple", m.Book.title, func.to_tsquery("simple", "book")).cast(String)
        ),
    ),
    "a list of values with a name": lambda m: (
        select(m.Author.id, LISTED.c.word)
        .join(LISTED, LISTED.c.number == m.Author.id)
        .order_by(m.Author.id)
    ),
    "a hint for another dialect": lambda m: (
        select(m.Author.id)
        .with_hint(m.Author, "WITH (NOLOCK)", "mssql")
        .with_statement_hint("OPTION (RECOMPILE)", "mssql")
        .prefix_with("SQL_NO_CACHE", dialect="mysql")
        .order_by(m.Author.id)
    ),
    "ROW": lambda m: select(
        func.array_agg(aggregate_order_by(func.row(m.Book.id, m.Book.title), m.Book.id))
    ),
}

ALL = {
    f"{kind}: {name}": make
    for kind, made in (("text", TEXT), ("whole rows", WHOLE_ROWS), ("construct", CONSTRUCTS))
    for name, make in made.items()
}


@pytest.mark.parametrize("name", ALL)
def test_it_is_answered(same: Same, name: str) -> None:
    answer = same(rows_of(ALL[name]))

    assert answer.value


REFUSED: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "the time in text": (
        lambda m: select(m.Book.id).where(text("published < now()")),
        "asks for the time",
    ),
    "the time in a construct": (
        lambda m: select(m.Book.id).where(m.Book.published < UtcNow()),
        "asks for the time",
    ),
    "the time that has passed": (
        lambda m: select(func.max(func.age(m.Book.published)), func.count(m.Book.id.distinct())),
        r"age\(\) may give something else",
    ),
    "a function that is not there": (
        lambda m: select(func.nobody(m.Book.id), func.count(m.Book.id.distinct())),
        r"the shards have no function nobody\(\) that takes 1 argument .*; check its name",
    ),
    "too many arguments": (
        lambda m: select(func.md4(m.Book.id, 2, 3)).distinct(),
        r"the shards have no function md4\(\) that takes 3 arguments .*;",
    ),
    "arguments in text, of which the number is not known": (
        lambda m: select(
            func.max(func.age(literal_column("published, published"))),
            func.count(m.Book.id.distinct()),
        ),
        r"age\(\) may give something else",
    ),
    "a sequence in text": (
        lambda m: select(m.Book.id).where(text("nextval('numbers') > 1")),
        r"nextval\(\)",
    ),
    "an open comment in text": (
        lambda m: select(text("price /* dear"), m.Book.id),
        "raw SQL text with a comment without its end",
    ),
    "a semicolon in text": (
        lambda m: select(text("price; price"), m.Book.id),
        "raw SQL text with a semicolon outside quotes",
    ),
    "a table of text": (
        lambda m: select(func.count()).select_from(text("books")),
        "the FROM list holds raw SQL text",
    ),
    "a table that is none": (
        lambda m: select(table("books", column("id")).c.id),
        "'books' in the FROM list is no Table that says how it spreads",
    ),
    "a prefix": (lambda m: select(m.Book.id).prefix_with("DISTINCT"), "prefix, suffix or hint"),
    "a query in text": (
        lambda m: select(m.Book.id).where(text("id IN (SELECT author_id FROM books)")),
        "may read tables",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(four_shards: World, name: str) -> None:
    make, reason = REFUSED[name]

    with pytest.raises(UnsupportedStatement, match=reason):
        run(four_shards, rows_of(make))
