"""Every way of loading gives on a cluster what it gives on one PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import InvalidRequestError, MultipleResultsFound, NoResultFound
from sqlalchemy.orm import (
    aliased,
    contains_eager,
    defaultload,
    defer,
    immediateload,
    joinedload,
    lazyload,
    load_only,
    raiseload,
    selectinload,
    subqueryload,
    undefer,
    with_loader_criteria,
)

from tests.shards.shop import CUSTOMERS, Statements, World, ids

if TYPE_CHECKING:
    from collections.abc import Callable

ORDERS = [[number * 10 + 1, number * 10 + 2] for number in CUSTOMERS]
EAGER = [joinedload, selectinload, subqueryload, immediateload]


def _name(loader: Callable[..., Any]) -> str:
    return loader.__name__


eager = pytest.mark.parametrize("loader", EAGER, ids=_name)
every_loader = pytest.mark.parametrize("loader", [*EAGER, lazyload], ids=_name)
loader_of_parents = every_loader


class TestCollections:
    @every_loader
    def test_collections_of_all_objects(self, shop: World, loader: Callable[..., Any]) -> None:
        m = shop.models
        with shop.session() as session:
            query = select(m.Customer).options(loader(m.Customer.orders)).order_by(m.Customer.id)
            customers = session.scalars(query).unique().all()
            found = [ids(customer.orders) for customer in customers]

        assert ids(customers) == list(CUSTOMERS)
        assert found == ORDERS

    @eager
    def test_eager_collections_need_no_further_statement(
        self, shop: World, loader: Callable[..., Any]
    ) -> None:
        m = shop.models
        with shop.session() as session:
            query = select(m.Customer).options(loader(m.Customer.orders)).order_by(m.Customer.id)
            customers = session.scalars(query).unique().all()
            with Statements(shop.engine) as statements:
                found = [ids(customer.orders) for customer in customers]

        assert found == ORDERS
        assert len(statements) == 0

    @eager
    def test_two_collections_at_once(self, shop: World, loader: Callable[..., Any]) -> None:
        m = shop.models
        with shop.session() as session:
            query = (
                select(m.Customer)
                .options(loader(m.Customer.orders), loader(m.Customer.labels))
                .order_by(m.Customer.id.desc())
            )
            customers = session.scalars(query).unique().all()
            found = [(ids(each.orders), ids(each.labels)) for each in customers]

        assert found == [(orders, [1, 2]) for orders in reversed(ORDERS)]

    @eager
    def test_nested_collections(self, shop: World, loader: Callable[..., Any]) -> None:
        m = shop.models
        with shop.session() as session:
            for customer in session.scalars(select(m.Customer)):
                customer.orders[0].labels = list(customer.labels)
            session.commit()
            query = (
                select(m.Customer)
                .options(loader(m.Customer.orders).options(loader(m.Order.labels)))
                .order_by(m.Customer.id)
            )
            customers = session.scalars(query).unique().all()
            found = [[ids(order.labels) for order in each.orders] for each in customers]

        assert found == [[[1, 2], []]] * len(CUSTOMERS)

    @eager
    def test_a_customers_own_collections(self, shop: World, loader: Callable[..., Any]) -> None:
        m = shop.models
        with shop.session() as session:
            customer = session.get(m.Customer, 4, options=[loader(m.Customer.orders)])
            found = ids(customer.orders)

        assert found == [41, 42]

    @pytest.mark.parametrize("loader", [joinedload, selectinload], ids=_name)
    def test_limited_collections_of_one_shard(
        self, shop: World, loader: Callable[..., Any]
    ) -> None:
        m = shop.models
        with shop.session() as session:
            query = (
                select(m.Order)
                .where(m.Order.customer_id == 6)
                .order_by(m.Order.id.desc())
                .options(loader(m.Order.labels))
                .limit(1)
            )
            found = [(order.id, order.labels) for order in session.scalars(query).unique()]

        assert found == [(62, [])]

    def test_a_collection_is_loaded_in_chunks_by_many_keys(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.add_all(
                m.Customer(id=number, name="x", orders=[m.Order(id=number, amount=1)])
                for number in range(1100)
            )
            session.commit()
            customers = session.scalars(
                select(m.Customer).options(selectinload(m.Customer.orders)).order_by(m.Customer.id)
            ).all()
            found = [ids(customer.orders) for customer in customers]

        assert found == [[number] for number in range(1100)]

    def test_contains_eager_fills_a_collection_from_a_join(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = (
                select(m.Customer)
                .join(m.Customer.orders)
                .where(m.Order.amount == 2)
                .options(contains_eager(m.Customer.orders))
                .order_by(m.Customer.id)
                .execution_options(populate_existing=True)
            )
            found = [ids(each.orders) for each in session.scalars(query).unique()]

        assert found == [[number * 10 + 2] for number in CUSTOMERS]

    def test_loader_criteria_reach_joined_and_lazy_loads(self, shop: World) -> None:
        m = shop.models
        only_first = with_loader_criteria(m.Order, m.Order.amount == 1)
        found = []
        for loader in (joinedload, selectinload, lazyload):
            with shop.session() as session:
                query = (
                    select(m.Customer)
                    .options(loader(m.Customer.orders), only_first)
                    .order_by(m.Customer.id)
                )
                customers = session.scalars(query).unique().all()
                found.append([ids(each.orders) for each in customers])

        assert found == [[[number * 10 + 1] for number in CUSTOMERS]] * 3

    def test_relationship_criteria_narrow_an_eager_load(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = (
                select(m.Customer)
                .options(selectinload(m.Customer.orders.and_(m.Order.amount > 1)))
                .order_by(m.Customer.id)
            )
            found = [ids(each.orders) for each in session.scalars(query)]

        assert found == [[number * 10 + 2] for number in CUSTOMERS]


class TestReferences:
    @loader_of_parents
    def test_parents_of_all_objects(self, shop: World, loader: Callable[..., Any]) -> None:
        m = shop.models
        with shop.session() as session:
            query = select(m.Order).options(loader(m.Order.customer)).order_by(m.Order.id)
            found = [(order.id, order.customer.name) for order in session.scalars(query)]

        assert found == [
            (number * 10 + each, f"customer {number}") for number in CUSTOMERS for each in (1, 2)
        ]

    @loader_of_parents
    def test_parents_in_a_reference_table(self, shop: World, loader: Callable[..., Any]) -> None:
        m = shop.models
        with shop.session() as session:
            query = select(m.Customer).options(loader(m.Customer.region)).order_by(m.Customer.id)
            found = [customer.region.name for customer in session.scalars(query)]

        assert found == ["South", "North"] * (len(CUSTOMERS) // 2)

    def test_parents_by_subquery_on_one_database(self, plain: World, one_shard: World) -> None:
        plain.fill()
        found = []
        for world in (plain, one_shard):
            m = world.models
            query = select(m.Order).options(subqueryload(m.Order.customer)).order_by(m.Order.id)
            with world.session() as session:
                found.append([order.customer.id for order in session.scalars(query)])

        assert found == [[n for n in CUSTOMERS for _ in (1, 2)]] * 2

    def test_a_lazy_parent_in_the_identity_map_needs_no_statement(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            customers = session.scalars(select(m.Customer)).all()
            orders = session.scalars(select(m.Order)).all()
            with Statements(shop.engine) as statements:
                owners = {order.customer for order in orders}

        assert owners == set(customers)
        assert len(statements) == 0

    def test_the_many_side_of_a_reference_row_comes_from_everywhere(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            region = session.get(m.Region, "n")
            found = sorted(ids(region.customers))

        assert found == [number for number in CUSTOMERS if number % 2 == 0]

    def test_raiseload_refuses_to_load(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            order = session.get(m.Order, (3, 31), options=[raiseload(m.Order.customer)])

            with pytest.raises(InvalidRequestError, match="raise"):
                order.customer

    @pytest.mark.parametrize("loader", [lazyload, selectinload, joinedload], ids=_name)
    def test_self_references_both_ways(self, world: World, loader: Callable[..., Any]) -> None:
        m = world.models
        with world.session() as session:
            for number in CUSTOMERS:
                session.add(
                    m.Comment(
                        customer_id=number, id=1, replies=[m.Comment(customer_id=number, id=2)]
                    )
                )
            session.commit()
            session.expunge_all()
            query = (
                select(m.Comment)
                .where(m.Comment.parent_id.is_(None))
                .order_by(m.Comment.customer_id)
                .options(loader(m.Comment.replies))
            )
            trees = [(each.id, ids(each.replies)) for each in session.scalars(query).unique()]
            parent = session.get(m.Comment, (5, 2)).parent.id

        assert trees == [(1, [2])] * len(CUSTOMERS)
        assert parent == 1


class TestColumns:
    def test_deferred_columns_are_loaded_when_they_are_read(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            customers = session.scalars(select(m.Customer).order_by(m.Customer.id)).all()
            with Statements(shop.engine) as statements:
                notes = [customer.notes for customer in customers]

        assert notes == [f"notes {number}" for number in CUSTOMERS]
        assert len(statements) == len(CUSTOMERS)

    def test_undeferred_columns_come_at_once(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = select(m.Customer).options(undefer(m.Customer.notes)).order_by(m.Customer.id)
            customers = session.scalars(query).all()
            with Statements(shop.engine) as statements:
                notes = [customer.notes for customer in customers]

        assert notes == [f"notes {number}" for number in CUSTOMERS]
        assert len(statements) == 0

    @pytest.mark.parametrize("option", ["load_only", "defer"])
    def test_partial_loads_fill_up_later(self, shop: World, option: str) -> None:
        m = shop.models
        chosen = load_only(m.Customer.id) if option == "load_only" else defer(m.Customer.name)
        with shop.session() as session:
            customers = session.scalars(
                select(m.Customer).options(chosen).order_by(m.Customer.id)
            ).all()
            was_loaded = "name" in customers[0].__dict__
            names = [customer.name for customer in customers]

        assert not was_loaded
        assert names == [f"customer {number}" for number in CUSTOMERS]

    def test_options_below_a_relationship(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = select(m.Order).options(
                joinedload(m.Order.customer),
                defaultload(m.Order.customer).undefer(m.Customer.notes),
            )
            orders = session.scalars(query.order_by(m.Order.id)).all()
            with Statements(shop.engine) as statements:
                notes = {order.customer.notes for order in orders}

        assert notes == {f"notes {number}" for number in CUSTOMERS}
        assert len(statements) == 0

    def test_computed_columns_and_column_properties(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = select(m.Order).order_by(m.Order.id)
            found = [(each.amount, each.doubled, each.tripled) for each in session.scalars(query)]

        assert found == [(1, 2, 3), (2, 4, 6)] * len(CUSTOMERS)

    def test_rows_of_entities_and_columns(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            rows = session.execute(
                select(m.Customer, m.Order.id, (m.Order.amount + 1).label("more"))
                .join(m.Customer.orders)
                .order_by(m.Order.id)
            ).all()
            found = [(row.Customer.id, row.id, row.more) for row in rows]

        assert found == [
            (number, number * 10 + each, each + 1) for number in CUSTOMERS for each in (1, 2)
        ]


class TestSelecting:
    def test_a_join_of_co_located_tables(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            found = session.execute(
                select(m.Customer.id, m.Order.id)
                .join(m.Order, m.Order.customer_id == m.Customer.id)
                .where(m.Order.amount == 1)
                .order_by(m.Customer.id)
            ).all()

        assert found == [(number, number * 10 + 1) for number in CUSTOMERS]

    def test_an_outer_join_of_co_located_tables(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            session.add_all(m.Customer(id=number, name="without") for number in range(100, 108))
            session.commit()
            found = session.execute(
                select(m.Customer.id, m.Order.id)
                .outerjoin(m.Customer.orders)
                .where(m.Customer.name == "without")
                .order_by(m.Customer.id)
            ).all()

        assert found == [(number, None) for number in range(100, 108)]

    def test_an_aliased_self_join_of_one_customers_rows(self, shop: World) -> None:
        m = shop.models
        other = aliased(m.Order)
        with shop.session() as session:
            found = session.execute(
                select(m.Order.id, other.id)
                .join(other, (other.customer_id == m.Order.customer_id) & (other.id > m.Order.id))
                .order_by(m.Order.id)
            ).all()

        assert found == [(number * 10 + 1, number * 10 + 2) for number in CUSTOMERS]

    def test_exists_and_any_of_co_located_rows(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            session.delete(session.get(m.Order, (5, 52)))
            session.flush()
            query = (
                select(m.Customer.id)
                .where(~m.Customer.orders.any(m.Order.amount == 2))
                .order_by(m.Customer.id)
            )
            found = session.scalars(query).all()

        assert found == [5]

    def test_order_limit_and_offset(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = select(m.Order.id).order_by(m.Order.amount.desc(), m.Order.id)
            found = session.scalars(query.limit(5).offset(3)).all()

        assert found == [number * 10 + 2 for number in (4, 5, 6, 7, 8)]

    def test_text_is_ordered_as_the_databases_collation_orders_it(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            found = session.scalars(select(m.Customer.name).order_by(m.Customer.name)).all()

        assert found == sorted(f"customer {number}" for number in CUSTOMERS)

    def test_numbers_are_added_up(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            found = session.execute(
                select(
                    func.count(),
                    func.sum(m.Order.amount),
                    func.min(m.Order.id),
                    func.max(m.Order.id),
                )
            ).one()

        assert found == (24, 36, 11, 122)

    def test_aggregates_of_one_customer(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = (
                select(m.Order.status, func.avg(m.Order.amount), func.array_agg(m.Order.id))
                .where(m.Order.customer_id == 8)
                .group_by(m.Order.status)
            )
            found = session.execute(query).one()

        assert (found[0], float(found[1]), found[2]) == ("new", 1.5, [81, 82])

    @pytest.mark.parametrize(
        ("customer_id", "expected"), [(1, [11, 12]), (99, [])], ids=["there", "not there"]
    )
    def test_rows_of_one_key(self, shop: World, customer_id: int, expected: list[int]) -> None:
        m = shop.models
        with shop.session() as session:
            query = select(m.Order).where(m.Order.customer_id == customer_id).order_by(m.Order.id)
            found = ids(session.scalars(query).all())

        assert found == expected

    def test_rows_of_several_keys(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = select(m.Customer.id).where(m.Customer.id.in_([3, 1, 77, 9])).order_by("id")
            found = session.scalars(query).all()
            of_none = session.scalars(query.where(m.Customer.id.in_([]))).all()

        assert (found, of_none) == ([1, 3, 9], [])

    def test_one_and_first(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            first = session.scalars(select(m.Customer).order_by(m.Customer.id)).first()
            with pytest.raises(MultipleResultsFound):
                session.scalars(select(m.Customer)).one()
            with pytest.raises(NoResultFound):
                session.scalars(select(m.Customer).where(m.Customer.name == "nobody")).one()

        assert first.id == 1

    def test_the_legacy_query(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = session.query(m.Customer)
            found = (
                query.count(),
                query.filter_by(id=3).one().name,
                ids(query.order_by(m.Customer.id.desc()).limit(2).all()),
                query.filter(m.Customer.id > 100).first(),
                session.query(m.Order.id).filter(m.Order.customer_id == 2).order_by("id").all(),
            )

        assert found == (12, "customer 3", [12, 11], None, [(21,), (22,)])

    def test_the_same_query_with_other_values_uses_its_own_values(self, shop: World) -> None:
        m = shop.models
        found, lists = [], []
        with shop.session() as session:
            for number in CUSTOMERS:
                query = select(m.Order.id).where(m.Order.customer_id == number)
                found.append(sorted(session.scalars(query).all()))
            for number in CUSTOMERS:
                keys = list(range(number, 13, 2))
                query = select(m.Order.id).where(m.Order.customer_id.in_(keys))
                lists.append(session.scalars(query.order_by(m.Order.id).limit(number)).all())

        assert found == ORDERS
        assert lists == [
            [key * 10 + each for key in range(number, 13, 2) for each in (1, 2)][:number]
            for number in CUSTOMERS
        ]


class TestRowsOfSeveralShardsThatMeet:
    """One shard alone has a part of the answer; the workspace has all of it."""

    def test_joined_collections_with_a_limit(self, shop: World) -> None:
        m = shop.models
        query = (
            select(m.Customer)
            .options(joinedload(m.Customer.orders), joinedload(m.Customer.region))
            .order_by(m.Customer.id.desc())
            .limit(3)
            .offset(1)
        )
        with shop.session() as session:
            customers = session.scalars(query).unique().all()
            with Statements(session.connection().engine) as further:
                found = [(each.id, ids(each.orders), each.region.name) for each in customers]

        assert found == [
            (11, [111, 112], "South"),
            (10, [101, 102], "North"),
            (9, [91, 92], "South"),
        ]
        assert len(further) == 0

    def test_a_join_that_is_not_co_located(self, shop: World) -> None:
        m = shop.models
        query = select(m.Customer.id, m.Order.id).join(m.Order, m.Order.amount == m.Customer.id)
        with shop.session() as session:
            found = session.execute(query).all()

        assert sorted(found) == [(1, n * 10 + 1) for n in CUSTOMERS] + [
            (2, n * 10 + 2) for n in CUSTOMERS
        ]

    def test_groups(self, shop: World) -> None:
        m = shop.models
        query = select(m.Customer.region_code, func.count()).group_by(m.Customer.region_code)
        with shop.session() as session:
            found = session.execute(query).all()

        assert sorted(found) == [("n", 6), ("s", 6)]

    def test_objects_that_were_loaded_from_the_workspace_are_written_back(
        self, shop: World
    ) -> None:
        m = shop.models
        newest = select(func.max(m.Order.id)).scalar_subquery()
        with shop.session() as session:
            order = session.scalars(select(m.Order).where(m.Order.id == newest)).one()
            order.amount = 77
            order.customer.name = "renamed"
            session.commit()

        assert shop.rows("SELECT id FROM orders WHERE amount = 77") == [(122,)]
        assert shop.rows("SELECT id FROM customers WHERE name = 'renamed'") == [(12,)]
