"""`Query` with all of its methods, on one database and on a cluster.

`test_every_public_method_is_looked_at` holds the list: what SQLAlchemy adds to `Query` fails it
until it is tested here.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from sqlalchemy import Row, String, bindparam, func, literal_column, select, text
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.orm import Query, aliased, joinedload, selectinload

from sqlalchemy_shards.errors import UnsupportedStatement
from tests.shards.shop import CUSTOMERS, World, enlisted, ids

ANSWERED = {
    "add_columns": lambda q, m: q.add_columns(m.Customer.name),
    "add_entity": lambda q, m: q.join(m.Customer.region).add_entity(m.Region),
    "autoflush": lambda q, m: q.autoflush(False),
    "correlate": lambda q, m: q.correlate(m.Order),
    "enable_assertions": lambda q, m: q.enable_assertions(False),
    "enable_eagerloads": lambda q, m: q.enable_eagerloads(False),
    "execution_options": lambda q, m: q.execution_options(populate_existing=True),
    "filter": lambda q, m: q.filter(m.Customer.name != "customer 3"),
    "filter_by": lambda q, m: q.filter_by(name="customer 3"),
    "join": lambda q, m: q.join(m.Customer.orders).filter(m.Order.amount == 1),
    "limit": lambda q, m: q.limit(5),
    "offset": lambda q, m: q.offset(5),
    "options": lambda q, m: q.options(selectinload(m.Customer.orders), joinedload("*")),
    "order_by": lambda q, m: q.order_by(None).order_by(m.Customer.id.desc()),
    "outerjoin": lambda q, m: q.outerjoin(m.Customer.orders).filter(m.Order.amount == 2),
    "params": lambda q, m: q.filter(m.Customer.name == bindparam("name")).params(name="customer 4"),
    "populate_existing": lambda q, m: q.populate_existing(),
    "reset_joinpoint": lambda q, m: q.join(m.Customer.region).reset_joinpoint(),
    "select_from": lambda q, m: (
        q.session.query(m.Customer.id).select_from(m.Order).join(m.Order.customer).order_by("id")
    ),
    "set_label_style": lambda q, m: q.set_label_style(q.get_label_style),
    "slice": lambda q, m: q.slice(2, 6),
    "where": lambda q, m: q.where(m.Customer.region_code == "n"),
    "with_entities": lambda q, m: q.with_entities(m.Customer.id, m.Customer.name),
    "with_for_update": lambda q, m: q.with_for_update(),
    "with_hint": lambda q, m: q.with_hint(m.Customer, "ONLY", "oracle"),
    "with_session": lambda q, m: q.with_session(q.session),
    "with_statement_hint": lambda q, m: q.with_statement_hint("FAST", "oracle"),
    "with_transformation": lambda q, m: q.filter(m.Customer.id > 3),
    "yield_per": lambda q, m: q.yield_per(2),
}
"""Methods that return a query of rows as the shards have them; the base is ordered by id."""

OVER_ALL_ROWS = {
    "distinct": lambda q, m: q.distinct(),
    "group_by": lambda q, m: q.with_entities(m.Customer.id, func.count()).group_by(m.Customer.id),
    "having": lambda q, m: (
        q.with_entities(m.Customer.id, func.count())
        .group_by(m.Customer.id)
        .having(func.count() > 0)
    ),
    "union": lambda q, m: q.order_by(None).union(q.order_by(None)),
    "union_all": lambda q, m: q.order_by(None).union_all(q.order_by(None)),
    "intersect": lambda q, m: q.order_by(None).intersect(q.order_by(None)),
    "intersect_all": lambda q, m: q.order_by(None).intersect_all(q.order_by(None)),
    "except_": lambda q, m: q.order_by(None).except_(q.order_by(None).filter(m.Customer.id == 0)),
    "except_all": lambda q, m: q.order_by(None).except_all(
        q.order_by(None).filter(m.Customer.id == 0)
    ),
}
"""Methods that return a query which looks at rows of all shards at once."""

WITH_RAW_TEXT = {
    "prefix_with": lambda q, m: q.prefix_with("ALL"),
    "suffix_with": lambda q, m: q.order_by(None).suffix_with("FOR UPDATE"),
}
"""Methods that put raw SQL into a statement, which then must say where it runs."""

# Each has a test of its own below.
APART = set(
    "add_column all apply_labels as_scalar column_descriptions count cte delete exists first "
    "from_statement get get_execution_options get_label_style instances "
    "is_single_entity label lazy_loaded_from load_options merge_result one one_or_none "
    "only_return_tuples scalar scalar_subquery selectable statement subquery update value values "
    "tuples whereclause with_labels with_parent".split()
)

# What SQLAlchemy's own classes bring along, which asks no database anything.
MACHINERY = set(
    "allows_lambda dispatch ext get_children is_delete is_dml is_from_statement is_insert "
    "is_select is_text is_update logger logging_name memoized_attribute memoized_instancemethod "
    "supports_execution uses_inspection".split()
)


def test_every_public_method_is_looked_at() -> None:
    public = {name for name in dir(Query) if not name.startswith("_")}
    looked_at = {*ANSWERED, *OVER_ALL_ROWS, *WITH_RAW_TEXT, *APART, *MACHINERY}

    assert public - looked_at == set()


def shown(rows: list[Any]) -> list[Any]:
    """Rows with the ids of their objects, to compare them over worlds."""
    return [
        tuple(getattr(each, "id", getattr(each, "code", each)) for each in row)
        if isinstance(row, Row)
        else getattr(row, "id", row)
        for row in rows
    ]


def answer(world: World, make: Any, base: Any) -> list[Any]:
    """What a method's query gives; each in a session of its own."""
    m = world.models
    with world.session() as session:
        return shown(list(make(base(session.query(m.Customer), m), m)))


