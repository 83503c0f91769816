"""A statement that no shard can hold a row for is answered without a query."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import and_, bindparam, delete, exists, func, literal, select, true, tuple_, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import joinedload

from sqlalchemy_shards.errors import ShardsError
from tests.shards.shop import World, enlisted

if TYPE_CHECKING:
    from collections.abc import Callable

IMPOSSIBLE: dict[str, Callable[[Any], Any]] = {
    "an empty list": lambda m: m.Customer.id.in_([]),
    "a list of nulls": lambda m: m.Customer.id.in_([None]),
    "equal to null": lambda m: m.Customer.id == literal(None, m.Customer.id.type),
    "a contradiction": lambda m: and_(m.Customer.id == 1, m.Customer.id == 2),
    "lists that share no value": lambda m: and_(
        m.Customer.id.in_([1, 2]), m.Customer.id.in_([3, 4])
    ),
}

impossible = pytest.mark.parametrize("condition", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())


def asked(world: World, session: Any) -> set[str]:
    return enlisted(session) if world.is_spread else set()


class TestReads:
    @impossible
    def test_entities_and_columns(self, shop: World, condition: Any) -> None:
        m = shop.models
        where = condition(m)
        with shop.session() as session:
            for _ in range(2):
                assert session.scalars(select(m.Customer).where(where)).all() == []
                rows = session.execute(select(m.Customer.id, m.Customer.name).where(where))
                assert list(rows.keys()) == ["id", "name"]
                assert rows.all() == []
                assert session.scalars(select(m.Customer.id).where(where)).first() is None
                assert session.execute(select(m.Customer).where(where)).mappings().all() == []
            assert asked(shop, session) == set()

    def test_statements_of_many_kinds(self, shop: World) -> None:
        m = shop.models
        nobody = m.Customer.id.in_([])
        statements = [
            select(m.Customer).options(joinedload(m.Customer.orders)).where(nobody),
            select(m.Customer, m.Order).join(m.Customer.orders).where(nobody),
            select(m.Customer.id).outerjoin(m.Customer.orders).where(nobody),
            select(m.Customer.id + 1, func.lower(m.Customer.name)).where(nobody),
            select(m.Customer.id).where(nobody).order_by(m.Customer.name).limit(3).offset(1),
            select(m.Customer.name).where(nobody).distinct(),
            select(m.Ledger).where(m.Ledger.customer_id.in_([])),
            select(m.Payment).where(m.Payment.customer_id.in_([])),
        ]
        with shop.session() as session:
            assert [session.execute(each).unique().all() for each in statements] == [[]] * 8
            assert asked(shop, session) == set()

    def test_streamed(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            statement = select(m.Customer).where(m.Customer.id.in_([]))
            found = list(session.scalars(statement, execution_options={"yield_per": 10}))
            parts = list(session.scalars(statement).partitions(2))

        assert found == parts == []

    def test_the_cursor_knows_names_and_types(self, four_shards: World) -> None:
        m = four_shards.models
        with four_shards.engine.connect() as connection:
            columns = (m.Ledger.customer_id, m.Ledger.balance, m.Ledger.balance.label("b"))
            result = connection.execute(select(*columns).where(m.Ledger.customer_id.in_([])))
            description = [tuple(each[:2]) for each in result.cursor.description]

        assert description == [("customer_id", 20), ("balance", 1700), ("b", 1700)]

    def test_a_guess_changes_no_later_row(self, shop: World) -> None:
        m = shop.models
        # SQLAlchemy takes the sum of a floating point number and an integer for a number.
        ratio = (m.Order.amount / literal(Decimal(4))).label("ratio")
        statement = select(m.Order.id, ratio, func.sqrt(m.Order.amount, type_=ratio.type))
        with shop.session() as session:
            found = [
                session.execute(
                    statement.where(m.Order.customer_id.in_(numbers)).order_by(m.Order.id)
                ).all()
                for numbers in ([], [2], [])
            ]

        assert found[0] == found[2] == []
        assert [type(value) for value in found[1][0]] == [int, Decimal, Decimal]

    def test_what_gives_a_row_of_no_rows_is_asked(self, shop: World) -> None:
        m = shop.models
        nobody = m.Customer.id.in_([])
        with shop.session() as session:
            for _ in range(2):
                assert session.scalar(select(func.count()).where(nobody)) == 0
                assert session.scalar(select(func.max(m.Customer.id)).where(nobody)) is None
                assert session.scalar(select(func.count(m.Customer.id) + 1).where(nobody)) == 1
                assert session.scalar(select(exists().where(nobody))) is False
                assert session.query(m.Customer).filter(nobody).count() == 0
                assert (
                    session.execute(
                        select(m.Customer.region_code, func.count())
                        .where(nobody)
                        .group_by(m.Customer.region_code)
                    ).all()
                    == []
                )
                assert (
                    session.scalar(select(func.count()).where(nobody).having(func.count() == 0))
                    == 0
                )
            assert len(asked(shop, session)) <= 1

    def test_an_impossible_limit_is_an_error_still(self, shop: World) -> None:
        m = shop.models
        statement = select(m.Customer.id).where(m.Customer.id.in_([])).limit(-1)
        with shop.session() as session, pytest.raises((DBAPIError, ShardsError)):
            session.execute(statement)

    def test_a_failed_transaction_refuses(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            with pytest.raises(DBAPIError):
                session.execute(select(m.Customer.id / 0).where(m.Customer.id == 1))
            with pytest.raises((DBAPIError, ShardsError)):
                session.execute(select(m.Customer).where(m.Customer.id.in_([])))


class TestWrites:
    @impossible
    def test_nothing_is_written(self, shop: World, condition: Any) -> None:
        m = shop.models
        where = condition(m)
        with shop.session() as session:
            for synchronize in (False, "fetch", "auto"):
                options = {"synchronize_session": synchronize}
                updated = session.execute(
                    update(m.Customer).where(where).values(name="x"), execution_options=options
                )
                assert updated.rowcount == 0
            deleted = session.execute(delete(m.Customer).where(where))
            assert deleted.rowcount == 0
            returning = update(m.Customer).where(where).values(name="x").returning(m.Customer.id)
            assert session.execute(returning).all() == []
            gone = delete(m.Customer).where(where).returning(m.Customer)
            assert session.scalars(gone).all() == []
            assert asked(shop, session) == set()

    def test_some_of_many_sets(self, shop: World) -> None:
        m = shop.models
        t = m.Customer.__table__
        statement = t.update().where(t.c.id == bindparam("key")).values(name=bindparam("to"))
        with shop.engine.begin() as connection:
            some = connection.execute(statement, [{"key": n, "to": "x"} for n in (1, None, 2)])
            none = connection.execute(statement, [{"key": None, "to": "x"}] * 2)

        assert (some.rowcount, none.rowcount) == (2, 0)
        assert len(shop.rows("SELECT id FROM customers WHERE name = 'x'")) == 2

    def test_pairs(self, shop: World) -> None:
        m = shop.models
        nothing = tuple_(m.Order.customer_id, m.Order.id).in_([])
        with shop.session() as session:
            assert session.scalars(select(m.Order).where(nothing, true())).all() == []


def test_the_explanation_says_so(four_shards: World) -> None:
    m = four_shards.models
    assert four_shards.cluster is not None
    explanation = four_shards.cluster.explain(select(m.Customer).where(m.Customer.id.in_([])))

    assert explanation.shards == ()
    assert str(explanation) == ("no query: no shard, because no shard can hold a matching row")
