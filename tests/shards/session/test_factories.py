"""The ways in which applications make sessions: factories, registries, and plain sessions."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sqlalchemy_shards import ShardedSession
from sqlalchemy_shards.errors import ConfigurationError, UnsupportedStatement
from tests.shards.shop import CUSTOMERS, World, enlisted


def factory(world: World, **arguments: Any) -> sessionmaker[Any]:
    if world.cluster is None:
        return sessionmaker(bind=world.engine, **arguments)
    return sessionmaker(class_=ShardedSession, cluster=world.cluster, **arguments)


class TestFactories:
    def test_begin_commits_at_its_end(self, world: World) -> None:
        with factory(world).begin() as session:
            session.add_all([world.models.Customer(id=n, name="made") for n in CUSTOMERS])

        assert len(world.rows("SELECT * FROM customers")) == len(CUSTOMERS)

    def test_begin_rolls_back_on_an_error(self, world: World) -> None:
        def make(session: Session) -> None:
            session.add_all([world.models.Customer(id=n, name="made") for n in CUSTOMERS])
            session.flush()
            session.add(world.models.Order(customer_id=999, id=1, amount=1))

        with pytest.raises(IntegrityError), factory(world).begin() as session:
            make(session)

        assert world.rows("SELECT * FROM customers") == []

    def test_configure_changes_later_sessions(self, shop: World) -> None:
        make = factory(shop)
        make.configure(info={"who": "me"}, expire_on_commit=False, autoflush=False)
        with make() as session:
            customer = session.get(shop.models.Customer, 1)
            session.commit()

            assert session.info == {"who": "me"}
            assert customer.name == "customer 1"
            assert not session.in_transaction()
            assert not session.autoflush

    def test_configure_can_name_the_cluster_later(self, spread_shop: World) -> None:
        make = sessionmaker(class_=ShardedSession)
        make.configure(cluster=spread_shop.cluster)
        with make() as session:
            assert session.get(spread_shop.models.Customer, 1).name == "customer 1"

    def test_a_call_overrides_the_factory(self, shop: World) -> None:
        make = factory(shop, info={"who": "me"}, expire_on_commit=False)
        with make(expire_on_commit=True, info={"what": 1}) as session:
            customer = session.get(shop.models.Customer, 1)
            session.commit()

            assert session.info == {"who": "me", "what": 1}
            assert "name" not in vars(customer)

    def test_a_class_of_the_applications_own(self, spread_shop: World) -> None:
        class OurSession(ShardedSession):
            def customer(self, number: int) -> Any:
                return self.get(spread_shop.models.Customer, number)

        make = sessionmaker(class_=OurSession, cluster=spread_shop.cluster)
        with make() as session:
            assert session.customer(3).name == "customer 3"
            assert session.shard_of(session.customer(3)) in spread_shop.urls

    def test_a_session_without_a_cluster_is_told_what_it_needs(self) -> None:
        with pytest.raises(ConfigurationError, match="needs a cluster"):
            ShardedSession()
        with pytest.raises(ConfigurationError, match="needs a cluster"):
            ShardedSession(bind=create_engine("sqlite://"))

    def test_binds_of_single_classes_are_left_to_sqlalchemy(
        self, spread_shop: World, plain: World
    ) -> None:
        """A class with a bind of its own, as an application's second database."""
        m = spread_shop.models
        plain.fill()
        with spread_shop.session(binds={plain.models.Customer: plain.engine}) as session:
            here = session.scalars(select(m.Customer.home).where(m.Customer.id == 1)).one()
            there = session.get(plain.models.Customer, 1).home

        assert here != there == "shop_one"


