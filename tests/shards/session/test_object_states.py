"""Objects between sessions, processes and clusters: pickled, detached, merged, made transient."""

from __future__ import annotations

import io
import pickle
import threading
from typing import Any

import pytest
from sqlalchemy import inspect, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import (
    joinedload,
    make_transient,
    make_transient_to_detached,
    object_session,
    selectinload,
    undefer,
)
from sqlalchemy.orm.exc import DetachedInstanceError, ObjectDeletedError

from sqlalchemy_shards import create_cluster
from tests.shards.shop import CUSTOMERS, World, enlisted


class Pickles:
    """Pickles that name the classes of a shop, which are made within a function."""

    def __init__(self, shop: World) -> None:
        classes = {k: each for k, each in vars(shop.models).items() if isinstance(each, type)}
        names = {each: name for name, each in classes.items()}

        class Pickler(pickle.Pickler):
            def persistent_id(self, instance: Any) -> str | None:
                return names.get(instance) if isinstance(instance, type) else None

        class Unpickler(pickle.Unpickler):
            def persistent_load(self, name: str) -> Any:
                return classes[name]

        self._pickler, self._unpickler = Pickler, Unpickler

    def dumps(self, instance: Any) -> bytes:
        file = io.BytesIO()
        self._pickler(file).dump(instance)
        return file.getvalue()

    def loads(self, text: bytes) -> Any:
        return self._unpickler(io.BytesIO(text)).load()


class TestPickles:
    def test_an_unpickled_object_can_be_added_and_loads_what_it_lacks(self, shop: World) -> None:
        m, pickles = shop.models, Pickles(shop)
        with shop.session() as session:
            text = pickles.dumps(session.get(m.Customer, 3))
        customer = pickles.loads(text)
        with shop.session() as session:
            session.add(customer)
            orders = [order.id for order in customer.orders]
            notes = customer.notes
            customer.name = "changed"
            session.commit()

        assert (orders, notes) == ([31, 32], "notes 3")
        assert shop.rows("SELECT name FROM customers WHERE id = 3") == [("changed",)]

    @pytest.mark.parametrize("load", [True, False])
    def test_an_unpickled_object_can_be_merged(self, shop: World, load: bool) -> None:
        m, pickles = shop.models, Pickles(shop)
        options = [selectinload(m.Customer.orders), undefer(m.Customer.notes)]
        with shop.session() as session:
            text = pickles.dumps(session.get(m.Customer, 3, options=options))
        with shop.session() as session:
            customer = session.merge(pickles.loads(text), load=load)
            found = (customer.name, customer.notes, [order.id for order in customer.orders])
            customer.orders[0].amount = 100
            session.commit()

        assert found == ("customer 3", "notes 3", [31, 32])
        assert shop.rows("SELECT amount FROM orders WHERE id = 31") == [(100,)]

    def test_an_object_that_is_known_by_its_primary_key_only(self, shop: World) -> None:
        m, pickles = shop.models, Pickles(shop)
        with shop.session() as session:
            session.add_all([m.Document(owner_id=n, title="old", body="b") for n in CUSTOMERS])
            session.commit()
            texts = [pickles.dumps(each) for each in session.scalars(select(m.Document))]
        with shop.session() as session:
            for text in texts:
                session.merge(pickles.loads(text)).title = "merged"
            session.commit()
        with shop.session() as session:
            for text in texts:
                document = pickles.loads(text)
                session.add(document)
                document.body = "added"
            session.commit()

        assert shop.rows("SELECT title, body FROM documents") == [("merged", "added")] * 12


