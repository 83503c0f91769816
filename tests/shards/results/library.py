"""The library of these tests: authors and books of theirs that lie on other shards than they do.

Co-located are authors with their notes and prizes, books with their chapters, and works with their
subclasses' rows. All else meets in the workspace only.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Date,
    ForeignKey,
    Numeric,
    String,
    func,
    select,
    types,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.associationproxy import association_proxy
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    attribute_keyed_dict,
    column_property,
    deferred,
    foreign,
    mapped_column,
    query_expression,
    relationship,
    remote,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tests.shards.mapping.worlds import Saying

AUTHORS = range(1, 9)
BOOKS = range(101, 117)


class Mood(types.TypeDecorator[str]):
    """Kept as another text than it is in Python: it must be decorated once."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else f"<{value}>"

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        if value is None:
            return None
        assert value[0] + value[-1] == "<>"
        return value[1:-1]


def make_models(say: Saying) -> Any:
    class Base(DeclarativeBase):
        pass

    class Country(say.reference, Base):  # type: ignore[name-defined]
        __tablename__ = "countries"
        code: Mapped[str] = mapped_column(String(2), primary_key=True)
        name: Mapped[str]

    class Publisher(say.global_, Base):  # type: ignore[name-defined]
        __tablename__ = "publishers"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    class Author(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "authors"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        name: Mapped[str]
        country_code: Mapped[str] = mapped_column(ForeignKey("countries.code"))
        mentor_id: Mapped[int | None] = mapped_column(BigInteger)
        mood: Mapped[str | None] = mapped_column(Mood)
        biography: Mapped[str | None] = deferred(mapped_column(String))
        shelf: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
        rank: Mapped[int | None] = query_expression()
        country: Mapped[Any] = relationship(Country)
        notes: Mapped[list[Any]] = relationship(
            "Note", back_populates="author", order_by="Note.id", cascade="all, delete-orphan"
        )
        notes_by_kind: Mapped[dict[str, Any]] = relationship(
            "Note",
            collection_class=attribute_keyed_dict("kind"),
            viewonly=True,
            order_by="Note.id",
        )
        note_texts = association_proxy("notes", "text")

        @hybrid_property
        def initial(self) -> str:
            return self.name[:1]

        @initial.inplace.expression
        @classmethod
        def _initial(cls) -> Any:
            return func.substr(cls.name, 1, 1)

    class Note(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "notes"
        __shard_key__ = "author_id"
        author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"), primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        kind: Mapped[str]
        text: Mapped[str]
        author: Mapped[Any] = relationship(Author, back_populates="notes")

    class Book(say.sharded, Base):  # type: ignore[name-defined]
        __tablename__ = "books"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        title: Mapped[str]
        author_id: Mapped[int | None] = mapped_column(BigInteger)
        publisher_id: Mapped[int | None]
        price: Mapped[Decimal] = mapped_column(Numeric(8, 2))
        published: Mapped[date | None] = mapped_column(Date)
        tags: Mapped[list[str] | None] = mapped_column(ARRAY(String))
        twice = column_property(price * 2)
        author: Mapped[Any] = relationship(
            Author,
            primaryjoin=lambda: foreign(Book.author_id) == Author.id,
            viewonly=True,
        )
        publisher: Mapped[Any] = relationship(
            Publisher,
            primaryjoin=lambda: foreign(Book.publisher_id) == Publisher.id,
            viewonly=True,
        )
        chapters: Mapped[list[Any]] = relationship(
            "Chapter", order_by="Chapter.id", cascade="all, delete-orphan", back_populates="book"
        )
        chapters_written: Mapped[list[Any]] = relationship(
            "Chapter", order_by="Chapter.id", lazy="write_only", viewonly=True
        )

    class Chapter(say.sharded, Base):  # type: ignore[name-defined]
        """A tree within a book."""

        __tablename__ = "chapters"
        __shard_key__ = "book_id"
        book_id: Mapped[int] = mapped_column(ForeignKey("books.id"), primary_key=True)
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        parent_id: Mapped[int | None] = mapped_column(BigInteger)
        pages: Mapped[int]
        book: Mapped[Any] = relationship(Book, back_populates="chapters")

    class Work(say.sharded, Base):  # type: ignore[name-defined]
        """Joined tables, and a class in its base's table."""

        __tablename__ = "works"
        __shard_key__ = "id"
        id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        kind: Mapped[str]
        author_id: Mapped[int] = mapped_column(BigInteger)
        title: Mapped[str]
        author: Mapped[Any] = relationship(
            Author, primaryjoin=lambda: foreign(Work.author_id) == Author.id, viewonly=True
        )
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "work"}

    class Film(Work):
        __tablename__ = "films"
        id: Mapped[int] = mapped_column(ForeignKey("works.id"), primary_key=True)
        minutes: Mapped[int]
        __mapper_args__ = {"polymorphic_identity": "film"}

    class Play(Work):
        __tablename__ = "plays"
        id: Mapped[int] = mapped_column(ForeignKey("works.id"), primary_key=True)
        acts: Mapped[int]
        __mapper_args__ = {"polymorphic_identity": "play", "polymorphic_load": "selectin"}

    class Sketch(Work):
        jokes: Mapped[int | None]
        __mapper_args__ = {"polymorphic_identity": "sketch"}

    class Prize(AbstractConcreteBase, Base):
        """Each class in a table of its own; `Prize` is the union of both."""

        strict_attrs = True

    class Medal(say.sharded, Prize):  # type: ignore[name-defined]
        __tablename__ = "medals"
        __shard_key__ = "author_id"
        author_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        year: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        metal: Mapped[str]
        __mapper_args__ = {"polymorphic_identity": "medal", "concrete": True}

    class Grant(say.sharded, Prize):  # type: ignore[name-defined]
        __tablename__ = "grants"
        __shard_key__ = "author_id"
        author_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        year: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        amount: Mapped[int]
        __mapper_args__ = {"polymorphic_identity": "grant", "concrete": True}

    Author.books = relationship(
        Book,
        primaryjoin=Author.id == foreign(Book.author_id),
        order_by=Book.id,
        viewonly=True,
    )
    Author.mentor = relationship(
        Author, primaryjoin=foreign(Author.mentor_id) == remote(Author.id), viewonly=True
    )
    Author.pupils = relationship(
        Author,
        primaryjoin=Author.id == remote(foreign(Author.mentor_id)),
        viewonly=True,
        order_by=Author.id,
    )
    Author.works = relationship(
        Work, primaryjoin=Author.id == foreign(Work.author_id), order_by=Work.id, viewonly=True
    )
    Author.book_count = column_property(
        select(func.count(Book.id))
        .where(Book.author_id == Author.id)
        .correlate_except(Book)
        .scalar_subquery(),
        deferred=True,
    )
    Author.note_count = column_property(
        select(func.count(Note.id))
        .where(Note.author_id == Author.id)
        .correlate_except(Note)
        .scalar_subquery(),
        deferred=True,
    )
    Base.registry.configure()
    classes = (Country, Publisher, Author, Note, Book, Chapter, Work, Film, Play, Sketch)
    more = (Prize, Medal, Grant)
    return SimpleNamespace(
        metadata=Base.metadata,
        Base=Base,
        **{each.__name__: each for each in (*classes, *more)},
    )


def fill(session: Session, m: Any) -> None:
    """Eight authors on all shards, sixteen books of theirs elsewhere, and what belongs to them."""
    session.add_all([m.Country(code=code, name=f"Land {code}") for code in ("at", "de", "xx")])
    session.add_all([m.Publisher(id=number, name=f"House {number}") for number in (1, 2)])
    session.flush()
    session.add_all([_author(m, number) for number in AUTHORS])
    session.add_all([_book(m, number) for number in BOOKS])
    kinds = [m.Film, m.Play, m.Sketch, m.Work]
    own = [{"minutes": 90}, {"acts": 3}, {"jokes": 7}, {}]
    session.add_all(
        kinds[number % 4](
            id=number, author_id=(number * 3) % 8 + 1, title=f"work {number}", **own[number % 4]
        )
        for number in range(201, 213)
    )
    session.add_all([m.Medal(author_id=n, year=2000 + n, metal="gold") for n in AUTHORS[:5]])
    session.add_all([m.Grant(author_id=n, year=2000, amount=n * 100) for n in AUTHORS[3:]])


def _author(m: Any, number: int) -> Any:
    return m.Author(
        id=number,
        name=["Zoe", "adam", "Émile", "eve", "Bob", "bob", "Ana", "Öz"][number - 1],
        country_code=["at", "de"][number % 2],
        mentor_id=number - 2 if number > 2 else None,
        mood="glad" if number % 3 else None,
        biography=f"born in {1900 + number}",
        shelf={"row": number % 3, "signed": [number]},
        notes=[
            m.Note(id=each, kind=["draft", "letter"][each - 1], text=f"note {number}.{each}")
            for each in (1, 2)
        ],
    )


def _book(m: Any, number: int) -> Any:
    return m.Book(
        id=number,
        title=f"book {number}",
        author_id=None if number == BOOKS[-1] else number * 5 % 7 + 1,
        publisher_id=number % 3 or None,
        price=Decimal(number % 5) + Decimal("0.50"),
        published=date(2000 + number % 4, 1, number % 28 + 1) if number % 6 else None,
        tags=["new", f"t{number % 2}"] if number % 4 else None,
        chapters=[
            m.Chapter(id=each, parent_id=each // 2 or None, pages=number % 10 + each)
            for each in (1, 2, 3)
        ],
    )
