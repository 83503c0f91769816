"""`get_many()`: each key's object as `get()` finds it, in one statement per shard."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import event, inspect
from sqlalchemy.exc import ArgumentError, InvalidRequestError
from sqlalchemy.orm import joinedload, selectinload
from sqlalchemy.orm.exc import StaleDataError

from sqlalchemy_shards import create_cluster
from sqlalchemy_shards.session import get_many
from sqlalchemy_shards.session.session import ShardedSession
from tests.observing import told
from tests.shards.shop import CUSTOMERS, DECLARED, World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["one_shard", "four_shards"])
def world(request: pytest.FixtureRequest) -> World:
    """The shop with its customers, on one shard and on four."""
    found: World = request.getfixturevalue(request.param)
    found.fill()
    return found


@pytest.fixture
def session(world: World) -> Iterator[ShardedSession]:
    with opened(world) as session:
        yield session


def opened(world: World) -> ShardedSession:
    session = world.session()
    assert isinstance(session, ShardedSession)
    return session


@contextmanager
def dispatched(session: ShardedSession) -> Iterator[list[set[str]]]:
    """The shards of each statement; the list grows."""
    found: list[set[str]] = []

    def note(decided: Any) -> None:
        found.append({work.shard for work in decided.works})

    with told(session.connection(), note):
        yield found


def names(found: list[Any]) -> list[Any]:
    return [each and inspect(each).identity for each in found]


class TestWhatIsReturned:
    def test_objects_in_the_order_of_the_keys(self, world: World, session: ShardedSession) -> None:
        found = session.get_many(world.models.Customer, [7, 3, 99, 12, 3])

        assert [each and each.id for each in found] == [7, 3, None, 12, 3]
        assert found[1] is found[4]

    def test_no_keys(self, world: World, session: ShardedSession) -> None:
        assert session.get_many(world.models.Customer, []) == []

    def test_keys_of_an_iterator(self, world: World, session: ShardedSession) -> None:
        found = session.get_many(world.models.Customer, iter([1, 2]))

        assert [each and each.id for each in found] == [1, 2]

    def test_composite_keys(self, world: World, session: ShardedSession) -> None:
        m = world.models
        keys: list[Any] = [(7, 71), {"id": 32, "customer_id": 3}, [1, 11], (1, 99), (7, 71)]
        found = session.get_many(m.Order, keys)

        assert names(found) == [(7, 71), (3, 32), (1, 11), None, (7, 71)]

    def test_a_single_key_as_a_tuple_or_by_its_name(
        self, world: World, session: ShardedSession
    ) -> None:
        found = session.get_many(world.models.Customer, [(1,), {"id": 2}, [3]])

        assert names(found) == [(1,), (2,), (3,)]

    def test_reference_and_global_tables(self, world: World, session: ShardedSession) -> None:
        m = world.models
        session.add(m.Flag(id=5, name="on"))
        regions = session.query(m.Region).order_by(m.Region.code).all()
        codes = [each.code for each in regions]
        session.flush()
        session.expunge_all()

        assert names(session.get_many(m.Region, [*codes, "none"])) == [*[(c,) for c in codes], None]
        assert names(session.get_many(m.Flag, [4, 5])) == [None, (5,)]

    def test_keys_that_do_not_hold_the_shard_key(
        self, world: World, session: ShardedSession
    ) -> None:
        m = world.models
        documents = [m.Document(owner_id=number, title=str(number)) for number in CUSTOMERS]
        session.add_all(documents)
        session.flush()
        keys = [each.id for each in documents]
        session.expunge_all()
        found = session.get_many(m.Document, [*keys, uuid4()])

        assert [each and each.owner_id for each in found] == [*CUSTOMERS, None]

    def test_polymorphic_classes(self, world: World, session: ShardedSession) -> None:
        m = world.models
        kinds = {1: m.Payment, 2: m.CardPayment, 3: m.VoucherPayment}
        session.add_all(
            [of(customer_id=number, id=number, amount=1) for number, of in kinds.items()]
        )
        session.flush()
        session.expunge_all()
        keys = [(number, number) for number in (3, 2, 1, 4)]

        found = session.get_many(m.Payment, keys)
        assert [type(each) for each in found[:3]] == [m.VoucherPayment, m.CardPayment, m.Payment]
        assert names(session.get_many(m.CardPayment, keys)) == [None, (2, 2), None, None]
        session.expunge_all()
        assert names(session.get_many(m.CardPayment, keys)) == [None, (2, 2), None, None]
        assert names(session.get_many(m.VoucherPayment, keys)) == [(3, 3), None, None, None]

    def test_a_key_of_another_type_that_is_equal(
        self, world: World, session: ShardedSession
    ) -> None:
        keys: Any = [1.0, 2]

        assert names(session.get_many(world.models.Customer, keys)) == [(1,), (2,)]

    def test_a_key_that_the_database_alone_calls_equal(
        self, world: World, session: ShardedSession
    ) -> None:
        m = world.models
        document = m.Document(owner_id=7)
        session.add(document)
        session.flush()
        key, other = document.id, uuid4()
        session.expunge_all()
        with pytest.MonkeyPatch.context() as patch:
            # As the text of a citext column in other letters would: a row, and no key of its name.
            patch.setattr(get_many.Reading, "_held", lambda *arguments: None)
            found = session.get_many(m.Document, [key, other])

        assert names(found) == [(key,), None]

    @pytest.mark.filterwarnings("ignore:fully NULL primary key identity")
    def test_a_key_with_null(self, world: World, session: ShardedSession) -> None:
        m = world.models

        assert session.get_many(m.Customer, [None, 1])[0] is None
        assert names(session.get_many(m.Order, [(None, 11), (1, 11)])) == [None, (1, 11)]


class TestWhatTheSessionHolds:
    def test_it_is_not_read_again(self, world: World, session: ShardedSession) -> None:
        m = world.models
        held = session.get(m.Customer, 3)
        other = session.get(m.Customer, 7)
        with dispatched(session) as statements:
            found = session.get_many(m.Customer, [7, 3])

        assert found == [other, held]
        assert statements == []

    def test_changes_stay_unless_it_is_to_be_overwritten(
        self, world: World, session: ShardedSession
    ) -> None:
        m = world.models
        session.autoflush = False
        held = session.get(m.Customer, 3)
        assert held is not None
        held.name = "changed"

        assert session.get_many(m.Customer, [3, 4])[0].name == "changed"
        assert session.get_many(m.Customer, [3, 4], populate_existing=True)[0].name == "customer 3"
        held.name = "changed"
        options = {"populate_existing": True}
        found = session.get_many(m.Customer, [3, 4], execution_options=options)
        assert found[0].name == "customer 3"

    def test_expired_objects_are_read_in_the_same_statement(
        self, world: World, session: ShardedSession
    ) -> None:
        m = world.models
        held = session.get_many(m.Customer, [1, 2, 3])
        session.expire_all()
        with dispatched(session) as statements:
            found = session.get_many(m.Customer, [1, 2, 3, 4])

        assert found[:3] == held
        assert [each.name for each in found] == [f"customer {number}" for number in (1, 2, 3, 4)]
        assert len(statements) == 1

    def test_an_expired_object_that_is_gone(self, world: World, session: ShardedSession) -> None:
        m = world.models
        order = session.get(m.Order, (1, 11))
        session.commit()
        with opened(world) as other:
            other.delete(other.get(m.Order, (1, 11)))
            other.commit()

        assert names(session.get_many(m.Order, [(1, 11), (1, 12)])) == [None, (1, 12)]
        assert order not in session

    def test_what_is_pending_is_flushed_first(self, world: World, session: ShardedSession) -> None:
        m = world.models
        added = m.Customer(id=50, name="new")
        session.add(added)
        found = session.get_many(m.Customer, [50, 1])

        assert found[0] is added


class TestOptions:
    def test_loaders(self, world: World, session: ShardedSession) -> None:
        m = world.models
        for option in (joinedload(m.Customer.orders), selectinload(m.Customer.orders)):
            found = session.get_many(m.Customer, [1, 2, 3], options=[option])

            assert all("orders" not in inspect(each).unloaded for each in found)
            session.expunge_all()

    def test_locks(self, world: World) -> None:
        m = world.models
        with opened(world) as session, opened(world) as other:
            for lock in (True, {"key_share": True}):
                assert all(session.get_many(m.Customer, [1, 2, 3], with_for_update=lock))
            skipping = {"skip_locked": True}
            found = other.get_many(m.Customer, [3, 4], with_for_update=skipping)
            session.rollback()

        assert names(found) == [None, (4,)]

    def test_a_lock_holds_versions_against_what_the_session_has(self, world: World) -> None:
        m = world.models
        with opened(world) as session, opened(world) as other:
            held = session.get_many(m.Customer, [1, 2])
            changed = other.get(m.Customer, 2)
            assert changed is not None
            changed.name = "changed"
            other.commit()

            with pytest.raises(StaleDataError):
                session.get_many(m.Customer, [1, 2], with_for_update=True)
            session.rollback()

        assert all(held)

    def test_execution_options(self, world: World, session: ShardedSession) -> None:
        m = world.models
        seen: list[Any] = []

        def note(state: Any) -> None:
            seen.append(state.execution_options["of mine"])

        event.listen(session, "do_orm_execute", note)
        session.get_many(m.Customer, [1, 2], execution_options={"of mine": 5})

        assert seen == [5]


class TestMistakes:
    def test_no_class(self, session: ShardedSession) -> None:
        entity: Any = "customers"
        with pytest.raises(ArgumentError, match="Expected mapped class or mapper"):
            session.get_many(entity, [1])

    def test_another_number_of_values(self, world: World, session: ShardedSession) -> None:
        with pytest.raises(InvalidRequestError, match=r"primary key columns are 'orders\.cust"):
            session.get_many(world.models.Order, [(1, 11), 2])

    def test_other_names(self, world: World, session: ShardedSession) -> None:
        with pytest.raises(InvalidRequestError, match="names are 'customer_id','id'"):
            session.get_many(world.models.Order, [{"customer_id": 1, "number": 11}])


class TestStatements:
    def test_one_for_each_shard_with_its_own_keys(self, four_shards: World) -> None:
        four_shards.fill()
        m = four_shards.models
        assert four_shards.cluster is not None
        homes = {four_shards.cluster.shard_for(m.Customer, number) for number in (7, 3, 11)}
        with opened(four_shards) as session, dispatched(session) as statements:
            session.get_many(m.Customer, [7, 3, 11])
            session.get_many(m.Order, [(number, number * 10 + 1) for number in (7, 3, 11)])

        assert statements == [homes] * 2

    def test_many_keys_in_bounded_statements(self, four_shards: World) -> None:
        four_shards.fill()
        m = four_shards.models
        with opened(four_shards) as session, dispatched(session) as statements:
            found = session.get_many(m.Customer, range(1, 100_001))
            orders = session.get_many(m.Order, [(1, number) for number in range(1, 15_001)])

        assert len(found) == 100_000
        assert [each and each.id for each in found[:13]] == [*CUSTOMERS, None]
        assert names([each for each in orders if each]) == [(1, 11), (1, 12)]
        assert len(statements) == 100_000 / get_many.KEYS_PER_STATEMENT + 2

    def test_a_cluster_that_refuses_scatter(self, four_shards: World) -> None:
        m = four_shards.models
        cluster = create_cluster(four_shards.urls, name="shop", scatter="refuse")
        with ShardedSession(cluster) as session:
            documents = [m.Document(owner_id=number) for number in CUSTOMERS]
            session.add_all(documents)
            session.flush()
            session.expunge_all()
            found = session.get_many(m.Document, [each.id for each in documents])
        cluster.dispose()

        assert [each and each.owner_id for each in found] == list(CUSTOMERS)


@pytest.mark.parametrize("keys", [5, "abc", b"abc", None, {"id": 1}])
def test_what_is_no_iterable_of_keys_is_refused(session: ShardedSession, keys: Any) -> None:
    told = f"takes an iterable of primary keys, not a {type(keys).__name__}; give a list"
    with pytest.raises(ArgumentError, match=told):
        session.get_many(DECLARED.Customer, keys)
