"""What an application changes on all shards at once, by SQLAlchemy's ways of saying it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.orm import with_loader_criteria
from sqlalchemy.orm.exc import StaleDataError

from tests.shards.shop import CUSTOMERS

if TYPE_CHECKING:
    from tests.shards.shop import World

MODES = ["evaluate", "fetch", "auto", False]
EVERYWHERE = {"scatter": "allow"}


def orders_of(session: Any, m: Any) -> list[Any]:
    return list(session.scalars(select(m.Order).order_by(m.Order.id)))


class TestByPrimaryKey:
    def test_objects_of_the_session_follow(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            orders = orders_of(session, m)
            rows = [{"customer_id": n, "id": n * 10 + 1, "amount": n} for n in CUSTOMERS]
            session.execute(update(m.Order), rows)
            seen = [each.amount for each in orders]
            session.commit()

        assert seen == [amount for n in CUSTOMERS for amount in (n, 2)]

    def test_a_missing_row_among_many_is_stale(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            with pytest.raises(StaleDataError, match=r"3 row.* 2 were matched"):
                session.execute(
                    update(m.Order),
                    [{"customer_id": n, "id": n * 10 + 1, "amount": n} for n in (1, 2, 99)],
                )
            session.rollback()

        assert shop.rows("SELECT count(*) FROM orders WHERE amount > 2")[-1] == (0,)

    @pytest.mark.parametrize("version", [1, 77])
    def test_versions_are_compared(self, shop: World, version: int) -> None:
        m = shop.models
        rows = [{"id": n, "name": "q", "version": version if n == 3 else 1} for n in CUSTOMERS]
        with shop.session() as session:
            if version == 77:
                with pytest.raises(StaleDataError):
                    session.bulk_update_mappings(m.Customer, rows)
                return
            session.bulk_update_mappings(m.Customer, rows)
            session.commit()

        assert shop.rows("SELECT version FROM customers") == [(2,)] * len(CUSTOMERS)

    def test_a_primary_key_without_the_shard_key(self, shop: World) -> None:
        m = shop.models
        ids = [uuid.UUID(int=number) for number in CUSTOMERS]
        rows = [{"id": each, "owner_id": each.int, "title": "old"} for each in ids]
        with shop.session() as session, session.begin():
            session.execute(insert(m.Document), rows)
        with shop.session() as session, session.begin():
            session.execute(update(m.Document), [{"id": i, "title": f"{i.int}"} for i in ids])

        found = shop.rows("SELECT owner_id, title FROM documents")
        assert found == [(number, f"{number}") for number in CUSTOMERS]

    def test_joined_inheritance(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, session.begin():
            session.add_all(
                [m.CardPayment(customer_id=n, id=1, amount=n, card="c") for n in CUSTOMERS]
            )
        rows = [{"customer_id": n, "id": 1, "amount": n * 2, "card": f"{n}"} for n in CUSTOMERS]
        with shop.session() as session, session.begin():
            session.execute(update(m.CardPayment), rows)

        found = shop.rows("SELECT amount, card FROM payments NATURAL JOIN card_payments")
        assert found == [(n * 2, f"{n}") for n in CUSTOMERS]


class TestManyParameterSets:
    def test_row_counts_are_those_of_all_shards(self, shop: World) -> None:
        table = shop.models.Order.__table__
        amount = bindparam("amount_")
        by_key = table.update().where(table.c.customer_id == bindparam("key"))
        by_id = table.delete().where(table.c.id == bindparam("id_"))
        with shop.engine.begin() as connection:
            sets = [{"key": n % 3 + 1, "amount_": n} for n in CUSTOMERS]
            updated = connection.execute(by_key.values(amount=amount), sets).rowcount
            sets = [{"id_": n * 10 + 2} for n in (1, 2, 3, 77)]
            deleted = connection.execute(by_id, sets, execution_options=EVERYWHERE).rowcount

        assert (updated, deleted) == (24, 3)


class TestSynchronization:
    @pytest.mark.parametrize("mode", MODES)
    def test_objects_of_all_shards_follow(self, shop: World, mode: Any) -> None:
        m = shop.models
        raised = update(m.Order).where(m.Order.amount == 1).values(amount=m.Order.amount + 5)
        options = {"synchronize_session": mode, **EVERYWHERE}
        with shop.session() as session:
            orders = orders_of(session, m)
            session.execute(raised, execution_options=options)
            amounts = [each.amount for each in orders]
            session.execute(delete(m.Order).where(m.Order.amount == 6), execution_options=options)
            are_there = [each in session for each in orders]
            session.rollback()
            before = [each.amount for each in orders]

        assert amounts == ([1, 2] if mode is False else [6, 2]) * len(CUSTOMERS)
        assert are_there == ([True, True] if mode is False else [False, True]) * len(CUSTOMERS)
        assert before == [1, 2] * len(CUSTOMERS)

    @pytest.mark.parametrize("mode", ["fetch", "auto", False])
    def test_objects_follow_what_rows_of_other_shards_decide(self, shop: World, mode: Any) -> None:
        m = shop.models
        named = update(m.Order).where(m.Order.amount == m.Customer.id, m.Customer.id == 2)
        options = {"synchronize_session": mode, **EVERYWHERE}
        with shop.session() as session:
            orders = orders_of(session, m)
            session.execute(named.values(status=m.Customer.name), execution_options=options)
            states = [each.status for each in orders]

        changed = "new" if mode is False else "customer 2"
        assert states == ["new", changed] * len(CUSTOMERS)

    def test_the_old_query_interface(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            session.connection(execution_options=EVERYWHERE)
            orders = orders_of(session, m)
            query = session.query(m.Order)
            updated = query.filter(m.Order.amount == 1).update({"amount": m.Order.amount + 5})
            some = query.filter(m.Order.amount.in_(select(m.Customer.id)))
            updated_by_others = some.update({"status": "q"}, synchronize_session="fetch")
            deleted = session.query(m.Label).filter(m.Label.id == m.Order.amount).delete()

            assert [each.amount for each in orders] == [6, 2] * len(CUSTOMERS)
            assert {each.status for each in orders} == {"q"}
        assert (updated, updated_by_others, deleted) == (12, 24, 12)


class TestReturning:
    def test_objects_that_the_session_holds(self, shop: World) -> None:
        m = shop.models
        raised = update(m.Order).where(m.Order.amount == 1).values(amount=9).returning(m.Order)
        gone = delete(m.Label).where(m.Label.id == 1).returning(m.Label)
        with shop.session() as session:
            orders = orders_of(session, m)
            # SQLAlchemy 2.0.51 leaves what it fetches of held objects unless it is told to.
            anew = {**EVERYWHERE, "populate_existing": True}
            found = session.scalars(raised, execution_options=anew).all()
            texts = {each.text for each in session.scalars(gone, execution_options=EVERYWHERE)}

        assert {id(each) for each in found} == {id(each) for each in orders[::2]}
        assert {(each.amount, each.doubled) for each in found} == {(9, 18)}
        assert texts == {f"label {number}.1" for number in CUSTOMERS}

    def test_objects_with_columns_of_tables_of_other_shards(self, shop: World) -> None:
        m = shop.models
        statement = (
            update(m.Order)
            .where(m.Order.amount == m.Customer.id)
            .values(status=m.Customer.name)
            .returning(m.Order, m.Customer.name)
        )
        with shop.session() as session:
            found = session.execute(statement, execution_options=EVERYWHERE).all()

            assert len(found) == 24
            assert all(order.status == name == f"customer {order.amount}" for order, name in found)


class TestWithinASession:
    def test_what_is_pending_is_flushed_before(self, shop: World) -> None:
        m = shop.models
        highest = select(func.max(m.Order.amount)).scalar_subquery()
        statement = update(m.Order).where(m.Order.amount == highest).values(status="most")
        with shop.session() as session:
            session.add(m.Order(customer_id=5, id=501, amount=7))
            count = session.execute(statement, execution_options=EVERYWHERE).rowcount
            session.commit()

        assert count == 1
        assert shop.rows("SELECT id FROM orders WHERE status = 'most'") == [(501,)]

    def test_criteria_for_all_statements_reach_a_change(self, shop: World) -> None:
        m = shop.models
        statement = update(m.Order).where(m.Order.amount == m.Customer.id).values(status="s")
        soft = with_loader_criteria(m.Order, m.Order.id > 50)
        with shop.session() as session:
            count = session.execute(statement.options(soft), execution_options=EVERYWHERE).rowcount

        assert count == 16

    def test_versions_go_on_after_a_change_of_all(self, shop: World) -> None:
        m = shop.models
        statement = update(m.Customer).where(m.Customer.name != "x").values(name="y")
        with shop.session() as session:
            customers = list(session.scalars(select(m.Customer).order_by(m.Customer.id)))
            session.execute(statement, execution_options=EVERYWHERE)
            customers[0].name = customers[5].name = "z"
            session.commit()

        assert shop.rows("SELECT id FROM customers WHERE name = 'z'") == [(1,), (6,)]
