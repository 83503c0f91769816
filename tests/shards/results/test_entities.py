"""Objects are the session's own, whichever way their rows came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Select, delete, func, inspect, select, update
from sqlalchemy.orm import Session, aliased
from sqlalchemy.orm.exc import StaleDataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.results.same import Same
    from tests.shards.shop import World


def concatenated(m: Any) -> Any:
    return select(m.Book).where(m.Book.price > 2)


def merged_in_order(m: Any) -> Any:
    return select(m.Book).order_by(m.Book.published.desc().nulls_last(), m.Book.id).limit(7)


def ordered_by_the_workspace(m: Any) -> Any:
    return select(m.Book).order_by(func.lower(m.Book.title).desc(), m.Book.id).limit(5)


def joined_to_rows_elsewhere(m: Any) -> Any:
    return select(m.Book).join(m.Book.author).where(m.Author.name > "b")


def grouped_by_the_key(m: Any) -> Any:
    return select(m.Author).join(m.Author.books).group_by(m.Author.id).having(func.count() > 2)


def distinct_entities(m: Any) -> Any:
    return select(m.Author).join(m.Author.books).where(m.Book.price > 1).distinct()


def of_a_union(m: Any) -> Any:
    cheap = select(m.Book).where(m.Book.price < 1)
    dear = select(m.Book).where(m.Book.price > 3)
    return select(m.Book).from_statement(cheap.union_all(dear).order_by("id"))


def of_a_statement(m: Any) -> Any:
    newest = select(m.Book).order_by(m.Book.published.desc().nulls_last(), m.Book.id).limit(6)
    return select(m.Book).from_statement(newest)


def of_a_subquery(m: Any) -> Any:
    newest = select(m.Book).order_by(m.Book.published.desc().nulls_last(), m.Book.id).limit(6)
    return select(aliased(m.Book, newest.subquery()))


def the_dearest_of_each_author(m: Any) -> Any:
    place = func.row_number().over(
        partition_by=m.Book.author_id, order_by=(m.Book.price.desc(), m.Book.id)
    )
    placed = select(m.Book.id, place.label("place")).subquery()
    return select(m.Book).join(placed, placed.c.id == m.Book.id).where(placed.c.place == 1)


WAYS: list[Callable[[Any], Any]] = [
    concatenated,
    merged_in_order,
    ordered_by_the_workspace,
    joined_to_rows_elsewhere,
    grouped_by_the_key,
    distinct_entities,
    of_a_union,
    of_a_statement,
    of_a_subquery,
    the_dearest_of_each_author,
]

in_every_way = pytest.mark.parametrize("make", WAYS, ids=lambda way: way.__name__)


def objects_of(session: Session, statement: Any) -> list[Any]:
    """All objects, in the order of the statement or else by their keys."""
    found = list(session.scalars(statement).unique())
    is_ordered = isinstance(statement, Select) and statement._order_by_clauses
    return found if is_ordered else sorted(found, key=lambda each: each.id)


def test_they_come_in_these_ways(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        return [len(objects_of(session, make(m))) for make in WAYS]

    answer = same(body)

    assert answer.merges[:3] == ["Concatenate", "OrderedMerge", "ForeignOrder"]
    assert "Gather" in answer.merges[3:]
    assert "" not in answer.merges, "none of them is answered by one shard"


def parts_of(instance: Any, m: Any) -> list[Any]:
    """The objects beside it."""
    return list(instance.chapters if isinstance(instance, m.Book) else instance.notes)


@in_every_way
def test_they_are_persistent_and_the_same_as_those_that_were_there(
    same: Same, make: Callable[[Any], Any]
) -> None:
    def body(session: Session, m: Any) -> Any:
        found = objects_of(session, make(m))
        again = [session.get(type(each), each.id) for each in found]
        states = {inspect(each).persistent for each in found}
        keys = [inspect(each).identity_key[1:] for each in found]
        return [a is b for a, b in zip(found, again, strict=True)], states, keys

    answer = same(body)

    identical, states, _ = answer.value
    assert identical
    assert all(identical)
    assert states == {True}
    assert len(answer.steps) == 1, "they are in the identity map"


@in_every_way
def test_lazy_loads_ask_where_the_rows_are(same: Same, make: Callable[[Any], Any]) -> None:
    def body(session: Session, m: Any) -> Any:
        found = objects_of(session, make(m))
        return [(each.id, [part.id for part in parts_of(each, m)]) for each in found]

    answer = same(body)

    assert all(parts for _, parts in answer.value)
    assert all(len(step.shards) == 1 for step in answer.steps[1:])


@in_every_way
def test_changes_go_to_the_shard_of_each_object(same: Same, make: Callable[[Any], Any]) -> None:
    def body(session: Session, m: Any) -> Any:
        found = objects_of(session, make(m))
        for each in found:
            if isinstance(each, m.Book):
                each.title += "!"
            else:
                each.biography = f"{each.id}!"
        session.flush()
        session.expire_all()
        return [(each.id, getattr(each, "title", None) or each.biography) for each in found]

    answer = same(body)

    assert all(text.endswith("!") for _, text in answer.value)
    writes = answer.shards_of("UPDATE")
    assert writes
    refreshes = [step for step in answer.steps if step.sql.startswith("SELECT")][1:]
    assert len(refreshes) >= len(answer.value)
    assert all(len(step.shards) == 1 for step in refreshes)


@in_every_way
def test_one_object_is_changed_refreshed_and_deleted_on_its_shard(
    same: Same, four_shards: World, make: Callable[[Any], Any]
) -> None:
    def body(session: Session, m: Any) -> Any:
        first = objects_of(session, make(m))[0]
        name, key = type(first).__name__, first.id
        attribute = "title" if isinstance(first, m.Book) else "biography"
        setattr(first, attribute, "changed")
        session.flush()
        session.refresh(first)
        read = getattr(first, attribute)
        session.delete(first)
        session.flush()
        return name, key, read, session.get(type(first), key)

    answer = same(body)

    name, key, *read = answer.value
    assert read == ["changed", None]
    assert four_shards.cluster is not None
    home = four_shards.cluster.shard_for(getattr(four_shards.models, name), key)
    assert {step.shards for step in answer.steps[1:]} == {(home,)}


def test_a_row_that_another_deleted_is_noticed(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        book = objects_of(session, joined_to_rows_elsewhere(m))[0]
        session.execute(
            delete(m.Chapter).where(m.Chapter.book_id == book.id),
            execution_options={"synchronize_session": False},
        )
        session.execute(
            delete(m.Book).where(m.Book.id == book.id),
            execution_options={"synchronize_session": False},
        )
        book.title = "too late"
        with pytest.raises(StaleDataError) as raised:
            session.flush()
        return str(raised.value).partition(";")[0]

    same(body, gathered=1)


def test_what_was_not_flushed_is_flushed_before_the_rows_are_brought_together(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        author = session.get(m.Author, 3)
        author.name = "zzz"
        session.add(m.Book(id=999, title="added", author_id=3, price=1))
        found = session.execute(
            select(m.Author, m.Book).join(m.Author.books).where(m.Author.name == "zzz")
        ).all()
        return sorted((author is a, b.title) for a, b in found)

    answer = same(body, gathered=1)

    assert (True, "added") in answer.value


def test_loaded_values_are_kept_unless_they_are_to_be_read_anew(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        statement = joined_to_rows_elsewhere(m).order_by(m.Book.id)
        book = session.scalars(statement).first()
        session.execute(
            update(m.Book).where(m.Book.id == book.id).values(title="beside"),
            execution_options={"synchronize_session": False},
        )
        session.scalars(statement).all()
        kept = book.title
        session.scalars(statement.execution_options(populate_existing=True)).all()
        return kept, book.title

    answer = same(body, gathered=3)

    kept, read = answer.value
    assert kept.startswith("book ")
    assert read == "beside"


def test_pairs_of_entities_of_two_places(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        rows = session.execute(
            select(m.Author, m.Book)
            .join(m.Book, m.Book.author_id == m.Author.id, isouter=True)
            .order_by(m.Author.id, m.Book.id)
        ).all()
        for author, book in rows:
            if book is not None:
                book.title = author.name
        session.flush()
        titles = select(m.Book.title, m.Book.id).order_by(m.Book.id)
        return [(a.id, b and b.id) for a, b in rows], session.execute(titles).all()

    answer = same(body, gathered=1)

    assert (8, None) in answer.value[0]


def test_the_same_table_twice(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        mentor = aliased(m.Author, name="mentor")
        rows = session.execute(
            select(m.Author, mentor)
            .outerjoin(m.Author.mentor.of_type(mentor))
            .order_by(m.Author.id)
        ).all()
        return [(row.Author.name, row.mentor and row.mentor.name) for row in rows], [
            row.mentor is None or row.mentor in session for row in rows
        ]

    same(body, gathered=1)


def test_another_session_goes_on_with_them(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        found = objects_of(session, joined_to_rows_elsewhere(m))
        session.expunge_all()
        merged = [session.merge(each, load=each.id % 2 == 0) for each in found]
        return [(each.id, each.title, each in session) for each in merged]

    same(body)


def test_identity_tokens_are_the_applications_own(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        statement = joined_to_rows_elsewhere(m).order_by(m.Book.id).limit(2)
        named = statement.execution_options(identity_token="copy")
        originals = session.scalars(statement).all()
        copies = session.scalars(named).all()
        return [
            (a.id == b.id, a is b, inspect(b).identity_key[2])
            for a, b in zip(originals, copies, strict=True)
        ]

    same(body, gathered=2)


def test_entities_with_a_count_of_others(same: Same) -> None:
    def body(session: Session, m: Any) -> Any:
        counted = (
            select(m.Author, func.count(m.Book.id).label("books"))
            .outerjoin(m.Author.books)
            .group_by(m.Author.id)
            .order_by(func.count(m.Book.id).desc(), m.Author.id)
        )
        return [(row.Author.name, row.books) for row in session.execute(counted)]

    same(body)
