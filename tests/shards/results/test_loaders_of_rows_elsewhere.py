"""Every loader, where what it loads lies on other shards, in copies, or on the global one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import (
    Session,
    aliased,
    contains_eager,
    defaultload,
    immediateload,
    joinedload,
    lazyload,
    noload,
    raiseload,
    selectinload,
    subqueryload,
    undefer,
    with_expression,
    with_loader_criteria,
    with_parent,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.results.same import Same

LOADERS = [joinedload, selectinload, subqueryload, immediateload, lazyload]
PATHS = [
    ("Book", "author", "country"),
    ("Author", "books", "chapters"),
    ("Author", "mentor", "books"),
    ("Book", "publisher", None),
    ("Work", "author", "notes"),
]


def spoken(loaded: Any, below: str | None) -> Any:
    """What was loaded, and what below it, by name of class and key."""
    if loaded is None:
        return None
    if isinstance(loaded, list):
        return [spoken(each, below) for each in loaded]
    key = [getattr(loaded, column.key) for column in type(loaded).__mapper__.primary_key]
    return [type(loaded).__name__, *key, spoken(getattr(loaded, below), None) if below else None]


@pytest.mark.parametrize("path", PATHS, ids="{0[0]}.{0[1]}".format)
@pytest.mark.parametrize("loader", LOADERS, ids=lambda each: each.__name__)
def test_it_is_loaded(
    same: Same, loader: Callable[..., Any], path: tuple[str, str, str | None]
) -> None:
    name, first, second = path

    def body(session: Session, m: Any) -> Any:
        entity = getattr(m, name)
        option = loader(getattr(entity, first))
        if second is not None:
            below = getattr(entity, first).property.mapper.class_
            option = option.options(loader(getattr(below, second)))
        found = []
        ordered = select(entity).order_by(entity.id).options(option)
        for statement in (ordered, ordered.limit(4).offset(1)):
            instances = session.scalars(statement).unique().all()
            found += [(each.id, spoken(getattr(each, first), second)) for each in instances]
            session.expunge_all()
        return found

    answer = same(body)

    assert any(loaded for _, loaded in answer.value)


@pytest.mark.parametrize("loader", [joinedload, selectinload, subqueryload, immediateload])
def test_what_is_loaded_needs_no_further_statement(same: Same, loader: Callable[..., Any]) -> None:
    def body(session: Session, m: Any) -> Any:
        statement = select(m.Book).options(loader(m.Book.author).options(loader(m.Author.notes)))
        books = session.scalars(statement.order_by(m.Book.id)).unique().all()
        session.add(m.Author())  # would fail when it is flushed
        with session.no_autoflush:
            return [book.author and len(book.author.notes) for book in books], "author" in vars(
                books[-1]
            )

    answer = same(body)

    assert answer.value[1]


def test_one_that_raises(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        statement = select(m.Book).join(m.Book.author).order_by(m.Book.id)
        book = session.scalars(statement.options(raiseload("*"))).first()
        with pytest.raises(InvalidRequestError, match="raise"):
            book.author
        return book.id

    same(body, gathered=1)


@pytest.mark.filterwarnings("ignore:The noload")
def test_one_that_loads_nothing(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        statement = select(m.Author).join(m.Author.books).distinct().order_by(m.Author.id)
        return [each.books for each in session.scalars(statement.options(noload(m.Author.books)))]

    same(body, gathered=1)


def test_a_collection_that_is_only_written(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        book = session.scalars(select(m.Book).join(m.Book.author).order_by(m.Book.id)).first()
        parts = session.scalars(book.chapters_written.select().where(m.Chapter.id > 1))
        return book.id, [part.id for part in parts]

    answer = same(body, gathered=1)

    assert answer.value == (101, [2, 3])
    assert len(answer.steps[-1].shards) == 1


class TestFromAJoin:
    def test_a_collection(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            statement = (
                select(m.Author)
                .join(m.Author.books)
                .options(contains_eager(m.Author.books))
                .where(m.Book.price > 2)
                .order_by(m.Author.id, m.Book.id)
            )
            authors = session.scalars(statement).unique().all()
            return [(each.id, [book.id for book in each.books]) for each in authors]

        same(body, gathered=1)

    def test_a_collection_of_an_alias(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            book = aliased(m.Book)
            path = m.Author.books.of_type(book)
            statement = (
                select(m.Author)
                .outerjoin(path)
                .options(contains_eager(path))
                .order_by(m.Author.name.desc(), book.id)
            )
            authors = session.scalars(statement).unique().all()
            return [(each.id, [book.id for book in each.books]) for each in authors]

        same(body, gathered=1)

    def test_of_a_limited_subquery(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            some = select(m.Author).where(m.Author.id < 6).order_by(m.Author.id).limit(4)
            author = aliased(m.Author, some.subquery())
            statement = (
                select(author)
                .join(author.books)
                .options(contains_eager(author.books))
                .order_by(author.id, m.Book.id)
            )
            authors = session.scalars(statement).unique().all()
            return [(each.id, [book.id for book in each.books]) for each in authors]

        same(body, gathered=1)


class TestCriteria:
    @pytest.mark.parametrize("loader", LOADERS, ids=lambda each: each.__name__)
    def test_they_reach_what_is_loaded(self, same: Same, loader: Callable[..., Any]) -> None:
        def body(session: Session, m: Any) -> Any:
            statement = (
                select(m.Author)
                .options(loader(m.Author.books), with_loader_criteria(m.Book, m.Book.price > 2))
                .order_by(m.Author.id)
                .limit(5)
            )
            authors = session.scalars(statement).unique().all()
            return [[book.id for book in each.books] for each in authors]

        same(body)

    def test_they_reach_joins_and_subqueries(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            dear = with_loader_criteria(m.Book, lambda cls: cls.price > 2)
            pairs = select(m.Author.id, m.Book.id).join(m.Author.books)
            some = select(m.Author.id).where(m.Author.books.any()).order_by(m.Author.id)
            count = select(func.count()).select_from(select(m.Book.id).subquery())
            return (
                [tuple(row) for row in session.execute(pairs.order_by(m.Book.id).options(dear))],
                session.scalars(some.limit(3).options(dear)).all(),
                session.scalar(count.options(dear)),
            )

        answer = same(body)

        assert answer.value[2] == 9

    def test_criteria_of_a_relationship(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            dear = m.Author.books.and_(m.Book.price > 2)
            found = []
            for loader in (joinedload, selectinload):
                statement = select(m.Author).options(loader(dear)).order_by(m.Author.id)
                authors = session.scalars(statement).unique().all()
                found.append([[book.id for book in each.books] for each in authors])
                session.expunge_all()
            return found

        answer = same(body)

        assert answer.value[0] == answer.value[1]


class TestComputedAttributes:
    def test_expressions_of_a_query(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            place = func.rank().over(order_by=m.Author.name.desc())
            ranked = select(m.Author).options(with_expression(m.Author.rank, place))
            counted = (
                select(m.Author)
                .outerjoin(m.Author.books)
                .group_by(m.Author.id)
                .options(with_expression(m.Author.rank, func.count(m.Book.id)))
            )
            found = []
            for statement in (ranked, counted):
                authors = session.scalars(statement.order_by(m.Author.id)).all()
                found.append([each.rank for each in authors])
                session.expunge_all()
            return found

        answer = same(body)

        assert all(all(isinstance(rank, int) for rank in ranks) for ranks in answer.value)

    def test_columns_that_look_at_other_tables(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            at_once = [undefer(m.Author.book_count), undefer(m.Author.note_count)]
            found = []
            for options in (at_once, []):
                authors = session.scalars(select(m.Author).options(*options).order_by(m.Author.id))
                found.append([(each.book_count, each.note_count) for each in authors])
                session.expunge_all()
            return found

        answer = same(body)

        assert answer.value[0] == answer.value[1]

    def test_they_filter_and_order(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            most = select(m.Author).order_by(m.Author.book_count.desc(), m.Author.id).limit(3)
            many = select(m.Author.id).where(m.Author.book_count > 2, m.Author.initial == "a")
            proxied = select(m.Author.id).where(m.Author.note_texts.contains("note 3.1"))
            return (
                [author.id for author in session.scalars(most)],
                session.scalars(many).all(),
                session.scalars(proxied).all(),
            )

        same(body)

    def test_deferred_columns_below_a_path(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            path = defaultload(m.Book.author).undefer(m.Author.biography)
            statement = select(m.Book).options(joinedload(m.Book.author), path)
            books = session.scalars(statement.order_by(m.Book.id)).all()
            return [book.author and vars(book.author)["biography"] for book in books]

        same(body, gathered=1)

    def test_dictionaries_and_proxies_of_objects_from_the_workspace(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            statement = select(m.Author).join(m.Author.books).distinct().order_by(m.Author.id)
            return [
                ({kind: note.text for kind, note in each.notes_by_kind.items()}, [*each.note_texts])
                for each in session.scalars(statement.options(selectinload(m.Author.notes)))
            ]

        answer = same(body)

        assert answer.value[0][0] == {"draft": "note 1.1", "letter": "note 1.2"}


def test_relationships_as_conditions(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        author, book = session.get(m.Author, 3), session.get(m.Book, 104)
        statements = [
            select(m.Author.id).where(m.Author.books.contains(book)),
            select(m.Book.id).where(m.Book.author == author).order_by(m.Book.id),
            select(m.Book.id).where(m.Book.author != author).order_by(m.Book.id),
            select(m.Book.id).where(m.Book.author == None),  # noqa: E711
            select(m.Book.id).where(~m.Book.author.has()).order_by(m.Book.id),
            select(m.Book.id).where(m.Book.author.has(m.Author.name == "bob")).order_by(m.Book.id),
            select(m.Author.id).where(m.Author.works.any(m.Work.id > 206)).order_by(m.Author.id),
            select(m.Book.id).where(with_parent(author, m.Author.books)).order_by(m.Book.id),
            select(m.Author.id).where(with_parent(author, m.Author.pupils)),
            select(m.Note.id).where(with_parent(author, m.Author.notes)).order_by(m.Note.id),
        ]
        return [session.scalars(statement).all() for statement in statements]

    answer = same(body)

    assert answer.value[0] == [3]
