"""Joined and single-table inheritance: children lie with their base."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import selectin_polymorphic, with_polymorphic

from tests.shards.shop import CUSTOMERS, Statements, World


@pytest.fixture
def payments(world: World) -> World:
    """One payment of each class per customer."""
    m = world.models
    with world.session() as session, session.begin():
        for number in CUSTOMERS:
            session.add_all(
                [
                    m.Payment(customer_id=number, id=1, amount=1),
                    m.CardPayment(customer_id=number, id=2, amount=2, card=f"card {number}"),
                    m.VoucherPayment(customer_id=number, id=3, amount=3, voucher=f"v{number}"),
                ]
            )
    return world


def seen(payment: Any) -> tuple[Any, ...]:
    detail = getattr(payment, "card", None) or getattr(payment, "voucher", None)
    return type(payment).__name__, payment.customer_id, payment.amount, detail


EVERY = [
    row
    for number in CUSTOMERS
    for row in (
        ("Payment", number, 1, None),
        ("CardPayment", number, 2, f"card {number}"),
        ("VoucherPayment", number, 3, f"v{number}"),
    )
]


def test_parts_of_an_object_lie_on_one_shard(payments: World) -> None:
    base = payments.rows_by_shard("SELECT customer_id, id FROM payments WHERE kind = 'card'")
    child = payments.rows_by_shard("SELECT customer_id, id FROM card_payments")

    assert base == child
    assert all(base.values())


def test_a_query_of_the_base_gives_every_class(payments: World) -> None:
    m = payments.models
    with payments.session() as session:
        query = select(m.Payment).order_by(m.Payment.customer_id, m.Payment.id)
        found = [seen(each) for each in session.scalars(query)]

    assert found == EVERY


@pytest.mark.parametrize("how", ["with_polymorphic", "selectin_polymorphic"])
def test_children_are_loaded_with_the_base(payments: World, how: str) -> None:
    m = payments.models
    with payments.session() as session:
        entity = m.Payment
        if how == "with_polymorphic":
            entity = with_polymorphic(m.Payment, [m.CardPayment, m.VoucherPayment])
            query = select(entity)
        else:
            query = select(entity).options(
                selectin_polymorphic(m.Payment, [m.CardPayment, m.VoucherPayment])
            )
        objects = session.scalars(query.order_by(entity.customer_id, entity.id)).all()
        with Statements(payments.engine) as statements:
            found = [seen(each) for each in objects]

    assert found == EVERY
    assert len(statements) == 0


def test_a_query_of_a_joined_child(payments: World) -> None:
    m = payments.models
    with payments.session() as session:
        query = select(m.CardPayment).order_by(m.CardPayment.customer_id)
        found = [seen(each) for each in session.scalars(query)]
        of_one = session.scalars(
            select(m.CardPayment.card).where(m.CardPayment.customer_id == 7)
        ).one()

    assert found == [row for row in EVERY if row[0] == "CardPayment"]
    assert of_one == "card 7"


def test_a_query_of_a_single_table_child(payments: World) -> None:
    m = payments.models
    with payments.session() as session:
        query = select(m.VoucherPayment).order_by(m.VoucherPayment.customer_id)
        found = [seen(each) for each in session.scalars(query)]
        total = session.scalar(select(func.sum(m.VoucherPayment.amount)))

    assert found == [row for row in EVERY if row[0] == "VoucherPayment"]
    assert total == 3 * len(CUSTOMERS)


def test_get_gives_the_right_class(payments: World) -> None:
    m = payments.models
    with payments.session() as session:
        found = [seen(session.get(m.Payment, (5, number))) for number in (1, 2, 3)]
        other_class = session.get(m.CardPayment, (6, 1))

    assert found == [row for row in EVERY if row[1] == 5]
    assert other_class is None


def test_updates_reach_both_tables(payments: World) -> None:
    m = payments.models
    with payments.session() as session:
        for payment in session.scalars(select(m.CardPayment)):
            payment.amount += 100
            payment.card = "changed"
        session.commit()

    assert payments.rows("SELECT DISTINCT amount FROM payments WHERE kind = 'card'") == [
        (102,)
    ] * len(payments.urls)
    assert len(payments.rows("SELECT * FROM card_payments WHERE card = 'changed'")) == 12


def test_deletes_reach_both_tables(payments: World) -> None:
    m = payments.models
    with payments.session() as session:
        for number in (1, 2, 3, 4):
            session.delete(session.get(m.Payment, (number, 2)))
        session.commit()

    left = [(number,) for number in CUSTOMERS if number > 4]
    assert payments.rows("SELECT customer_id FROM payments WHERE kind = 'card'") == left
    assert payments.rows("SELECT customer_id FROM card_payments") == left


def test_bulk_statements_of_children(payments: World) -> None:
    m = payments.models
    with payments.session() as session:
        session.execute(
            insert(m.CardPayment),
            [{"customer_id": n, "id": 20, "amount": 20, "card": "bulk"} for n in CUSTOMERS],
        )
        updated = session.execute(
            update(m.VoucherPayment)
            .where(m.VoucherPayment.customer_id.in_([1, 2, 3]))
            .values(voucher="changed")
        ).rowcount
        deleted = session.execute(
            delete(m.VoucherPayment).where(m.VoucherPayment.customer_id == 4)
        ).rowcount
        session.commit()

    assert (updated, deleted) == (3, 1)
    assert payments.rows("SELECT customer_id FROM card_payments WHERE id = 20") == [
        (number,) for number in CUSTOMERS
    ]
    assert payments.rows("SELECT customer_id FROM payments WHERE voucher = 'changed'") == [
        (1,),
        (2,),
        (3,),
    ]