class TestScopedSessions:
    def test_one_session_for_a_thread(self, shop: World) -> None:
        registry = scoped_session(factory(shop))
        try:
            first, second = registry(), registry()
            name = registry.get(shop.models.Customer, 1).name
            found = registry.query(shop.models.Customer).filter_by(id=2).one().name
            with registry.no_autoflush:
                registry.add(shop.models.Customer(id=99, name="pending"))
            pending = len(registry.new)
            registry.commit()
        finally:
            registry.remove()

        assert first is second
        assert (name, found, pending) == ("customer 1", "customer 2", 1)
        assert len(shop.rows("SELECT * FROM customers WHERE id = 99")) == 1

    def test_threads_have_sessions_of_their_own(self, shop: World) -> None:
        registry = scoped_session(factory(shop))
        seen: dict[int, Any] = {}

        def work(number: int) -> None:
            customer = registry.get(shop.models.Customer, number)
            customer.name = f"changed {number}"
            registry.commit()
            seen[number] = registry()
            registry.remove()

        threads = [threading.Thread(target=work, args=(number,)) for number in CUSTOMERS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len({id(session) for session in seen.values()}) == len(CUSTOMERS)
        assert len(shop.rows("SELECT * FROM customers WHERE name LIKE 'changed%'")) == 12

    def test_remove_rolls_back_and_gives_everything_back(self, shop: World) -> None:
        registry = scoped_session(factory(shop))
        registry.add(shop.models.Customer(id=99, name="pending"))
        registry.flush()
        registry.remove()

        assert shop.rows("SELECT * FROM customers WHERE id = 99") == []

    def test_the_methods_of_a_sharded_session_are_reached_through_the_session(
        self, spread_shop: World
    ) -> None:
        registry = scoped_session(factory(spread_shop))
        try:
            customer = registry.get(spread_shop.models.Customer, 1)
            shard = registry().shard_of(customer)
            told = registry().explain(select(spread_shop.models.Customer))
        finally:
            registry.remove()

        assert shard in spread_shop.urls
        assert len(told.shards) == 4

    def test_query_property(self, shop: World) -> None:
        registry = scoped_session(factory(shop))
        shop.models.Customer.query = registry.query_property()
        try:
            name = shop.models.Customer.query.filter_by(id=2).one().name
        finally:
            del shop.models.Customer.query
            registry.remove()

        assert name == "customer 2"


class TestPlainSessions:
    """`Session(cluster.engine)`: right, though it does not know where it has seen objects."""

    def test_the_unit_of_work(self, world: World) -> None:
        m = world.models
        with Session(world.engine) as session:
            session.add_all([m.Customer(id=n, name="made") for n in CUSTOMERS])
            session.commit()
            for customer in session.scalars(select(m.Customer)):
                customer.name = "changed"
            session.delete(session.get(m.Customer, 1))
            session.commit()
            names = set(session.scalars(select(m.Customer.name)))

        assert names == {"changed"}
        assert len(world.rows("SELECT * FROM customers")) == len(CUSTOMERS) - 1

    def test_objects_known_by_primary_key_only_are_read_right(self, world: World) -> None:
        m = world.models
        with Session(world.engine) as session:
            documents = [m.Document(owner_id=n, title=f"of {n}", body="long") for n in CUSTOMERS]
            session.add_all(documents)
            session.commit()
            titles = [document.title for document in documents]
            bodies = {document.body for document in documents}
            session.refresh(documents[0])
            found = session.get(m.Document, documents[1].id, populate_existing=True)

        assert titles == [f"of {n}" for n in CUSTOMERS]
        assert bodies == {"long"}
        assert found is documents[1]

    def test_objects_known_by_primary_key_only_are_written_right(self, world: World) -> None:
        m = world.models
        with Session(world.engine) as session:
            documents = [m.Document(owner_id=n, title="old") for n in CUSTOMERS]
            session.add_all(documents)
            session.flush()
            for document in documents:
                document.title = "new"
            session.flush()
            session.delete(documents[0])
            session.commit()

        titles = world.rows("SELECT title FROM documents")
        assert titles == [("new",)] * (len(CUSTOMERS) - 1)

    def test_it_asks_every_shard_where_a_sharded_session_asks_one(self, four_shards: World) -> None:
        m = four_shards.models
        with four_shards.session() as session:
            session.add(m.Document(owner_id=1, title="old"))
            session.commit()
        asked = {}
        for name, made in (("plain", Session(four_shards.engine)), ("ours", four_shards.session())):
            with made as session:
                document = session.scalars(select(m.Document).where(m.Document.owner_id == 1)).one()
                session.expire(document)
                document.title
                asked[name] = len(enlisted(session))

        assert asked == {"plain": 4, "ours": 1}

    def test_two_phase_is_refused_with_a_reason(self, four_shards: World) -> None:
        with (
            Session(four_shards.engine, twophase=True) as session,
            pytest.raises(UnsupportedStatement, match="atomic by itself"),
        ):
            session.get(four_shards.models.Customer, 1)


class TestWhatSessionsAreGiven:
    def test_autobegin_can_be_switched_off(self, shop: World) -> None:
        with shop.session(autobegin=False) as session:
            with pytest.raises(InvalidRequestError, match="Autobegin is disabled"):
                session.get(shop.models.Customer, 1)
            with session.begin():
                name = session.get(shop.models.Customer, 1).name

        assert name == "customer 1"

    def test_objects_can_stay_loaded_after_the_commit(self, shop: World) -> None:
        with shop.session(expire_on_commit=False) as session:
            customers = session.scalars(select(shop.models.Customer)).all()
            for customer in customers:
                customer.name = "changed"
            session.commit()
            in_transaction = session.in_transaction()
            names = {customer.name for customer in customers}

        assert not in_transaction
        assert names == {"changed"}

    def test_a_closed_session_can_be_used_again_or_not_as_it_was_told(self, shop: World) -> None:
        customer = shop.models.Customer
        with shop.session() as session:
            session.get(customer, 1)
            session.close()
            again = session.get(customer, 1).name
        with shop.session(close_resets_only=False) as session:
            session.get(customer, 1)
            session.reset()
            after_reset = session.get(customer, 1).name
            session.close()
            with pytest.raises(InvalidRequestError, match="closed"):
                session.get(customer, 1)

        assert again == after_reset == "customer 1"

    def test_closing_gives_back_every_shards_connection(self, spread_shop: World) -> None:
        for end in ("close", "reset", "invalidate", "rollback", "commit"):
            with spread_shop.session() as session:
                session.scalars(select(spread_shop.models.Customer)).all()
                getattr(session, end)()

                pools = [shard.engine.pool for shard in spread_shop.cluster.shards.values()]  # type: ignore[union-attr]
                assert [pool.checkedout() for pool in pools] == [0] * 4  # type: ignore[attr-defined]

    def test_an_invalidated_session_goes_on_with_new_connections(self, shop: World) -> None:
        with shop.session() as session:
            session.add(shop.models.Customer(id=99, name="lost"))
            session.flush()
            session.invalidate()
            found = session.get(shop.models.Customer, 1)

        assert found.name == "customer 1"
        assert shop.rows("SELECT * FROM customers WHERE id = 99") == []

    def test_a_query_class_of_the_applications_own(self, shop: World) -> None:
        from sqlalchemy.orm import Query

        class OurQuery(Query[Any]):
            def named(self, name: str) -> OurQuery:
                return self.filter_by(name=name)

        with shop.session(query_cls=OurQuery) as session:
            found = session.query(shop.models.Customer).named("customer 4").one()

        assert found.id == 4
