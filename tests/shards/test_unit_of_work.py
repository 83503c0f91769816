"""The unit of work does on a cluster what it does on one PostgreSQL."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy import func, inspect, select, update
from sqlalchemy.exc import (
    IntegrityError,
    InvalidRequestError,
    SQLAlchemyError,
)
from sqlalchemy.orm import make_transient, object_session, sessionmaker
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from sqlalchemy_shards import ShardedSession
from tests.shards.shop import CUSTOMERS, Statements, World, make_customer


class TestWriting:
    def test_a_graph_of_objects_is_stored_with_its_keys(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.add_all([m.Region(code="n", name="North"), m.Region(code="s", name="South")])
            session.add_all([make_customer(m, number) for number in CUSTOMERS])
            session.commit()

        assert world.rows("SELECT customer_id, id, amount FROM orders") == [
            (number, number * 10 + each, each) for number in CUSTOMERS for each in (1, 2)
        ]
        assert world.rows("SELECT customer_id, id, text FROM labels") == [
            (number, each, f"label {number}.{each}") for number in CUSTOMERS for each in (1, 2)
        ]

    def test_nothing_is_stored_before_the_commit(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.add_all([m.Customer(id=number, name="x") for number in CUSTOMERS])
            session.flush()
            unseen = world.rows("SELECT * FROM customers")
            session.commit()

        assert unseen == []
        assert len(world.rows("SELECT * FROM customers")) == len(CUSTOMERS)

    def test_a_changed_attribute_alone_is_updated(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, Statements(shop.engine) as statements:
            session.get(m.Customer, 5).name = "changed"
            session.commit()

        updates = [each for each in statements if each.startswith("UPDATE")]
        assert [each.partition(" WHERE")[0] for each in updates] == [
            "UPDATE customers SET name=%(name)s::VARCHAR, version=%(version)s::INTEGER"
        ]
        assert shop.rows("SELECT id, version FROM customers WHERE name = 'changed'") == [(5, 2)]

    def test_many_changed_objects_are_updated(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            for order in session.scalars(select(m.Order)):
                order.amount += 100
            session.commit()

        assert shop.rows("SELECT id, amount FROM orders") == [
            (number * 10 + each, each + 100) for number in CUSTOMERS for each in (1, 2)
        ]

    def test_deleting_an_object_deletes_its_children_first(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            for number in (1, 4, 7):
                session.delete(session.get(m.Customer, number))
            session.commit()

        left = [(number,) for number in CUSTOMERS if number not in (1, 4, 7)]
        assert shop.rows("SELECT id FROM customers") == left
        assert shop.rows("SELECT DISTINCT customer_id FROM orders") == left
        assert shop.rows("SELECT DISTINCT customer_id FROM labels") == left

    def test_an_orphan_is_deleted(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            customer = session.get(m.Customer, 3)
            customer.orders.remove(customer.orders[0])
            session.commit()

        assert shop.rows("SELECT id FROM orders WHERE customer_id = 3") == [(32,)]

    def test_a_reference_is_set_to_null(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            session.get(m.Customer, 3).region = None
            session.commit()

        assert shop.rows("SELECT id FROM customers WHERE region_code IS NULL") == [(3,)]

    def test_inserts_updates_and_deletes_mix_in_one_flush(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            session.add(m.Customer(id=100, name="new", orders=[m.Order(id=1, amount=1)]))
            session.get(m.Customer, 2).name = "changed"
            session.delete(session.get(m.Customer, 6))
            session.get(m.Customer, 8).orders[0].amount = 80
            session.commit()

        assert shop.rows("SELECT id, name FROM customers WHERE id IN (2, 6, 100)") == [
            (2, "changed"),
            (100, "new"),
        ]
        assert shop.rows("SELECT amount FROM orders WHERE id = 81 OR customer_id = 100") == [
            (1,),
            (80,),
        ]

    def test_merge_updates_what_is_there_and_adds_what_is_not(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            merged = session.merge(m.Customer(id=2, name="merged"))
            added = session.merge(m.Customer(id=200, name="added"))
            session.commit()
            versions = merged.version, added.version

        assert versions == (2, 1)
        assert shop.rows("SELECT id, name FROM customers WHERE name IN ('merged', 'added')") == [
            (2, "merged"),
            (200, "added"),
        ]

    def test_a_rolled_back_transaction_leaves_nothing(self, shop: World) -> None:
        m = shop.models
        before = shop.rows("SELECT id, name, version FROM customers")
        with shop.session() as session:
            session.add_all([m.Customer(id=number, name="x") for number in range(100, 120)])
            for number in CUSTOMERS:
                session.get(m.Customer, number).name = "y"
            session.flush()
            session.rollback()

        assert shop.rows("SELECT id, name, version FROM customers") == before

    def test_sessionmaker_begin_commits_and_rolls_back(self, world: World) -> None:
        m = world.models
        arguments = (
            {"class_": ShardedSession, "cluster": world.cluster}
            if world.cluster
            else {"bind": world.engine}
        )
        make_session = sessionmaker(**arguments)
        with make_session.begin() as session:
            session.add_all([m.Customer(id=number, name="kept") for number in CUSTOMERS])
        with suppress(ZeroDivisionError), make_session.begin() as session:
            session.add_all([m.Customer(id=100 + number, name="lost") for number in CUSTOMERS])
            session.flush()
            1 / 0

        assert len(world.rows("SELECT * FROM customers WHERE name = 'kept'")) == len(CUSTOMERS)
        assert world.rows("SELECT * FROM customers WHERE name = 'lost'") == []


class TestStates:
    def test_objects_keep_their_identity_within_a_session(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            loaded = session.scalars(select(m.Customer).order_by(m.Customer.id)).all()
            same = [session.get(m.Customer, number) for number in CUSTOMERS]

        assert all(one is other for one, other in zip(loaded, same, strict=True))

    def test_get_of_what_is_not_there_is_none(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            found = [session.get(m.Customer, number) for number in range(50, 60)]

        assert found == [None] * 10

    def test_values_made_by_the_server_come_back_to_their_objects(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            customers = [m.Customer(id=number, name=str(number)) for number in CUSTOMERS]
            session.add_all(customers)
            session.flush()
            homes = {customer.id: customer.home for customer in customers}
            session.commit()

        stored = dict(world.rows("SELECT id, home FROM customers"))
        assert homes == stored
        assert len(set(homes.values())) == len(world.urls)

    def test_commit_expires_and_the_next_read_sees_what_others_wrote(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, shop.session() as other:
            customer = session.get(m.Customer, 9)
            session.commit()
            other.get(m.Customer, 9).name = "from the other session"
            other.commit()
            name = customer.name

        assert name == "from the other session"

    def test_refresh_and_expire_read_again(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            customer = session.get(m.Customer, 9)
            customer.name = "never stored"
            session.expire(customer, ["name"])
            expired = customer.name
            customer.name = "never stored either"
            session.refresh(customer)
            refreshed = customer.name

        assert (expired, refreshed) == ("customer 9", "customer 9")

    def test_refresh_for_update_locks_the_row(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, shop.session() as other:
            session.refresh(session.get(m.Customer, 9), with_for_update=True)
            skipped = other.scalars(
                select(m.Customer).where(m.Customer.id == 9).with_for_update(skip_locked=True)
            ).all()

        assert skipped == []

    def test_rollback_restores_attributes_and_states(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            customer, victim = session.get(m.Customer, 1), session.get(m.Customer, 2)
            new = m.Customer(id=300, name="new")
            customer.name = "changed"
            session.add(new)
            session.delete(victim)
            session.flush()
            session.rollback()
            name, is_transient, is_back = (
                customer.name,
                inspect(new).transient,
                victim in session,
            )

        assert (name, is_transient, is_back) == ("customer 1", True, True)

    def test_a_row_that_vanished_is_told(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, shop.session() as other:
            order = session.get(m.Order, (4, 41))
            session.expire_all()
            other.delete(other.get(m.Order, (4, 41)))
            other.commit()

            with pytest.raises(ObjectDeletedError):
                order.amount

    def test_stale_versions_are_told(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, shop.session() as other:
            mine, theirs = session.get(m.Customer, 4), other.get(m.Customer, 4)
            theirs.name = "first"
            other.commit()
            mine.name = "second"

            with pytest.raises(StaleDataError):
                session.commit()
        assert shop.rows("SELECT name FROM customers WHERE id = 4") == [("first",)]

    def test_stale_versions_are_told_among_many(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, shop.session() as other:
            mine = session.scalars(select(m.Customer)).all()
            other.get(m.Customer, 4).name = "first"
            other.commit()
            for customer in mine:
                customer.name = "second"

            with pytest.raises(StaleDataError):
                session.commit()
        assert len(shop.rows("SELECT id FROM customers WHERE name = 'second'")) == 0

    def test_deleting_a_vanished_row_among_many_warns(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, shop.session() as other:
            mine = session.scalars(select(m.Label)).all()
            other.delete(other.get(m.Label, (4, 1)))
            other.commit()
            for label in mine:
                session.delete(label)

            with pytest.warns(match=r"expected to delete 24 row\(s\); 23 were matched"):
                session.commit()

    def test_a_detached_object_can_be_attached_again(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            customer = session.get(m.Customer, 7)
        with shop.session() as session:
            was_detached = object_session(customer) is None
            session.add(customer)
            customer.name = "attached"
            session.commit()

        assert was_detached
        assert shop.rows("SELECT id FROM customers WHERE name = 'attached'") == [(7,)]

    def test_a_persistent_object_made_transient_is_inserted_anew(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            label = session.get(m.Label, (7, 1))
            make_transient(label)
            label.id = 3
            session.add(label)
            session.commit()

        assert len(shop.rows("SELECT * FROM labels WHERE customer_id = 7")) == 3

    def test_expunged_objects_are_left_alone(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            customer = session.get(m.Customer, 7)
            customer.name = "expunged"
            session.expunge(customer)
            session.commit()

        assert shop.rows("SELECT name FROM customers WHERE id = 7") == [("customer 7",)]


class TestFlushing:
    def test_autoflush_lets_a_query_see_what_is_pending(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            session.add(m.Customer(id=100, name="pending"))
            found = session.scalars(select(m.Customer.id).where(m.Customer.name == "pending")).all()

        assert found == [100]

    def test_no_autoflush_hides_what_is_pending(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, session.no_autoflush:
            session.add(m.Customer(id=100, name="pending"))
            found = session.scalars(select(m.Customer.id).where(m.Customer.name == "pending")).all()

        assert found == []

    def test_a_transaction_reads_its_own_writes_on_all_shards(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.add_all([m.Customer(id=number, name="x") for number in CUSTOMERS])
            count = session.scalar(select(func.count()).select_from(m.Customer))
            session.rollback()

        assert count == len(CUSTOMERS)

    def test_an_sql_expression_as_value_is_computed_by_the_server(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            order = session.get(m.Order, (2, 22))
            order.amount = m.Order.amount + 40
            session.flush()
            amount, doubled = order.amount, order.doubled

        assert (amount, doubled) == (42, 84)

    def test_a_duplicate_key_is_refused_and_the_session_recovers(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            session.add(m.Customer(id=500, name="new"))
            session.add(m.Customer(id=5, name="duplicate"))
            with pytest.raises(IntegrityError):
                session.commit()
            session.rollback()
            session.add(m.Customer(id=501, name="after"))
            session.commit()

        assert shop.rows("SELECT id FROM customers WHERE id >= 500") == [(501,)]

    def test_a_deferred_constraint_fails_the_commit_everywhere(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.add_all([m.Ledger(customer_id=number, balance=1) for number in CUSTOMERS])
            session.get(m.Ledger, 3).parent_id = 999
            session.flush()
            with pytest.raises(SQLAlchemyError, match="ledgers_parent_id_fkey"):
                session.commit()
            with pytest.raises(InvalidRequestError, match="no further SQL"):
                session.get(m.Ledger, 1)
            session.rollback()
            found = session.get(m.Ledger, 1)

        assert found is None
        assert world.rows("SELECT * FROM ledgers") == []

    def test_a_failed_flush_refuses_everything_until_rollback(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            session.add(m.Customer(id=5, name="duplicate"))
            with pytest.raises(IntegrityError):
                session.flush()
            session.rollback()
            with pytest.raises(IntegrityError):
                session.execute(
                    update(m.Order)
                    .where(m.Order.customer_id == 5, m.Order.id == 51)
                    .values(amount=None)
                )
            with pytest.raises(Exception, match="current transaction is aborted"):
                session.get(m.Customer, 6)
            session.rollback()
            name = session.get(m.Customer, 6).name

        assert name == "customer 6"

    def test_a_self_referential_tree_is_stored_parents_first(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            for number in CUSTOMERS:
                session.add(
                    m.Comment(
                        customer_id=number,
                        id=2,
                        replies=[
                            m.Comment(customer_id=number, id=1),
                            m.Comment(customer_id=number, id=3),
                        ],
                    )
                )
            session.commit()
            tree = [
                [reply.id for reply in session.get(m.Comment, (number, 2)).replies]
                for number in CUSTOMERS
            ]

        assert tree == [[1, 3]] * len(CUSTOMERS)

    def test_a_closed_session_gives_everything_back(self, shop: World) -> None:
        m = shop.models
        session = shop.session()
        session.scalars(select(m.Customer)).all()
        session.close()
        open_transactions = shop.rows(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND state LIKE 'idle in transaction%'"
        )

        assert open_transactions == []

    def test_begin_twice_is_an_error(self, shop: World) -> None:
        with shop.session() as session:
            session.begin()

            with pytest.raises(InvalidRequestError):
                session.begin()


class TestSameStatements:
    """SQLAlchemy above is unchanged: it sends what it would send to one PostgreSQL."""

    def test_flushes_and_loads_emit_the_statements_of_plain_sqlalchemy(
        self, plain: World, four_shards: World
    ) -> None:
        texts = []
        for world in (plain, four_shards):
            m = world.models
            with Statements(world.engine) as statements:
                world.fill()
                with world.session() as session:
                    for number in CUSTOMERS:
                        session.get(m.Customer, number).name = "changed"
                    session.add(m.Order(customer_id=3, id=1, amount=1))
                    session.delete(session.get(m.Label, (1, 1)))
                    session.flush()
                    session.scalars(select(m.Customer).where(m.Customer.id == 2)).one().orders
                    session.commit()
            texts.append(list(statements))

        assert texts[1] == texts[0]
