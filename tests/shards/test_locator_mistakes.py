"""What the session knows of an object's whereabouts is a hint: mistaken, it costs a second look."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import case, func, select, update
from sqlalchemy.orm.exc import StaleDataError

from sqlalchemy_shards import ShardedSession, create_cluster
from sqlalchemy_shards.errors import ScatterNotAllowed
from tests.observing import told
from tests.shards.shop import CUSTOMERS, World, enlisted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session


@pytest.fixture
def spread(four_shards: World) -> World:
    """One document per owner, on four shards."""
    m = four_shards.models
    with four_shards.session() as session, session.begin():
        session.add_all(
            m.Document(id=key_of(n), owner_id=n, title=f"title {n}", body=f"body {n}")
            for n in CUSTOMERS
        )
    return four_shards


def key_of(number: int) -> uuid.UUID:
    return uuid.UUID(int=number)


def home(world: World, number: int) -> str:
    assert world.cluster is not None
    return world.cluster.shard_for(world.models.Document, number)


def give_away(world: World, number: int) -> int:
    """Another session gives an owner's document to an owner on another shard; who that is."""
    m = world.models
    other = next(n for n in range(60, 99) if home(world, n) != home(world, number))
    with world.session() as session, session.begin():
        session.delete(session.get(m.Document, key_of(number)))
        session.flush()
        session.add(m.Document(id=key_of(number), owner_id=other, title="given away"))
    return other


class TestRowsThatHaveMoved:
    def test_a_refresh_finds_the_row_where_it_is(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            other = give_away(spread, 5)
            session.refresh(document)
            title = document.title
            session.commit()
            document.title = "changed"
            session.flush()
            used = enlisted(session)

            assert (document.owner_id, title) == (other, "given away")
            assert used == {home(spread, other)}

    def test_an_update_reaches_the_row_where_it_is(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            session.refresh(document)
            other = give_away(spread, 5)
            document.title = "changed"
            session.commit()

        assert spread.rows("SELECT owner_id FROM documents WHERE title = 'changed'") == [(other,)]

    def test_many_updates_reach_their_rows_once(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            found = session.scalars(select(m.Document).order_by(m.Document.owner_id)).all()
            other = give_away(spread, 5)
            for document in found:
                document.title = "changed"
            session.commit()

        owners = [(n,) for n in CUSTOMERS if n != 5] + [(other,)]
        assert spread.rows("SELECT owner_id FROM documents WHERE title = 'changed'") == owners

    def test_deletes_reach_their_rows(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            for document in session.scalars(select(m.Document)).all():
                session.delete(document)
            give_away(spread, 5)
            session.commit()

        assert spread.rows("SELECT * FROM documents") == []

    def test_a_delete_of_one_reaches_its_row(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            session.refresh(document)
            give_away(spread, 5)
            session.delete(document)
            session.commit()

        assert len(spread.rows("SELECT * FROM documents")) == len(CUSTOMERS) - 1

    def test_an_aggregate_does_not_believe_a_hint(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            give_away(spread, 5)
            count = session.scalar(select(func.count()).where(m.Document.id == key_of(5)))

        assert document is not None
        assert count == 1

    def test_a_server_side_cursor_does_not_believe_a_hint(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            other = give_away(spread, 5)
            query = select(m.Document.owner_id).where(m.Document.id == key_of(5))
            found = session.scalars(query.execution_options(yield_per=10)).all()

        assert document is not None
        assert found == [other]


class TestRowsThatAreGone:
    def test_a_change_of_no_row_is_an_error(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            document = m.Document(id=key_of(5), owner_id=5, title="new")
            session.add(document)
            session.commit()
            session.refresh(document)
            with world.session() as other, other.begin():
                other.delete(other.get(m.Document, key_of(5)))
            document.title = "changed"
            with pytest.raises(StaleDataError):
                session.flush()

    def test_many_changes_of_which_one_finds_no_row_are_an_error(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            found = [m.Document(id=key_of(n), owner_id=n, title="new") for n in CUSTOMERS]
            session.add_all(found)
            session.commit()
            for document in found:
                session.refresh(document)
            with world.session() as other, other.begin():
                other.delete(other.get(m.Document, key_of(5)))
            for document in found:
                document.title = "changed"
            with pytest.raises(StaleDataError):
                session.flush()


class TestMovedBuckets:
    def test_an_object_is_looked_for_where_its_bucket_is_now(self, spread: World) -> None:
        """The locator gives a key, which a new shard map places anew."""
        m: Any = spread.models
        cluster: Any = spread.cluster
        with ShardedSession(cluster) as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            target = next(name for name in spread.urls if name != home(spread, 5))
            bucket = cluster.bucket_for(m.Document, 5)
            moved = cluster.shard_map.moved("default", bucket, target)
            cluster.territory = replace(cluster.territory, shard_map=moved)
            explained = session.explain(
                update(m.Document).where(m.Document.id == key_of(5)).values(title="changed")
            )

        assert document is not None
        assert explained.shards == (target,)


class TestScatterRefused:
    """Attributes can be read all the same."""

    @pytest.fixture
    def session(self, spread: World) -> Iterator[Session]:
        cluster = create_cluster(spread.urls, name="shop", scatter="refuse")
        with ShardedSession(cluster) as session:
            yield session
        cluster.dispose()

    def test_refreshes_and_deferred_loads(self, spread: World, session: Session) -> None:
        m = spread.models
        documents = session.scalars(select(m.Document).where(m.Document.owner_id == 5)).all()
        session.expire_all()

        assert [(each.title, each.body) for each in documents] == [("title 5", "body 5")]

    def test_objects_named_by_their_primary_key(self, spread: World, session: Session) -> None:
        found = session.get(spread.models.Document, key_of(5))

        assert found is not None
        assert found.owner_id == 5

    def test_a_statement_without_a_key_is_refused(self, spread: World, session: Session) -> None:
        with pytest.raises(ScatterNotAllowed):
            session.scalars(select(spread.models.Document)).all()


def test_writes_of_the_unit_of_work_are_sent_to_one_shard_each(spread: World) -> None:
    m = spread.models
    sent: list[tuple[str, ...]] = []
    with spread.session() as session:
        found = session.scalars(select(m.Document).order_by(m.Document.owner_id)).all()
        session.commit()
        with told(session.connection(), lambda decided: sent.append(decided.route.shards)):
            for document in found:
                document.title = case((m.Document.owner_id > 0, f"changed {document.owner_id}"))
                session.flush()
                session.delete(document)
                session.flush()
        session.rollback()

    assert {len(shards) for shards in sent} == {1}
    assert len(sent) >= 2 * len(CUSTOMERS)
