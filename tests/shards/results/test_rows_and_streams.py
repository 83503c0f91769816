"""Rows by name, place and key, `Query`, and results that are read bit by bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    LABEL_STYLE_DISAMBIGUATE_ONLY,
    LABEL_STYLE_NONE,
    LABEL_STYLE_TABLENAME_PLUS_COL,
    func,
    select,
)
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.orm import joinedload, selectinload

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tests.shards.results.same import Same


def pairs(m: Any) -> Any:
    """Of two places: by the workspace."""
    return (
        select(m.Author.name.label("who"), m.Book.id, m.Book.price)
        .join(m.Author.books)
        .order_by(m.Book.id)
    )


class TestRows:
    def test_by_name_place_column_and_key(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            first = session.execute(pairs(m)).first()
            assert first is not None
            mapping = first._mapping
            by_column = (mapping[m.Book.id], mapping[m.Book.price], mapping["who"])
            return first.who, first[1], first[-1], by_column, first._fields, first._asdict()

        same(body, gathered=1)

    def test_columns_of_one_name(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            statement = select(m.Author.id, m.Book.id, m.Author.id, m.Book.title.label("id"))
            result = session.execute(statement.join(m.Author.books).order_by(m.Book.id))
            first = result.first()
            assert first is not None
            return tuple(first), list(result.keys()), first._mapping[m.Book.id]

        same(body, gathered=1)

    @pytest.mark.parametrize(
        "style",
        [LABEL_STYLE_NONE, LABEL_STYLE_TABLENAME_PLUS_COL, LABEL_STYLE_DISAMBIGUATE_ONLY],
        ids=lambda style: style.name,
    )
    def test_label_styles(self, same: Same, style: Any) -> None:
        def body(session: Session, m: Any) -> Any:
            both = select(m.Author.id, m.Book.id, m.Author.name).join(m.Author.books)
            inner = both.set_label_style(style).order_by(m.Book.id)
            result = session.execute(inner)
            sub = session.execute(select(func.count()).select_from(inner.subquery())).scalar()
            return list(result.keys()), [tuple(each) for each in result], sub

        same(body)

    @pytest.mark.filterwarnings("ignore:The Result.tuples")
    def test_shapes(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            def run() -> Any:
                return session.execute(pairs(m))

            frozen = run().freeze()
            return (
                [dict(each) for each in run().mappings()][:2],
                run().columns("price", 0).all()[:2],
                [len(part) for part in run().partitions(4)],
                run().scalars("id").all(),
                [tuple(each) for each in run().tuples()][:2],
                len(run().fetchmany(3)),
                [tuple(each) for each in frozen()] == [tuple(each) for each in frozen()],
                run().unique(lambda each: each.who).all()[-1].who,
                list(run().keys()),
            )

        same(body, gathered=9)

    def test_how_many(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            one = pairs(m).where(m.Book.id == 105)
            none = pairs(m).where(m.Book.id == 1)
            with pytest.raises(MultipleResultsFound):
                session.execute(pairs(m)).one()
            with pytest.raises(NoResultFound):
                session.execute(none).scalar_one()
            return (
                tuple(session.execute(one).one()),
                session.execute(none).one_or_none(),
                session.execute(one).scalar_one(),
                session.scalar(none),
                session.connection().execute(pairs(m)).rowcount,
            )

        same(body)

    def test_merged_results(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            first, second = (session.execute(pairs(m).limit(n)) for n in (2, 3))
            return [tuple(each) for each in first.merge(second)]

        same(body, gathered=2)


class TestQuery:
    def test_of_joined_entities(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            query = session.query(m.Book).join(m.Book.author).filter(m.Author.id > 2)
            ordered = query.order_by(m.Author.name, m.Book.id)
            return (
                query.count(),
                session.query(query.exists()).scalar(),
                [book.id for book in ordered],
                [book.id for book in ordered[2:5]],
                ordered[1].id,
                ordered.first().id,
                query.filter(m.Book.id == 104).one().id,
                query.filter(m.Book.id == 1).one_or_none(),
                query.filter(m.Book.id == 1).first(),
                query.distinct().count(),
                query.with_entities(func.max(m.Book.price)).scalar(),
                ordered.enable_eagerloads(False).limit(1).populate_existing().one().id,
            )

        same(body)

    def test_of_pairs_groups_and_unions(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            authors = session.query(m.Author)
            few = authors.filter(m.Author.id < 3).union(authors.filter(m.Author.id > 6))
            groups = (
                session.query(m.Author.country_code, func.count(m.Book.id))
                .select_from(m.Book)
                .join(m.Book.author)
                .group_by(m.Author.country_code)
                .having(func.count(m.Book.id) > 1)
            )
            loaded = few.options(joinedload(m.Author.books)).order_by(m.Author.id)
            return (
                sorted(author.id for author in few),
                sorted(map(tuple, groups)),
                [len(author.books) for author in loaded.limit(3)],
                session.query(m.Author)
                .from_statement(select(m.Author).join(m.Author.books).order_by(m.Book.id))
                .first()
                .id,
            )

        same(body)


class TestStreams:
    @pytest.mark.parametrize("size", [1, 3, 100])
    def test_entities_with_what_belongs_to_them(self, same: Same, size: int) -> None:
        def body(session: Session, m: Any) -> Any:
            ordered = select(m.Author).order_by(m.Author.id)
            joined = select(m.Book).join(m.Book.author).order_by(m.Author.name, m.Book.id)
            below = selectinload(m.Book.author).selectinload(m.Author.notes)
            found = []
            for statement in (
                ordered.options(selectinload(m.Author.books)),
                joined.options(below),
            ):
                stream = session.scalars(statement.execution_options(yield_per=size))
                for each in stream:
                    books = getattr(each, "books", None)
                    inner = each.author.notes if books is None else books
                    found.append((each.id, [part.id for part in inner]))
            return found

        same(body)

    def test_partitions_of_the_workspaces_rows(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            result = session.execute(pairs(m), execution_options={"yield_per": 4})
            return [[each.id for each in part] for part in result.partitions()]

        same(body, gathered=1)

    def test_a_stream_that_is_left_and_another(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            options = {"stream_results": True, "max_row_buffer": 2}
            left = session.execute(pairs(m), execution_options=options)
            first = tuple(left.fetchone())
            whole = [each.id for each in session.execute(pairs(m), execution_options=options)]
            left.close()
            return first, whole, session.scalar(select(func.count(m.Book.id)))

        same(body, gathered=2)

    def test_two_streams_read_in_turn(self, same: Same) -> None:
        def body(session: Session, m: Any) -> Any:
            options = {"yield_per": 2}
            numbers = pairs(m).with_only_columns(m.Book.id, maintain_column_froms=True)
            ordered = select(m.Author.id).order_by(m.Author.id)
            books = session.scalars(numbers, execution_options=options)
            authors = session.scalars(ordered, execution_options=options)
            found = [(next(books), author) for author in authors]
            books.close()
            return found

        same(body)