class TestDetached:
    def test_it_keeps_what_it_has_and_tells_what_it_lacks(self, shop: World) -> None:
        with shop.session() as session:
            customer = session.get(shop.models.Customer, 3)
        name = customer.name

        with pytest.raises(DetachedInstanceError):
            customer.orders
        assert name == "customer 3"
        assert inspect(customer).detached

    def test_it_can_move_to_another_session(self, shop: World) -> None:
        m = shop.models
        with shop.session() as first, shop.session() as second:
            customer = first.get(m.Customer, 3)
            first.expunge(customer)
            second.add(customer)
            customer.name = "changed"
            moved = object_session(customer) is second
            second.commit()

        assert moved
        assert shop.rows("SELECT name FROM customers WHERE id = 3") == [("changed",)]

    def test_expunge_all_and_delete_of_a_detached_one(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            label = session.get(m.Label, (3, 1))
            session.expunge_all()
            empty = len(session.identity_map)
            session.delete(label)
            session.commit()

        assert empty == 0
        assert len(shop.rows("SELECT * FROM labels")) == 23


class TestTransient:
    def test_made_transient_it_is_inserted_anew_under_another_key(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            customer = session.get(m.Customer, 3)
            make_transient(customer)
            customer.id = 103
            session.add(customer)
            session.commit()

        found = shop.rows("SELECT id FROM customers WHERE name = 'customer 3'")
        assert found == [(3,), (103,)]

    def test_made_detached_it_is_found_by_its_key(self, shop: World) -> None:
        m = shop.models
        customer = m.Customer(id=3)
        make_transient_to_detached(customer)
        with shop.session() as session:
            session.add(customer)

            assert customer.name == "customer 3"
            assert session.get(m.Customer, 3) is customer

    def test_made_detached_of_a_document_is_found_everywhere(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.add_all([m.Document(owner_id=n, title=f"of {n}") for n in CUSTOMERS])
            session.commit()
            ids = dict(session.execute(select(m.Document.owner_id, m.Document.id)).all())
        with world.session() as session:
            titles = []
            for number in CUSTOMERS:
                document = m.Document(id=ids[number])
                make_transient_to_detached(document)
                session.add(document)
                titles.append(document.title)

        assert titles == [f"of {n}" for n in CUSTOMERS]


class TestMerge:
    @pytest.mark.parametrize("load", [True, False])
    def test_between_two_clusters(
        self, spread_shop: World, one_shop_url: str, load: bool, clean_shards: dict[str, str]
    ) -> None:
        """The same models on four shards and on two: an object belongs to no cluster."""
        m = spread_shop.models
        urls = {name: clean_shards[name] for name in ("s0", "s1")}
        other = create_cluster(urls, name="other")
        other.create_all(m.metadata)
        theirs = World("two shards", m, other.engine, urls, other)
        theirs.fill()
        with spread_shop.session() as session:
            label = session.get(m.Label, (3, 1), options=[joinedload(m.Label.customer)])
            label.text = "from afar"
            session.flush()
            session.expunge_all()
        with theirs.session() as session:
            merged = session.merge(label, load=load)
            merged.customer.orders[0].amount = 77
            session.commit()
            text = session.get(m.Label, (3, 1)).text
        other.dispose()

        assert theirs.rows("SELECT amount FROM orders WHERE id = 31") == [(77,)]
        assert spread_shop.rows("SELECT amount FROM orders WHERE id = 31") == [(1,)]
        assert text == ("from afar" if load else "label 3.1")

    def test_of_many_with_all_their_children(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            for number in CUSTOMERS:
                orders = [m.Order(customer_id=number, id=number * 10 + 1, amount=50)]
                session.merge(m.Customer(id=number, name="merged", orders=orders))
            session.commit()

        assert set(shop.rows("SELECT name FROM customers")) == {("merged",)}
        assert shop.rows("SELECT amount FROM orders") == [(50,)] * 12

    def test_options_of_a_merge(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            merged = session.merge(
                m.Customer(id=3, name="merged"), options=[undefer(m.Customer.notes)]
            )
            loaded = "notes" in vars(merged)

        assert loaded


class TestReadingAgain:
    def test_refresh_of_some_attributes(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, shop.session() as other:
            customer = session.get(m.Customer, 3)
            other.get(m.Customer, 3).name = "changed"
            other.commit()
            session.refresh(customer, ["notes"])
            before = customer.name
            session.refresh(customer, ["name", "orders"])

            assert (before, customer.name) == ("customer 3", "changed")
            assert "notes" in vars(customer)
            assert [order.id for order in customer.orders] == [31, 32]

    @pytest.mark.parametrize("lock", [True, {"nowait": True}, {"read": True, "skip_locked": True}])
    def test_refresh_for_update(self, shop: World, lock: Any) -> None:
        with shop.session() as session:
            customer = session.get(shop.models.Customer, 3)
            session.refresh(customer, with_for_update=lock)
            locked = shop.rows(
                "SELECT relname FROM pg_locks JOIN pg_class ON oid = relation "
                "WHERE mode = 'RowShareLock' AND relname = 'customers' "
                "AND database = (SELECT oid FROM pg_database "
                "WHERE datname = current_database())"
            )
            shards = enlisted(session) if shop.cluster else {"one"}

        assert locked == [("customers",)]
        assert len(shards) == 1

    def test_expire_of_some_attributes_and_of_all(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            customers = session.scalars(select(m.Customer).order_by(m.Customer.id)).all()
            session.expire(customers[0], ["name"])
            some = "name" not in vars(customers[0]) and "region_code" in vars(customers[0])
            session.expire_all()
            names = [customer.name for customer in customers]

        assert some
        assert names == [f"customer {n}" for n in CUSTOMERS]

    def test_an_expired_object_whose_row_is_gone_is_told(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, shop.session() as other:
            label = session.get(m.Label, (3, 1))
            session.commit()
            other.delete(other.get(m.Label, (3, 1)))
            other.commit()
            with pytest.raises(ObjectDeletedError):
                label.text

    def test_is_modified_dirty_new_and_deleted(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            customer, other = session.get(m.Customer, 3), session.get(m.Label, (4, 1))
            before = session.is_modified(customer)
            customer.name = "changed"
            new = m.Customer(id=99, name="new")
            with session.no_autoflush:
                session.add(new)
                session.delete(other)

            assert (before, session.is_modified(customer)) == (False, True)
            assert (set(session.dirty), set(session.new), set(session.deleted)) == (
                {customer},
                {new},
                {other},
            )
            assert customer in session
            assert inspect(customer).identity == (3,)


class TestGet:
    def test_with_options_and_populate_existing(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, shop.session() as other:
            customer = session.get(m.Customer, 3)
            other.get(m.Customer, 3).name = "changed"
            other.commit()
            same = session.get(m.Customer, 3).name
            again = session.get(
                m.Customer, 3, options=[selectinload(m.Customer.orders)], populate_existing=True
            )

            assert (same, again.name) == ("customer 3", "changed")
            assert again is customer
            assert "orders" in vars(customer)

    def test_for_update(self, shop: World) -> None:
        with shop.session() as session:
            found = session.get(shop.models.Order, (3, 31), with_for_update={"nowait": True})

        assert found.amount == 1

    def test_by_names_and_of_what_is_not_there(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            named = session.get(m.Order, {"customer_id": 3, "id": 32})
            one = session.get_one(m.Order, (3, 32))
            with pytest.raises(InvalidRequestError, match="No row was found"):
                session.get_one(m.Order, (3, 999))

        assert named is one

    def test_an_identity_token_is_the_applications_own(self, shop: World) -> None:
        """It separates identities within a session, and says nothing of shards."""
        m = shop.models
        with shop.session() as session:
            plain = session.get(m.Customer, 3)
            apart = session.get(m.Customer, 3, identity_token="apart")

            assert plain is not apart
            assert plain.name == apart.name
            assert inspect(apart).identity_token == "apart"

    def test_objects_are_found_in_the_identity_map(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            customers = session.scalars(select(m.Customer)).all()
            keys = [inspect(each).identity_key for each in customers]

            assert all(
                session.identity_map[key] is each for key, each in zip(keys, customers, strict=True)
            )
            assert session.identity_key(m.Customer, 3) in session.identity_map


class TestBulk:
    def test_saved_inserted_and_updated_in_bulk(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.bulk_save_objects([m.Customer(id=n, name="saved") for n in CUSTOMERS])
            session.bulk_insert_mappings(
                m.Customer, [{"id": n + 100, "name": "inserted"} for n in CUSTOMERS]
            )
            session.bulk_update_mappings(
                m.Customer, [{"id": n, "name": "updated", "version": 1} for n in CUSTOMERS]
            )
            session.commit()

        names = [name for (name,) in world.rows("SELECT name FROM customers")]
        assert names == ["inserted"] * 12 + ["updated"] * 12

    def test_defaults_come_back_where_they_are_asked_for(self, world: World) -> None:
        m = world.models
        documents = [m.Document(owner_id=n, title="saved") for n in CUSTOMERS]
        with world.session() as session:
            session.bulk_save_objects(documents, return_defaults=True)
            session.commit()

        stored = {each for (each,) in world.rows("SELECT id FROM documents")}
        assert {document.id for document in documents} == stored

    def test_autoflush_can_be_held_back(self, shop: World) -> None:
        m = shop.models
        query = select(m.Customer.id).where(m.Customer.name == "pending")
        with shop.session() as session:
            session.add_all([m.Customer(id=n + 100, name="pending") for n in CUSTOMERS])
            with session.no_autoflush:
                hidden = len(session.scalars(query).all())
            seen = len(session.scalars(query).all())

        assert (hidden, seen) == (0, 12)


class TestThreads:
    def test_each_thread_with_a_session_of_its_own(self, shop: World) -> None:
        m = shop.models
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                with shop.session() as session:
                    customers = session.scalars(select(m.Customer).order_by(m.Customer.id)).all()
                    customers[number].orders[0].amount += 100
                    session.add(m.Label(customer_id=number + 1, id=50, text="thread"))
                    session.commit()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert errors == []
        assert len(shop.rows("SELECT * FROM orders WHERE amount > 100")) == 8
        assert len(shop.rows("SELECT * FROM labels WHERE id = 50")) == 8
