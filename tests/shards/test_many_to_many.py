"""Secondary tables: both sides beside each other, or one side a reference table."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.orm import joinedload, selectinload, subqueryload

from tests.shards.shop import CUSTOMERS, World, ids

LOADERS = [selectinload, joinedload, subqueryload]
PAIRS = [(number, number * 10 + 1, each) for number in CUSTOMERS for each in (1, 2)]


def label_first_orders(shop: World) -> None:
    m = shop.models
    with shop.session() as session, session.begin():
        for customer in session.scalars(select(m.Customer)):
            customer.orders[0].labels = list(customer.labels)


def add_topics(shop: World) -> None:
    """Topic "all" for every customer, "even" for those with an even number."""
    m = shop.models
    with shop.session() as session, session.begin():
        every, even = m.Topic(code="all"), m.Topic(code="even")
        session.add_all([every, even])
        session.flush()
        for customer in session.scalars(select(m.Customer)):
            customer.topics = [every, even] if customer.id % 2 == 0 else [every]


class TestCoLocated:
    def test_links_are_stored_beside_both_sides(self, shop: World) -> None:
        label_first_orders(shop)

        links = shop.rows("SELECT customer_id, order_id, label_id FROM order_labels")
        orders = shop.rows_by_shard("SELECT customer_id FROM orders")
        by_shard = shop.rows_by_shard("SELECT customer_id FROM order_labels")
        assert links == PAIRS
        assert all(set(by_shard[name]) == set(orders[name]) for name in shop.urls)

    @pytest.mark.parametrize("loader", LOADERS)
    def test_they_are_loaded_eagerly(self, shop: World, loader: object) -> None:
        label_first_orders(shop)
        m = shop.models
        with shop.session() as session:
            query = select(m.Order).options(loader(m.Order.labels)).order_by(m.Order.id)  # type: ignore[operator]
            found = [ids(order.labels) for order in session.scalars(query).unique()]

        assert found == [[1, 2], []] * len(CUSTOMERS)

    def test_they_are_loaded_lazily_both_ways(self, shop: World) -> None:
        label_first_orders(shop)
        m = shop.models
        with shop.session() as session:
            forth = ids(session.get(m.Order, (5, 51)).labels)
            back = ids(session.get(m.Label, (5, 1)).orders)

        assert (forth, back) == ([1, 2], [51])

    def test_links_are_removed_and_added(self, shop: World) -> None:
        label_first_orders(shop)
        m = shop.models
        with shop.session() as session:
            for number in CUSTOMERS:
                order = session.get(m.Order, (number, number * 10 + 1))
                order.labels.remove(order.labels[0])
                session.get(m.Label, (number, 1)).orders = [
                    session.get(m.Order, (number, number * 10 + 2))
                ]
            session.commit()

        assert shop.rows("SELECT customer_id, order_id, label_id FROM order_labels") == [
            (number, number * 10 + order, label)
            for number in CUSTOMERS
            for order, label in ((1, 2), (2, 1))
        ]

    def test_deleting_one_side_deletes_its_links(self, shop: World) -> None:
        label_first_orders(shop)
        m = shop.models
        with shop.session() as session:
            for number in (2, 3, 4):
                session.delete(session.get(m.Order, (number, number * 10 + 1)))
            session.commit()

        assert shop.rows("SELECT DISTINCT customer_id FROM order_labels") == [
            (number,) for number in CUSTOMERS if number not in (2, 3, 4)
        ]

    def test_a_query_joins_through_the_secondary(self, shop: World) -> None:
        label_first_orders(shop)
        m = shop.models
        with shop.session() as session:
            found = session.execute(
                select(m.Order.id, m.Label.text)
                .join(m.Order.labels)
                .where(m.Label.id == 2)
                .order_by(m.Order.id)
            ).all()

        assert found == [(number * 10 + 1, f"label {number}.2") for number in CUSTOMERS]

    def test_any_looks_through_the_secondary(self, shop: World) -> None:
        label_first_orders(shop)
        m = shop.models
        with shop.session() as session:
            query = select(m.Order.id).where(m.Order.labels.any(m.Label.id == 1))
            found = session.scalars(query.order_by(m.Order.id)).all()

        assert found == [number * 10 + 1 for number in CUSTOMERS]


class TestWithAReferenceTable:
    def test_links_lie_with_the_sharded_side(self, shop: World) -> None:
        add_topics(shop)

        customers = shop.rows_by_shard("SELECT id FROM customers")
        links = shop.rows_by_shard("SELECT DISTINCT customer_id FROM customer_topics")
        topics = shop.rows_by_shard("SELECT code FROM topics")
        assert links == customers
        assert all(each == [("all",), ("even",)] for each in topics.values())

    @pytest.mark.parametrize("loader", LOADERS)
    def test_topics_of_customers_eagerly(self, shop: World, loader: object) -> None:
        add_topics(shop)
        m = shop.models
        with shop.session() as session:
            query = select(m.Customer).options(loader(m.Customer.topics)).order_by(m.Customer.id)  # type: ignore[operator]
            found = [[t.code for t in each.topics] for each in session.scalars(query).unique()]

        assert found == [["all"], ["all", "even"]] * (len(CUSTOMERS) // 2)

    def test_topics_of_a_customer_lazily(self, shop: World) -> None:
        add_topics(shop)
        m = shop.models
        with shop.session() as session:
            found = [topic.code for topic in session.get(m.Customer, 6).topics]

        assert found == ["all", "even"]

    def test_customers_of_a_topic_come_from_every_shard(self, shop: World) -> None:
        add_topics(shop)
        m = shop.models
        with shop.session() as session:
            found = ids(session.get(m.Topic, "all").customers)
            even = ids(session.get(m.Topic, "even").customers)

        assert found == list(CUSTOMERS)
        assert even == [number for number in CUSTOMERS if number % 2 == 0]

    def test_customers_of_topics_eagerly(self, shop: World) -> None:
        add_topics(shop)
        m = shop.models
        with shop.session() as session:
            query = select(m.Topic).options(selectinload(m.Topic.customers)).order_by(m.Topic.code)
            found = {topic.code: ids(topic.customers) for topic in session.scalars(query)}

        assert found == {"all": list(CUSTOMERS), "even": [2, 4, 6, 8, 10, 12]}