def test_queries_over_all_shards_answer_as_one_database(plain: World, four_shards: World) -> None:
    plain.fill()
    four_shards.fill()

    def everything(query: Any, m: Any) -> Any:
        return query.order_by(m.Customer.id)

    expected = {name: answer(plain, make, everything) for name, make in ANSWERED.items()}
    found = {name: answer(four_shards, make, everything) for name, make in ANSWERED.items()}

    assert found == expected
    assert all(expected.values())


def test_queries_of_one_key_answer_as_one_database(plain: World, four_shards: World) -> None:
    plain.fill()
    four_shards.fill()

    def of_one_key(query: Any, m: Any) -> Any:
        return query.filter(m.Customer.id == 3).order_by(m.Customer.id)

    expected = {name: answer(plain, make, of_one_key) for name, make in OVER_ALL_ROWS.items()}
    found = {name: answer(four_shards, make, of_one_key) for name, make in OVER_ALL_ROWS.items()}

    assert found == expected
    assert all(expected.values())


def test_queries_that_look_at_all_rows_at_once_answer_as_one_database(
    plain: World, four_shards: World
) -> None:
    plain.fill()
    four_shards.fill()

    def everything(query: Any, m: Any) -> Any:
        return query.order_by(m.Customer.id)

    expected, found = (
        {name: sorted(answer(world, make, everything)) for name, make in OVER_ALL_ROWS.items()}
        for world in (plain, four_shards)
    )

    assert found == expected
    assert all(expected.values())


def test_raw_text_must_say_where_it_runs(shop: World) -> None:
    m = shop.models
    for make in WITH_RAW_TEXT.values():
        with shop.session() as session:
            query = session.query(m.Customer).filter(m.Customer.id == 3).order_by(m.Customer.id)
            query = make(query, m)
            if shop.is_spread:
                with pytest.raises(UnsupportedStatement, match="prefix, suffix or hint"):
                    query.all()
                query = query.on_key(m.Customer, 3)

            assert ids(query.all()) == [3]


