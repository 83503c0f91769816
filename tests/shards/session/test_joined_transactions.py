"""Sessions that join a transaction of a connection, as test suites let them.

SQLAlchemy's recipe: a connection begins an outer transaction, the session joins it with
``join_transaction_mode="create_savepoint"``, the code under test commits as it likes, and at the
end everything is rolled back.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sqlalchemy_shards import ShardedSession
from tests.shards.shop import CUSTOMERS, World, enlisted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

MODES = ("conditional_savepoint", "rollback_only", "control_fully", "create_savepoint")


JOINING = [
    ("plain", Session),
    ("one_shard", Session),
    ("one_shard", ShardedSession),
    ("four_shards", Session),
    ("four_shards", ShardedSession),
]


@pytest.fixture(params=JOINING, ids=lambda joining: f"{joining[0]}-{joining[1].__name__}")
def _joining(request: pytest.FixtureRequest) -> tuple[World, Any]:
    name, make = request.param
    return request.getfixturevalue(name), make


@pytest.fixture
def world(_joining: tuple[World, Any]) -> World:
    """Each of the three, with each class of sessions that it has."""
    return _joining[0]


@pytest.fixture
def make(_joining: tuple[World, Any]) -> Any:
    """The class of the sessions."""
    return _joining[1]


@contextmanager
def outer_transaction(world: World) -> Iterator[Connection]:
    with world.engine.connect() as connection:
        outer = connection.begin()
        yield connection
        if outer.is_active:
            outer.rollback()


@contextmanager
def joined(world: World, make: Any) -> Iterator[Any]:
    """A session as the recipe makes it; whatever it commits is rolled back at the end."""
    with (
        outer_transaction(world) as connection,
        make(bind=connection, join_transaction_mode="create_savepoint") as session,
    ):
        yield session


def add_customers(world: World, session: Session, first: int, name: str) -> None:
    session.add_all([world.models.Customer(id=first + n, name=name) for n in CUSTOMERS])


def names(world: World) -> set[str]:
    return {name for (name,) in world.rows("SELECT name FROM customers")}


class TestTheRecipe:
    def test_commits_within_leave_nothing(self, world: World, make: Any) -> None:
        m = world.models
        with outer_transaction(world) as connection:
            with make(bind=connection, join_transaction_mode="create_savepoint") as session:
                add_customers(world, session, 100, "within")
                session.commit()
                session.get(m.Customer, 101).name = "changed"
                session.commit()
                seen = sorted(session.scalars(select(m.Customer.name)))
            with make(bind=connection, join_transaction_mode="create_savepoint") as session:
                seen_by_the_next = sorted(session.scalars(select(m.Customer.name)))

        assert seen == seen_by_the_next == ["changed"] + ["within"] * 11
        assert names(world) == set()

    def test_rollbacks_within_go_back_to_the_last_commit_within(
        self, world: World, make: Any
    ) -> None:
        m = world.models
        with joined(world, make) as session:
            add_customers(world, session, 100, "within")
            session.commit()
            add_customers(world, session, 200, "undone")
            session.flush()
            session.rollback()
            seen = set(session.scalars(select(m.Customer.name)))

        assert seen == {"within"}
        assert names(world) == set()

    def test_an_error_within_is_survived(self, world: World, make: Any) -> None:
        m = world.models
        with joined(world, make) as session:
            add_customers(world, session, 100, "within")
            session.commit()
            session.add(m.Order(customer_id=999, id=1, amount=1))
            with pytest.raises(IntegrityError):
                session.commit()
            session.rollback()
            session.add(m.Customer(id=300, name="after"))
            session.commit()
            seen = set(session.scalars(select(m.Customer.name)))

        assert seen == {"within", "after"}
        assert names(world) == set()

    def test_savepoints_within(self, world: World, make: Any) -> None:
        m = world.models
        with joined(world, make) as session:
            add_customers(world, session, 100, "outer")
            with session.begin_nested():
                add_customers(world, session, 200, "kept")
                with session.begin_nested() as inner:
                    add_customers(world, session, 300, "undone")
                    session.flush()
                    inner.rollback()
            session.commit()
            with session.begin_nested():
                session.get(m.Customer, 101).name = "changed"
            session.rollback()
            seen = set(session.scalars(select(m.Customer.name)))

        assert seen == {"outer", "kept"}
        assert names(world) == set()

    def test_objects_without_the_key_in_their_primary_key(self, world: World, make: Any) -> None:
        m = world.models
        with joined(world, make) as session:
            documents = [m.Document(owner_id=n, title="old") for n in CUSTOMERS]
            session.add_all(documents)
            session.commit()
            for document in documents:
                document.title = "new"
            session.commit()
            titles = {document.title for document in documents}

        assert titles == {"new"}
        assert world.rows("SELECT * FROM documents") == []

    def test_what_is_committed_outside_stays(self, world: World, make: Any) -> None:
        with (
            world.engine.begin() as connection,
            make(bind=connection, join_transaction_mode="create_savepoint") as session,
        ):
            add_customers(world, session, 100, "within")
            session.commit()
            add_customers(world, session, 200, "undone")
            session.flush()
            session.rollback()

        assert names(world) == {"within"}


class TestModes:
    """What each mode does to the outer transaction, with all of them in one test of a world."""

    def test_the_end_of_the_session_means_what_it_means_on_one_database(
        self, world: World, make: Any
    ) -> None:
        """Without a savepoint outside, and with the outer transaction committed afterwards."""
        active, stored = {}, {}
        for number, (mode, end) in enumerate(product(MODES, ["commit", "rollback"])):
            with world.engine.connect() as connection:
                outer = connection.begin()
                with make(bind=connection, join_transaction_mode=mode) as session:
                    add_customers(world, session, 100 * number, f"{mode} {end}")
                    session.flush()
                    getattr(session, end)()
                active[mode, end] = outer.is_active
                if outer.is_active:
                    outer.commit()
            stored[mode, end] = f"{mode} {end}" in names(world)

        assert active == {
            ("conditional_savepoint", "commit"): True,
            ("conditional_savepoint", "rollback"): False,
            ("rollback_only", "commit"): True,
            ("rollback_only", "rollback"): False,
            ("control_fully", "commit"): False,
            ("control_fully", "rollback"): False,
            ("create_savepoint", "commit"): True,
            ("create_savepoint", "rollback"): True,
        }
        assert stored == {(mode, end): end == "commit" for mode, end in active}

    def test_a_rollback_under_a_savepoint_outside(self, world: World, make: Any) -> None:
        active = {}
        for mode in MODES:
            with world.engine.connect() as connection:
                outer = connection.begin()
                savepoint = connection.begin_nested()
                with make(bind=connection, join_transaction_mode=mode) as session:
                    add_customers(world, session, 100, "within")
                    session.flush()
                    session.rollback()
                active[mode] = (savepoint.is_active, outer.is_active)
                connection.rollback()

        assert active == {
            "conditional_savepoint": (True, True),
            "rollback_only": (False, True),
            "control_fully": (False, True),
            "create_savepoint": (True, True),
        }
        assert names(world) == set()

    def test_closing_without_an_end(self, world: World, make: Any) -> None:
        active = {}
        for mode in MODES:
            with world.engine.connect() as connection:
                outer = connection.begin()
                session = make(bind=connection, join_transaction_mode=mode)
                add_customers(world, session, 100, "within")
                session.flush()
                session.close()
                active[mode] = outer.is_active
                connection.rollback()

        assert active == {mode: mode != "control_fully" for mode in MODES}
        assert names(world) == set()


class TestOverShards:
    def test_a_shard_that_joins_after_the_savepoint_is_rolled_back_too(
        self, spread_shop: World
    ) -> None:
        m = spread_shop.models
        with joined(spread_shop, ShardedSession) as session:
            session.get(m.Customer, 1).name = "changed"
            session.commit()
            for number in CUSTOMERS:
                session.get(m.Customer, number).name = "changed"
            session.commit()
            shards = len(enlisted(session))

        assert shards == 4
        assert "changed" not in names(spread_shop)

    def test_two_sessions_of_one_connection_take_turns(self, spread_shop: World) -> None:
        m = spread_shop.models
        with outer_transaction(spread_shop) as connection:
            first = ShardedSession(bind=connection, join_transaction_mode="create_savepoint")
            first.get(m.Customer, 1).name = "changed"
            first.commit()
            second = ShardedSession(bind=connection, join_transaction_mode="create_savepoint")
            seen = second.get(m.Customer, 1).name
            second.close()
            first.close()

        assert seen == "changed"
        assert "changed" not in names(spread_shop)

    def test_a_sharded_session_knows_its_cluster_from_the_connection(
        self, spread_shop: World
    ) -> None:
        with (
            outer_transaction(spread_shop) as connection,
            ShardedSession(bind=connection) as session,
        ):
            customer = session.get(spread_shop.models.Customer, 1)

            assert session.cluster is spread_shop.cluster
            assert session.shard_of(customer) in spread_shop.urls
            assert session.get_bind() is connection
