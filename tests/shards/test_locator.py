"""Objects whose primary key lacks the shard key: the session knows where they live."""

from __future__ import annotations

import gc
import uuid
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import load_only, make_transient, make_transient_to_detached, undefer

from tests.shards.shop import CUSTOMERS, World, enlisted


@pytest.fixture
def documents(world: World) -> World:
    """One document per owner."""
    m = world.models
    with world.session() as session, session.begin():
        session.add_all(
            m.Document(id=key_of(n), owner_id=n, title=f"title {n}", body=f"body {n}")
            for n in CUSTOMERS
        )
    return world


@pytest.fixture
def spread(four_shards: World) -> World:
    """The same on four shards only."""
    m = four_shards.models
    with four_shards.session() as session, session.begin():
        session.add_all(
            m.Document(id=key_of(n), owner_id=n, title=f"title {n}", body=f"body {n}")
            for n in CUSTOMERS
        )
    return four_shards


def key_of(number: int) -> uuid.UUID:
    return uuid.UUID(int=number)


def home(world: World, number: int) -> set[str]:
    assert world.cluster is not None
    return {world.cluster.shard_for(world.models.Document, number)}


class TestBehaviour:
    def test_get_finds_an_object_anywhere(self, documents: World) -> None:
        m = documents.models
        with documents.session() as session:
            found = [session.get(m.Document, key_of(n)).owner_id for n in CUSTOMERS]
            nothing = session.get(m.Document, key_of(99))

        assert found == list(CUSTOMERS)
        assert nothing is None

    def test_changes_and_deletes_reach_their_rows(self, documents: World) -> None:
        m = documents.models
        with documents.session() as session:
            for document in session.scalars(select(m.Document)):
                if document.owner_id % 2:
                    document.title = "changed"
                else:
                    session.delete(document)
            session.commit()

        assert documents.rows("SELECT owner_id, title FROM documents") == [
            (n, "changed") for n in CUSTOMERS if n % 2
        ]

    def test_expired_and_deferred_attributes_are_read_again(self, documents: World) -> None:
        m = documents.models
        with documents.session() as session:
            found = session.scalars(select(m.Document).order_by(m.Document.owner_id)).all()
            bodies = [document.body for document in found]
            session.commit()
            titles = [document.title for document in found]

        assert bodies == [f"body {n}" for n in CUSTOMERS]
        assert titles == [f"title {n}" for n in CUSTOMERS]

    def test_keys_and_values_made_at_the_flush_come_back(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            made = [m.Document(owner_id=n, title="new") for n in CUSTOMERS]
            session.add_all(made)
            session.flush()
            homes = {document.id: document.home for document in made}
            session.commit()

        assert homes == dict(world.rows("SELECT id, home FROM documents"))
        assert len(set(homes.values())) == len(world.urls)


class TestOneShard:
    """What is known is asked for on its own shard only."""

    def test_refresh(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.scalars(select(m.Document).where(m.Document.owner_id == 5)).one()
            session.commit()
            session.refresh(document)
            used = enlisted(session)

        assert used == home(spread, 5)

    def test_loads_of_expired_attributes(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            title = document.title
            used = enlisted(session)

        assert title == "title 5"
        assert used == home(spread, 5)

    def test_loads_of_deferred_attributes(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.rollback()
            session.add(document)
            body = document.body
            used = enlisted(session)

        assert body == "body 5"
        assert used == home(spread, 5)

    def test_updates_of_the_unit_of_work(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            document.title = "changed"
            session.flush()
            used = enlisted(session)
            session.commit()

        assert used == home(spread, 5)
        assert spread.rows("SELECT owner_id FROM documents WHERE title = 'changed'") == [(5,)]

    def test_deletes_of_the_unit_of_work(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            session.delete(document)
            session.flush()
            used = enlisted(session)
            session.commit()

        assert used == home(spread, 5)
        assert len(spread.rows("SELECT * FROM documents")) == 11

    def test_many_updates_go_to_their_own_shards(self, spread: World) -> None:
        m = spread.models
        numbers = [n for n in CUSTOMERS if home(spread, n) in ({"s1"}, {"s2"})]
        with spread.session() as session:
            found = [session.get(m.Document, key_of(n)) for n in numbers]
            session.commit()
            for document in found:
                document.title = "changed"
            session.flush()
            used = enlisted(session)
            session.rollback()

        assert used == {"s1", "s2"}

    def test_an_object_that_was_flushed_and_never_loaded(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = m.Document(id=key_of(50), owner_id=50, title="new")
            session.add(document)
            session.commit()
            document.title = "changed"
            session.flush()
            used = enlisted(session)

        assert used == home(spread, 50)

    def test_what_is_known_survives_a_rollback(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            document.title = "never stored"
            session.flush()
            session.rollback()
            title = document.title
            used = enlisted(session)

        assert title == "title 5"
        assert used == home(spread, 5)

    def test_a_detached_object_brings_its_key_along(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5), options=[undefer(m.Document.body)])
        with spread.session() as session:
            session.add(document)
            document.title = "changed"
            session.flush()
            used = enlisted(session)

        assert used == home(spread, 5)

    def test_merge_of_a_known_object(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            known = session.get(m.Document, key_of(5))
            session.commit()
            session.merge(m.Document(id=key_of(5), owner_id=5, title="merged"))
            session.flush()
            used = enlisted(session)

        assert known is not None
        assert used == home(spread, 5)

    def test_within_a_savepoint_and_an_outer_connection(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            with session.begin_nested():
                document.title = "changed"
            used = enlisted(session)

        assert used == home(spread, 5)

    def test_a_primary_key_that_was_changed(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            document.id = key_of(500)
            session.commit()
            document.title = "changed"
            session.flush()
            used = enlisted(session)

        assert used == home(spread, 5)

    def test_an_object_whose_rival_was_undone_by_a_savepoint(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            savepoint = session.begin_nested()
            session.delete(document)
            session.flush()
            session.add(m.Document(id=key_of(5), owner_id=other_than(spread, 5), title="rival"))
            session.flush()
            savepoint.rollback()
            session.commit()
            document.title = "changed"
            session.flush()
            used = enlisted(session)

        assert used == home(spread, 5)

    def test_an_object_whose_key_was_loaded_later(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            query = select(m.Document).options(load_only(m.Document.title))
            document = session.scalars(query.where(m.Document.owner_id == 5)).one()
            owner = document.owner_id
            session.commit()
            session.refresh(document)
            used = enlisted(session)

        assert owner == 5
        assert used == home(spread, 5)

    def test_an_object_merged_from_elsewhere(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            elsewhere = session.get(m.Document, key_of(5))
        with spread.session() as session:
            document = session.merge(elsewhere, load=False)
            document.title = "changed"
            session.flush()
            used = enlisted(session)

        assert used == home(spread, 5)

    def test_a_transient_object_that_was_told_its_key(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = m.Document(id=key_of(5), owner_id=5)
            make_transient_to_detached(document)
            session.add(document)
            document.owner_id = 5
            title = document.title
            document.title = "changed"
            session.flush()
            used = enlisted(session)

        assert title == "title 5"
        assert used == home(spread, 5)

    def test_a_deleted_object_that_is_added_again(self, spread: World) -> None:
        m = spread.models
        other = other_than(spread, 5)
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.delete(document)
            session.flush()
            make_transient(document)
            document.owner_id = other
            session.add(document)
            session.commit()
            document.title = "moved"
            session.flush()
            used = enlisted(session)
            session.commit()

        assert used == home(spread, other)
        assert spread.rows_by_shard("SELECT owner_id FROM documents WHERE title = 'moved'")[
            used.pop()
        ] == [(other,)]

    @pytest.mark.parametrize("lock", [True, {"nowait": True}, {"read": True}])
    def test_loads_that_lock(self, spread: World, lock: Any) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            session.refresh(document, with_for_update=lock)
            same = session.get(m.Document, key_of(5), with_for_update=lock)
            used = enlisted(session)

        assert same is document
        assert used == home(spread, 5)

    def test_a_flush_before_a_query(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.commit()
            document.title = "changed"
            found = session.scalars(select(m.Document.title).where(m.Document.owner_id == 5)).all()
            used = enlisted(session)

        assert found == ["changed"]
        assert used == home(spread, 5)


class TestAllShards:
    """What is not known is looked for everywhere, and found."""

    def test_an_object_that_was_never_seen(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            found = session.get(m.Document, key_of(5))
            used = enlisted(session)

        assert found.owner_id == 5
        assert len(used) == 4

    def test_an_object_that_is_forgotten(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            session.get(m.Document, key_of(5))
            session.commit()
            session.expunge_all()
            gc.collect()
            found = session.get(m.Document, key_of(5))
            used = enlisted(session)

        assert found.owner_id == 5
        assert len(used) == 4

    def test_a_bulk_statement_that_names_the_primary_key_only(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            updated = session.execute(
                update(m.Document).where(m.Document.id == key_of(5)).values(title="changed")
            ).rowcount
            deleted = session.execute(delete(m.Document).where(m.Document.id == key_of(6))).rowcount
            session.commit()

        assert (updated, deleted) == (1, 1)
        assert spread.rows("SELECT owner_id FROM documents WHERE title = 'changed'") == [(5,)]

    def test_an_insert_that_was_rolled_back_is_not_believed(self, spread: World) -> None:
        """Another owner's row may have taken its key since."""
        m = spread.models
        other = next(n for n in range(60, 99) if home(spread, n) != home(spread, 50))
        with spread.session() as session:
            kept = m.Document(id=key_of(50), owner_id=50, title="rolled back")
            session.add(kept)
            session.flush()
            session.rollback()
            add_elsewhere(spread, key_of(50), other)
            found = session.get(m.Document, key_of(50))

        assert kept.owner_id == 50
        assert found is not None
        assert found.owner_id == other

    def test_a_deleted_object_is_not_believed(self, spread: World) -> None:
        m = spread.models
        other = next(n for n in range(60, 99) if home(spread, n) != home(spread, 5))
        with spread.session() as session:
            kept = session.get(m.Document, key_of(5))
            session.delete(kept)
            session.commit()
            add_elsewhere(spread, key_of(5), other)
            found = session.get(m.Document, key_of(5))

        assert kept is not None
        assert found is not None
        assert found.owner_id == other

    def test_an_expunged_object_is_not_believed(self, spread: World) -> None:
        m = spread.models
        other = next(n for n in range(60, 99) if home(spread, n) != home(spread, 5))
        with spread.session() as session, spread.session() as second:
            kept = session.get(m.Document, key_of(5))
            session.expunge(kept)
            session.commit()
            second.delete(second.get(m.Document, key_of(5)))
            second.commit()
            add_elsewhere(spread, key_of(5), other)
            found = session.get(m.Document, key_of(5))

        assert kept is not None
        assert found is not None
        assert found.owner_id == other

    def test_a_delete_that_is_undone_is_known_again(self, spread: World) -> None:
        m = spread.models
        with spread.session() as session:
            document = session.get(m.Document, key_of(5))
            session.delete(document)
            session.flush()
            session.rollback()
            title = document.title
            used = enlisted(session)

        assert title == "title 5"
        assert used == home(spread, 5)


def other_than(world: World, number: int) -> int:
    """An owner that lives on another shard, and has no document yet."""
    return next(n for n in range(60, 99) if home(world, n) != home(world, number))


def add_elsewhere(world: World, key: uuid.UUID, owner: int) -> None:
    """Store a row by another session."""
    m: Any = world.models
    with world.session() as session:
        session.add(m.Document(id=key, owner_id=owner, title="other"))
        session.commit()