class TestEndings:
    def test_all_first_one_and_scalar(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = session.query(m.Customer).order_by(m.Customer.id)
            one = query.filter(m.Customer.id == 3)
            none = query.filter(m.Customer.id == 99)

            assert ids(query.all()) == list(CUSTOMERS)
            assert query.first().id == 1
            assert one.one().id == one.one_or_none().id == 3
            assert none.one_or_none() is None
            assert none.first() is None
            assert session.query(m.Customer.name).filter(m.Customer.id == 3).scalar() == (
                "customer 3"
            )
            with pytest.raises(NoResultFound):
                none.one()
            with pytest.raises(MultipleResultsFound):
                query.one()
            with pytest.raises(MultipleResultsFound):
                query.one_or_none()

    def test_count(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            of_key = session.query(m.Order).filter(m.Order.customer_id == 3).count()
            by_function = session.query(func.count(m.Order.id)).scalar()

        assert (of_key, by_function) == (2, 24)

    def test_indexes_and_slices(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = session.query(m.Customer).order_by(m.Customer.id)

            assert query[2].id == 3
            assert ids(query[2:5]) == [3, 4, 5]

    def test_value_and_values(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = session.query(m.Customer).filter(m.Customer.id == 3)
            with pytest.warns(Warning, match="legacy|deprecated"):
                value = query.value(m.Customer.name)
            with pytest.warns(Warning, match="legacy|deprecated"):
                values = list(query.values(m.Customer.id, m.Customer.name))

        assert (value, [tuple(row) for row in values]) == ("customer 3", [(3, "customer 3")])

    def test_get(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session, pytest.warns(Warning, match="legacy"):
            found = session.query(m.Order).get((3, 31))

        assert found.amount == 1

    def test_an_existence_check(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = session.query(m.Order.id).filter(m.Order.customer_id == 3, m.Order.amount == 1)

            assert session.query(query.exists()).scalar()

    def test_iteration_in_the_session_of_a_listener(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            names = [each.name for each in session.query(m.Customer).order_by(m.Customer.id)]

        assert names == [f"customer {n}" for n in CUSTOMERS]


class TestWrites:
    @pytest.mark.parametrize("synchronize", ["auto", "evaluate", "fetch", False])
    def test_update_and_delete_of_keys(self, shop: World, synchronize: Any) -> None:
        m = shop.models
        with shop.session() as session:
            orders = session.query(m.Order).filter(m.Order.customer_id.in_([1, 2, 3, 4]))
            updated = orders.update({m.Order.amount: 7}, synchronize_session=synchronize)
            deleted = orders.filter(m.Order.id == 31).delete(synchronize_session=synchronize)
            session.commit()

        assert (updated, deleted) == (8, 1)
        assert shop.rows("SELECT count(*) FROM orders WHERE amount = 7")[0] is not None
        assert len(shop.rows("SELECT * FROM orders WHERE amount = 7")) == 7

    def test_of_every_row(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = session.query(m.Label)
            if shop.is_spread:
                query = query.on_shard("*")  # type: ignore[attr-defined]
            updated = query.update({"text": "same"})
            deleted = query.filter(m.Label.id == 2).delete()
            session.commit()

        assert (updated, deleted) == (24, 12)
        assert shop.rows("SELECT text FROM labels") == [("same",)] * 12


class TestParts:
    def test_subqueries_ctes_and_scalar_subqueries_of_one_key(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            orders = session.query(m.Order).filter(m.Order.customer_id == 3)
            subquery, cte = orders.subquery(), orders.cte("theirs")
            largest = (
                session.query(func.max(m.Order.amount))
                .filter(m.Order.customer_id == m.Customer.id)
                .correlate(m.Customer)
            )
            customer = session.query(m.Customer).filter(m.Customer.id == 3)
            joined = customer.join(subquery, subquery.c.customer_id == m.Customer.id).one()
            of_cte = (
                session.query(m.Customer.id, cte.c.amount)
                .join(cte, cte.c.customer_id == m.Customer.id)
                .filter(m.Customer.id == 3)
                .order_by(cte.c.amount)
                .all()
            )
            labelled = customer.with_entities(largest.label("largest")).scalar()
            scalar = customer.with_entities(largest.scalar_subquery()).scalar()

        assert joined.id == 3
        assert [tuple(row) for row in of_cte] == [(3, 1), (3, 2)]
        assert labelled == scalar == 2

    def test_a_correlated_subquery_over_all_shards(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            has_large = (
                session.query(m.Order.id)
                .filter(m.Order.customer_id == m.Customer.id, m.Order.amount == 2)
                .correlate(m.Customer)
                .exists()
            )
            found = session.query(m.Customer).filter(has_large).order_by(m.Customer.id).all()

        assert ids(found) == list(CUSTOMERS)

    def test_with_parent(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = session.query(m.Order).order_by(m.Order.id)
            customer = session.get(m.Customer, 3)
            with pytest.warns(Warning, match="with_parent"):
                found = query.with_parent(customer, m.Customer.orders).all()
            shards = enlisted(session) if shop.cluster else {"one"}

        assert ids(found) == [31, 32]
        assert len(shards) == 1

    def test_aliased_entities(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            other = aliased(m.Order)
            found = (
                session.query(m.Order.id, other.id)
                .join(other, other.customer_id == m.Order.customer_id)
                .filter(m.Order.amount < other.amount)
                .order_by(m.Order.id)
                .all()
            )

        assert [tuple(row) for row in found] == [(n * 10 + 1, n * 10 + 2) for n in CUSTOMERS]

    def test_statement_selectable_and_descriptions(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = session.query(m.Customer.id, m.Customer.name).filter(m.Customer.id == 3)
            rows = session.execute(query.statement).all()
            also = session.execute(query.selectable).all()

            assert [tuple(row) for row in rows] == [tuple(row) for row in also]
            assert [each["name"] for each in query.column_descriptions] == ["id", "name"]
            assert query.whereclause is not None
            assert not query.is_single_entity
            assert query.get_execution_options() is not None
            assert query.lazy_loaded_from is None

    def test_from_statement(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            of_select = session.query(m.Customer).from_statement(
                select(m.Customer).where(m.Customer.id == 3)
            )
            of_text = session.query(m.Customer).from_statement(
                text("SELECT * FROM customers WHERE id = :id").bindparams(id=3)
            )
            if shop.is_spread:
                of_text = of_text.execution_options(shard_key=(m.Customer, 3))

            assert of_select.one() is of_text.one()

    def test_from_statement_of_several_customers(self, shop: World) -> None:
        m = shop.models
        largest_first = select(m.Customer).order_by(m.Customer.id.desc()).limit(4)
        with shop.session() as session:
            found = session.query(m.Customer).from_statement(largest_first).all()

        assert ids(found) == sorted(CUSTOMERS, reverse=True)[:4]

    def test_rows_of_another_result_become_objects(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = session.query(m.Customer).filter(m.Customer.id == 3)
            cursor = session.connection().execute(query.statement)
            with pytest.warns(Warning, match="deprecated"):
                found = list(query.instances(cursor))

        assert ids(found) == [3]

    def test_merge_result(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            frozen = session.query(m.Customer).order_by(m.Customer.id).all()
        with shop.session() as session:
            query = session.query(m.Customer)
            with pytest.warns(Warning, match="deprecated"):
                merged = list(query.merge_result(frozen, load=False))

            assert ids(merged) == list(CUSTOMERS)
            assert all(each in session for each in merged)

    def test_only_return_tuples(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = session.query(m.Customer).filter_by(id=3)
            row = query.only_return_tuples(True).one()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated since 2.1
                pairs = query.with_entities(m.Customer.id, m.Customer.name).tuples().all()

        assert row[0].id == 3
        assert [tuple(pair) for pair in pairs] == [(3, "customer 3")]

    def test_old_names_say_that_they_are_old(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            query = session.query(m.Customer.id).filter(m.Customer.id == 3)
            with pytest.warns(Warning, match="deprecated|legacy"):
                rows = query.add_column(m.Customer.name).all()
            with pytest.warns(Warning, match="deprecated|legacy"):
                scalar = session.query(query.as_scalar()).scalar()
            with pytest.warns(Warning, match="deprecated|legacy"):
                assert query.with_labels().all() == query.all()
            with pytest.warns(Warning, match="deprecated|legacy"):
                assert query.apply_labels().all() == query.all()

        assert [tuple(row) for row in rows] == [(3, "customer 3")]
        assert scalar == 3

    def test_columns_that_name_no_entity(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            found = (
                session.query(m.Customer.id, literal_column("'x'", String).label("x"))
                .filter(m.Customer.id == 3)
                .all()
            )

        assert [tuple(row) for row in found] == [(3, "x")]


class TestShardedQuery:
    def test_a_named_shard_and_a_named_key(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            home = session.shard_of(session.get(m.Customer, 3))  # type: ignore[attr-defined]
            query: Any = session.query(m.Customer)
            of_shard = query.on_shard(home).all()
            of_key = query.on_key(m.Customer, 3).all()
            of_two = query.on_shard("s0", "s1").count()

        assert ids(of_shard) == ids(of_key)
        assert 3 in ids(of_shard)
        assert 0 < of_two < 12
