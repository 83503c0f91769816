"""The time in UPDATE and DELETE over several shards: one moment, that of the transaction."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import DateTime, Interval, bindparam, delete, func, select, text, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement

from sqlalchemy_shards import ShardedSession, ShardKeyMixin, create_cluster
from sqlalchemy_shards.errors import ScatterNotAllowed, UnsupportedStatement
from tests.shards.shop import enlisted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy_shards import Cluster
    from tests.shards.shop import World

EVERYWHERE = {"scatter": "allow"}
TIMES = "SELECT DISTINCT created FROM customers"


class Base(DeclarativeBase):
    pass


class Document(ShardKeyMixin, Base):
    """Says by itself when it was changed, as models of applications do."""

    __tablename__ = "documents"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str]
    changed: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), onupdate=func.now())


class Stamp(ShardKeyMixin, Base):
    """Says when it was changed by a clock that goes on within a transaction."""

    __tablename__ = "stamps"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str]
    changed: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), onupdate=func.statement_timestamp()
    )


@pytest.fixture
def documents(clean_shards: dict[str, str]) -> Iterator[Cluster]:
    """Twelve documents on four shards."""
    cluster = create_cluster(clean_shards)
    cluster.create_all(Base.metadata)
    with ShardedSession(cluster) as session, session.begin():
        session.add_all(Document(id=number, title="old") for number in range(12))
    yield cluster
    cluster.dispose()


def times(world: World) -> set[Any]:
    return {time for (time,) in world.rows(TIMES)}


def test_all_rows_of_all_statements_have_one_moment(shop: World) -> None:
    m = shop.models
    with shop.session() as session, session.begin():
        asked = select(func.now(), m.Customer.id).where(m.Customer.id.in_([1, 2, 3])).distinct()
        first = session.execute(asked, execution_options=EVERYWHERE).all()
        for half in (m.Customer.id <= 6, m.Customer.id > 6):
            changed = session.execute(
                update(m.Customer).where(half).values(created=func.now()),
                execution_options=EVERYWHERE,
            )
            assert changed.rowcount == 6

    assert times(shop) == {moment for moment, _ in first}


def test_another_transaction_has_another(shop: World) -> None:
    m = shop.models
    found = []
    for _ in range(2):
        with shop.session() as session, session.begin():
            session.execute(
                update(m.Customer).values(created=func.current_timestamp()),
                execution_options=EVERYWHERE,
            )
        found.append(times(shop))

    assert [len(each) for each in found] == [1, 1]
    assert found[0] != found[1]


def test_lists_of_keys_are_written_where_they_belong(shop: World) -> None:
    m = shop.models
    before = shop.rows("SELECT id, created FROM customers WHERE id > 5")
    statement = (
        update(m.Customer)
        .where(m.Customer.id.in_([1, 2, 3, 4, 5]), m.Customer.created <= func.now())
        .values(created=func.now())
        .returning(m.Customer.id, func.now())
    )
    with shop.session() as session, session.begin():
        rows = session.execute(statement).all()

    assert sorted(number for number, _ in rows) == [1, 2, 3, 4, 5]
    assert len({moment for _, moment in rows}) == 1
    assert shop.rows("SELECT id, created FROM customers WHERE id > 5") == before


DELETES: dict[str, Callable[[Any], Any]] = {
    "older": lambda m: m.Customer.created < func.now() - timedelta(days=1),
    "not older": lambda m: m.Customer.created >= func.localtimestamp() - timedelta(days=1),
    "of today": lambda m: func.date(m.Customer.created) == func.current_date(),
}


@pytest.mark.parametrize("name", DELETES)
def test_rows_are_deleted_by_their_age(plain: World, four_shards: World, name: str) -> None:
    found = []
    for world in (plain, four_shards):
        world.fill()
        m = world.models
        with world.engine.begin() as connection:
            for model in (m.Label, m.Order):
                connection.execute(delete(model), execution_options={"shard": "*"})
            connection.execute(
                update(m.Customer)
                .where(m.Customer.id.in_([2, 5, 7, 11]))
                .values(created=func.now() - timedelta(days=3)),
                execution_options=EVERYWHERE,
            )
            connection.execute(
                delete(m.Customer).where(DELETES[name](m)), execution_options=EVERYWHERE
            )
        found.append(world.rows("SELECT id FROM customers"))

    assert found[0] == found[1]
    assert 0 < len(found[0]) < 12


def test_parameter_sets_of_which_one_goes_to_several_shards_are_refused(
    spread_shop: World,
) -> None:
    m = spread_shop.models
    statement = (
        update(m.Customer).where(m.Customer.id >= bindparam("least")).values(created=func.now())
    )
    with (
        spread_shop.engine.begin() as connection,
        pytest.raises(UnsupportedStatement, match=r"the function now\(\)"),
    ):
        connection.execute(statement, [{"least": 1}, {"least": 8}], execution_options=EVERYWHERE)


class TestModelsThatSayWhenTheyWereChanged:
    def test_a_change_of_many(self, documents: Cluster) -> None:
        with ShardedSession(documents) as session:
            loaded = session.scalars(select(Document), execution_options=EVERYWHERE).all()
            session.execute(update(Document).values(title="new"), execution_options=EVERYWHERE)
            session.commit()

            assert {each.title for each in loaded} == {"new"}
            assert len({each.changed for each in loaded}) == 1
            assert loaded[0].changed is not None

    def test_a_change_of_those_of_a_condition(self, documents: Cluster) -> None:
        with ShardedSession(documents) as session:
            session.execute(
                update(Document)
                .where(Document.title == "old", Document.id > 3)
                .values(title="new"),
                execution_options=EVERYWHERE,
            )
            session.commit()
            found = session.execute(
                select(Document.changed, func.count()).group_by(Document.changed),
                execution_options=EVERYWHERE,
            ).all()

        assert sorted(count for _, count in found) == [4, 8]

    def test_a_flush_of_changes_on_all_shards(self, documents: Cluster) -> None:
        with ShardedSession(documents) as session:
            for each in session.scalars(select(Document), execution_options=EVERYWHERE):
                each.title = "new"
            session.commit()
            found = session.scalars(select(Document), execution_options=EVERYWHERE).all()

            assert {each.title for each in found} == {"new"}
            assert None not in {each.changed for each in found}

    def test_changes_by_primary_key(self, documents: Cluster) -> None:
        with ShardedSession(documents) as session:
            session.execute(
                update(Document), [{"id": number, "title": "new"} for number in range(12)]
            )
            session.commit()
            found = session.scalars(select(Document), execution_options=EVERYWHERE).all()

            assert {each.title for each in found} == {"new"}
            assert None not in {each.changed for each in found}

    def test_another_clock_is_refused_over_several_shards_alone(self, documents: Cluster) -> None:
        with ShardedSession(documents) as session:
            session.add_all(Stamp(id=number, text="old") for number in range(4))
            session.commit()
            session.execute(update(Stamp).where(Stamp.id == 1).values(text="new"))
            session.get_one(Stamp, 2).text = "new"
            session.get_one(Stamp, 3).text = "new"
            session.commit()
            with pytest.raises(UnsupportedStatement, match="the function statement_timestamp"):
                session.execute(update(Stamp).values(text="x"), execution_options=EVERYWHERE)
            session.execute(
                update(Stamp).values(text="newer", changed=None), execution_options=EVERYWHERE
            )

    def test_it_is_told_how_it_is_done(self, documents: Cluster) -> None:
        told = str(documents.explain(update(Document).values(title="new"), shard="*"))

        assert "shards_now" in told


def test_the_time_is_asked_of_a_shard_that_takes_part(documents: Cluster) -> None:
    keys = [number for number in range(12) if documents.shard_for(Document, number) != "s0"]
    with ShardedSession(documents) as session:
        session.execute(update(Document).where(Document.id.in_(keys)).values(title="new"))

        assert enlisted(session) == {"s1", "s2", "s3"}


class OwnNow(FunctionElement[datetime]):
    """Is called like the time of the transaction, and is another."""

    name = "now"
    type = DateTime(timezone=True)
    inherit_cache = True


@compiles(OwnNow)
def _write_own_now(*_: Any, **__: Any) -> str:
    return "clock_timestamp()"


NOT_THE_TIME: dict[str, Callable[[Any], Any]] = {
    "a namesake in a schema": lambda m: m.Customer.created < func.away.now(),
    "a construct that writes another function": lambda m: m.Customer.created < OwnNow(),
    "a parameter of that name": lambda m: (
        m.Customer.created < func.now() - bindparam("shards_now", timedelta(1), Interval())
    ),
    "raw text": lambda m: m.Customer.created < text("now()"),
}


@pytest.mark.parametrize("name", NOT_THE_TIME)
def test_what_is_only_called_like_the_time_is_refused(spread_shop: World, name: str) -> None:
    m = spread_shop.models
    statement = update(m.Customer).where(NOT_THE_TIME[name](m)).values(notes="x")
    with spread_shop.engine.begin() as connection, pytest.raises(UnsupportedStatement):
        connection.execute(statement, execution_options=EVERYWHERE)


def test_scatter_must_be_allowed_as_ever(four_shards: World) -> None:
    m = four_shards.models
    with four_shards.session() as session, pytest.raises(ScatterNotAllowed):
        session.execute(update(m.Customer).values(created=func.now()))


def test_copies_of_a_reference_row_are_not_given_the_time(four_shards: World) -> None:
    m = four_shards.models
    statement = update(m.Region).where(m.Region.name < func.now().cast(m.Region.name.type))
    with (
        four_shards.session() as session,
        pytest.raises(UnsupportedStatement, match=r"the function now\(\)"),
    ):
        session.execute(statement.values(name="x"))
