"""Statements of many shapes that give entities of tables whose rows lie apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Integer,
    Numeric,
    and_,
    bindparam,
    collate,
    column,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
    values,
)
from sqlalchemy import tuple_ as row
from sqlalchemy.orm import (
    Bundle,
    aliased,
    joinedload,
    selectin_polymorphic,
    selectinload,
    with_polymorphic,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.orm import Session

    from tests.shards.results.same import Same

    Statements = Mapping[str, Callable[[Any], Any]]


def spoken(value: Any) -> Any:
    """Entities as class and key; the rest as it is."""
    mapper = getattr(type(value), "__mapper__", None)
    if mapper is None:
        return tuple(map(spoken, value)) if isinstance(value, tuple) else value
    names = [attribute.key for attribute in mapper.column_attrs]
    loaded = {name: vars(value)[name] for name in names if name in vars(value)}
    return type(value).__name__, sorted(loaded.items())


def entities_of_a_union(m: Any) -> Any:
    dear, cheap = select(m.Book).where(m.Book.price > 3), select(m.Book).where(m.Book.price < 1)
    book = aliased(m.Book, union_all(dear, cheap).subquery())
    return select(book).options(selectinload(book.chapters), joinedload(book.author))


def entities_of_an_intersection(m: Any) -> Any:
    of_first = select(m.Book).where(m.Book.publisher_id == 1)
    book = aliased(m.Book, select(m.Book).where(m.Book.price > 1).intersect(of_first).subquery())
    return select(book, m.Author).join(m.Author, m.Author.id == book.author_id)


def entities_from_a_union_statement(m: Any) -> Any:
    title = null().label("title")
    with_books = select(m.Author.id, m.Author.name, m.Book.title).join(m.Author.books)
    without = select(m.Author.id, m.Author.name, title)
    return select(m.Author, m.Book.title).from_statement(union_all(with_books, without))


def groups_by_expressions_of_two_entities(m: Any) -> Any:
    author, medal = aliased(m.Author), aliased(m.Medal)
    of_author, of_medal = func.abs(author.id), func.abs(medal.year)
    return (
        select(of_author, of_medal, func.count(medal.metal))
        .join(medal, medal.author_id == author.id)
        .group_by(of_medal, of_author)
    )


def a_tree_of_authors(m: Any) -> Any:
    top = (
        select(m.Author.id, literal(0).label("depth"))
        .where(m.Author.mentor_id.is_(None))
        .cte("tree", recursive=True)
    )
    below = select(m.Author.id, top.c.depth + 1).join(top, m.Author.mentor_id == top.c.id)
    tree = top.union_all(below)
    return select(m.Author, tree.c.depth).join(tree, tree.c.id == m.Author.id)


def the_dearest_by_a_lateral_join(m: Any) -> Any:
    dear = (
        select(m.Book)
        .where(m.Book.author_id == m.Author.id)
        .order_by(m.Book.price.desc(), m.Book.id)
        .limit(1)
        .lateral()
    )
    book = aliased(m.Book, dear)
    return select(m.Author, book).outerjoin(book, true())


def the_two_dearest(m: Any) -> Any:
    place = func.row_number().over(
        partition_by=m.Book.author_id, order_by=(m.Book.price.desc(), m.Book.id)
    )
    placed = select(m.Book, place.label("place")).subquery()
    book = aliased(m.Book, placed)
    return select(book, placed.c.place).where(placed.c.place <= 2).options(joinedload(book.author))


def of_a_list_of_values(m: Any) -> Any:
    numbers = values(column("n", Integer), name="numbers").data([(1,), (3,), (99,)])
    return select(numbers.c.n, m.Author).outerjoin(m.Author, m.Author.id == numbers.c.n)


def works_of_authors(m: Any) -> Any:
    work = with_polymorphic(m.Work, "*", aliased=True, flat=True)
    long_or_staged = or_(work.Film.minutes > 50, work.Play.acts == 3)
    return select(m.Author, work).join(m.Author.works.of_type(work)).where(long_or_staged)


def works_of_a_subquery(m: Any) -> Any:
    work = with_polymorphic(m.Work, "*", aliased=True)
    return select(m.Author.id, work.Film.minutes).outerjoin(m.Author.works.of_type(work))


def kinds_of_notes(m: Any) -> Any:
    return Bundle("kinds", m.Note.kind, m.Note.text)


def sketches_and_all_works(m: Any) -> Any:
    other = aliased(m.Work)
    return select(m.Sketch.id, other).join(other, other.author_id < m.Sketch.author_id)


STATEMENTS: Statements = {
    "a union": entities_of_a_union,
    "an intersection": entities_of_an_intersection,
    "a statement": lambda m: select(m.Author).from_statement(
        select(m.Author).join(m.Author.books).order_by(m.Author.id)
    ),
    "a statement that is a union": entities_from_a_union_statement,
    "a recursive CTE": a_tree_of_authors,
    "a lateral join": the_dearest_by_a_lateral_join,
    "the first of each group": the_two_dearest,
    "VALUES": of_a_list_of_values,
    "DISTINCT": lambda m: select(m.Book).join(m.Book.author).distinct(),
    "DISTINCT ON": lambda m: (
        select(m.Medal)
        .distinct(m.Medal.metal)
        .order_by(m.Medal.metal, m.Medal.year.desc(), m.Medal.author_id)
    ),
    "GROUP BY an entity": lambda m: (
        select(m.Author, func.count(m.Book.id)).join(m.Author.books).group_by(m.Author)
    ),
    "GROUP BY expressions of two entities": groups_by_expressions_of_two_entities,
    "GROUP BY a bundle": lambda m: select(kinds_of_notes(m), func.count()).group_by(
        kinds_of_notes(m)
    ),
    "GROUP BY a bundle with the shard key": lambda m: select(
        m.Note.author_id, func.avg(m.Note.id)
    ).group_by(Bundle("key", m.Note.author_id, Bundle("within", m.Note.kind))),
    "GROUP BY a key, with a loader": lambda m: (
        select(m.Author, func.max(m.Book.price))
        .join(m.Author.books)
        .group_by(m.Author.id)
        .options(selectinload(m.Author.notes))
    ),
    "of a reference table": lambda m: select(m.Country, m.Author).outerjoin(
        m.Author, m.Author.country_code == m.Country.code
    ),
    "of a global table": lambda m: (
        select(m.Publisher, m.Book, m.Author)
        .join(m.Book, m.Book.publisher_id == m.Publisher.id)
        .outerjoin(m.Book.author)
    ),
    "nested joins": lambda m: select(m.Author, m.Chapter).select_from(
        m.Author.__table__.outerjoin(
            m.Book.__table__.join(m.Chapter.__table__), m.Book.author_id == m.Author.id
        )
    ),
    "rows IN a query": lambda m: select(m.Book).where(
        row(m.Book.author_id, m.Book.publisher_id).in_(select(m.Author.id, m.Author.mentor_id))
    ),
    "a full join": lambda m: select(m.Author, m.Book).join(
        m.Book, and_(m.Book.author_id == m.Author.id, m.Book.price > 2), full=True
    ),
    "bundles": lambda m: select(
        Bundle("author", m.Author.id, m.Author.mood), Bundle("book", m.Book.title)
    ).join(m.Author.books),
    "polymorphic": works_of_authors,
    "polymorphic, of a subquery": works_of_a_subquery,
    "polymorphic, loaded apart": lambda m: (
        select(m.Work)
        .join(m.Work.author)
        .where(m.Author.id > 2)
        .options(selectin_polymorphic(m.Work, [m.Film, m.Play]), joinedload(m.Work.author))
    ),
    "one subclass": lambda m: select(m.Film, m.Author).join(m.Film.author),
    "one subclass of its base's table": lambda m: select(m.Sketch).join(m.Sketch.author),
    "one subclass of its base's table, and all of the base": sketches_and_all_works,
    "a relationship to one subclass": lambda m: select(m.Author).where(
        m.Author.works.of_type(m.Film).any(m.Film.minutes > 1)
    ),
    "a union of concrete classes": lambda m: select(m.Author.name, m.Prize).join(
        m.Prize, m.Prize.author_id == m.Author.id
    ),
    "decorated types": lambda m: select(m.Author.mood, func.max(m.Author.mood)).group_by(
        m.Author.mood
    ),
}

ORDERED: Statements = {
    "by a relationship's column": lambda m: (
        select(m.Book)
        .outerjoin(m.Book.author)
        .order_by(m.Author.name.desc().nulls_last(), m.Book.id)
    ),
    "by a query's value": lambda m: select(m.Book).order_by(
        select(m.Author.name).where(m.Author.id == m.Book.author_id).scalar_subquery(), m.Book.id
    ),
    "by a collation": lambda m: (
        select(m.Book).join(m.Book.author).order_by(collate(m.Author.name, "C").desc(), m.Book.id)
    ),
    "a joined collection with LIMIT": lambda m: (
        select(m.Author)
        .options(joinedload(m.Author.books))
        .order_by(m.Author.name)
        .limit(3)
        .offset(1)
    ),
    "a joined inner parent with LIMIT": lambda m: (
        select(m.Book)
        .options(joinedload(m.Book.author, innerjoin=True))
        .order_by(m.Book.id.desc())
        .limit(3)
    ),
    "concrete classes with LIMIT": lambda m: (
        select(m.Prize).order_by(m.Prize.year.desc(), m.Prize.author_id).limit(3)
    ),
    "ties": lambda m: select(m.Book.price).order_by(m.Book.price).fetch(3, with_ties=True),
}


# The other way of saying it is SQLAlchemy 2.1's only.
@pytest.mark.filterwarnings("ignore:Passing expression to ``distinct``")
@pytest.mark.parametrize("name", STATEMENTS)
def test_entities_of(same: Same, name: str) -> None:
    def body(session: Session, m: Any) -> Any:
        rows = session.execute(STATEMENTS[name](m)).unique().all()
        return sorted((spoken(tuple(each)) for each in rows), key=repr)

    answer = same(body)

    assert answer.value
    assert answer.merges[0] != "", "several shards answer"


@pytest.mark.parametrize("name", ORDERED)
def test_entities_ordered(same: Same, name: str) -> None:
    def body(session: Session, m: Any) -> Any:
        rows = session.execute(ORDERED[name](m)).unique().all()
        return [spoken(tuple(each)) for each in rows]

    answer = same(body)

    assert answer.value


def test_a_plan_that_is_met_again_has_the_new_values(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        found = []
        for least, name in ((1, "a"), (3, "b"), (None, ""), (2, "zzz"), (1, "a")):
            statement = (
                select(m.Author.id, m.Book.id)
                .join(m.Author.books)
                .where(m.Book.price > bindparam(None, least, Numeric), m.Author.name > name)
                .order_by(m.Book.id)
            )
            found.append([tuple(each) for each in session.execute(statement)])
        return found

    answer = same(body, gathered=5)

    assert answer.value[0] == answer.value[-1]
    assert answer.value[2] == []
