"""Results and their methods, and the kinds of statements that give them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import (
    bindparam,
    delete,
    func,
    insert,
    lambda_stmt,
    literal_column,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.exc import (
    InvalidRequestError,
    MultipleResultsFound,
    NoResultFound,
    ObjectNotExecutableError,
)
from sqlalchemy.ext import baked
from sqlalchemy.orm import joinedload

from sqlalchemy_shards.errors import MissingShardKey, UnsupportedStatement
from tests.shards.shop import CUSTOMERS, World, ids

TWELVE = list(CUSTOMERS)

HARMLESS: list[dict[str, Any]] = [
    {"stream_results": True},
    {"stream_results": True, "max_row_buffer": 2},
    {"yield_per": 3},
    {"preserve_rowcount": True},
    {"logging_token": "a token"},
    {"no_parameters": True},
]

OVER_ALL_ROWS: dict[str, Any] = {
    "group by": lambda m: select(m.Order.amount, func.count()).group_by(m.Order.amount),
    "distinct": lambda m: select(m.Order.amount).distinct(),
    "union": lambda m: select(m.Order.id).union(select(m.Label.id)),
    "window": lambda m: select(func.row_number().over(order_by=m.Order.id)).select_from(m.Order),
    "avg": lambda m: select(func.avg(m.Order.amount)),
    "join": lambda m: select(m.Order.id).join(m.Label, m.Label.id == m.Order.amount),
}


def pairs(m: Any) -> Any:
    return select(m.Customer.id, m.Customer.name).order_by(m.Customer.id)


class TestResults:
    def test_fetching(self, shop: World) -> None:
        m = shop.models
        with shop.engine.connect() as connection:
            result = connection.execute(pairs(m))
            first, some = result.fetchone(), result.fetchmany(3)
            rest = result.fetchall()
            nothing = (result.fetchone(), result.fetchmany(2), result.fetchall())

        assert first == (1, "customer 1")
        assert [row.id for row in [*some, *rest]] == TWELVE[1:]
        assert nothing == (None, [], [])

    def test_one_first_and_scalars(self, shop: World) -> None:
        m = shop.models
        one = pairs(m).where(m.Customer.id == 3)
        none = pairs(m).where(m.Customer.id == 99)
        with shop.session() as session:
            assert session.execute(pairs(m)).first() == (1, "customer 1")
            assert session.execute(one).one() == session.execute(one).one_or_none()
            assert session.execute(none).one_or_none() is None
            assert session.execute(one).scalar() == session.execute(one).scalar_one() == 3
            assert session.execute(none).scalar_one_or_none() is None
            assert session.scalars(pairs(m)).all() == TWELVE
            assert session.execute(pairs(m)).scalars(1).first() == "customer 1"
            with pytest.raises(NoResultFound):
                session.execute(none).one()
            with pytest.raises(MultipleResultsFound):
                session.execute(pairs(m)).one()
            with pytest.raises(MultipleResultsFound):
                session.execute(pairs(m)).scalar_one()

    def test_shapes(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            mappings = session.execute(pairs(m)).mappings().all()
            columns = session.execute(pairs(m)).columns("name", 0).all()
            keys = list(session.execute(pairs(m)).keys())
            partitions = [len(each) for each in session.execute(pairs(m)).partitions(5)]
            unique = session.execute(select(m.Order.amount)).scalars().unique().all()
            joined = session.scalars(select(m.Customer).options(joinedload(m.Customer.orders)))
            with pytest.raises(InvalidRequestError, match="unique"):
                joined.all()

        assert [each["id"] for each in mappings] == TWELVE
        assert columns[0] == ("customer 1", 1)
        assert keys == ["id", "name"]
        assert partitions == [5, 5, 2]
        assert sorted(unique) == [1, 2]

    def test_frozen_and_merged(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            frozen = session.execute(pairs(m)).freeze()
            again = [row.id for _ in range(2) for row in frozen()]
            merged = session.execute(pairs(m)).merge(session.execute(pairs(m).limit(2)))
            together = [row.id for row in merged]

        assert again == TWELVE * 2
        assert together == [*TWELVE, 1, 2]

    def test_closing_early(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            with session.execute(pairs(m)) as result:
                first = result.fetchone()
            closed = result.closed
            after = session.scalars(select(m.Customer.id).where(m.Customer.id == 4)).one()

        assert (first, closed, after) == ((1, "customer 1"), True, 4)

    def test_options_change_no_answer(self, shop: World) -> None:
        m = shop.models
        for options in HARMLESS:
            with shop.engine.connect() as connection:
                by_call = connection.execute(pairs(m), execution_options=options).all()
                by_statement = connection.execute(pairs(m).execution_options(**options)).all()
            with shop.engine.execution_options(**options).connect() as connection:
                by_engine = connection.execute(pairs(m)).all()

            assert [row.id for row in by_call] == TWELVE, options
            assert by_call == by_statement == by_engine, options

    def test_a_connection_without_a_cache(self, shop: World) -> None:
        m = shop.models
        with shop.engine.connect().execution_options(compiled_cache=None) as connection:
            found = [connection.execute(pairs(m)).scalars().all() for _ in range(2)]

        assert found == [TWELVE, TWELVE]


class TestRowCounts:
    def test_of_writes(self, shop: World) -> None:
        m = shop.models
        table = m.Order.__table__
        with shop.engine.begin() as connection:
            updated = connection.execute(
                update(table).where(table.c.customer_id.in_([1, 2, 3])).values(amount=9)
            )
            deleted = connection.execute(delete(table).where(table.c.customer_id == 3))
            many = connection.execute(
                update(table).where(table.c.customer_id == bindparam("c")).values(amount=1),
                [{"c": n} for n in CUSTOMERS],
            )

        assert (updated.rowcount, deleted.rowcount, many.rowcount) == (6, 2, 22)

    def test_of_reads(self, shop: World) -> None:
        m = shop.models
        with shop.engine.connect() as connection:
            result = connection.execute(pairs(m), execution_options={"preserve_rowcount": True})
            count = result.rowcount

        assert count == 12


class TestInserts:
    def test_what_an_insert_of_one_row_tells(self, world: World) -> None:
        m = world.models
        table = m.Customer.__table__
        with world.engine.begin() as connection:
            result = connection.execute(insert(table).values(id=3, name="x", version=1))
            told = (result.inserted_primary_key, result.is_insert)
            returned = connection.execute(
                insert(table).values(id=4, name="x", version=1).return_defaults()
            ).returned_defaults

        assert told == ((3,), True)
        assert returned is not None
        assert returned.created is not None

    @pytest.mark.parametrize("is_sorted", [True, False])
    def test_what_an_insert_of_many_rows_tells(self, world: World, is_sorted: bool) -> None:
        m = world.models
        table = m.Document.__table__
        rows = [{"owner_id": n, "title": f"of {n}"} for n in CUSTOMERS]
        with world.engine.begin() as connection:
            result = connection.execute(
                insert(table).return_defaults(table.c.home, sort_by_parameter_order=is_sorted),
                rows,
            )
            keys = result.inserted_primary_key_rows
            homes = [row.home for row in result.returned_defaults_rows or ()]
        stored = dict(
            world.rows("SELECT id, owner_id || ' ' || home FROM documents")  # type: ignore[arg-type]
        )

        found = [stored[key[0]] for key in keys]
        assert found == [f"{n} {home}" for n, home in zip(CUSTOMERS, homes, strict=True)]

    @pytest.mark.parametrize("size", [1, 5, 1000])
    def test_the_page_size_of_an_engine(self, world: World, size: int) -> None:
        m = world.models
        table = m.Document.__table__
        engine = world.engine.execution_options(insertmanyvalues_page_size=size)
        rows = [{"owner_id": n, "title": "x"} for n in CUSTOMERS]
        with engine.begin() as connection:
            returning = insert(table).returning(table.c.owner_id, sort_by_parameter_order=True)
            owners = connection.execute(returning, rows).scalars().all()

        assert owners == TWELVE


class TestStatements:
    def test_lambdas(self, shop: World) -> None:
        customer = shop.models.Customer
        found = []
        with shop.session() as session:
            for number in (3, 4, 99):
                statement = lambda_stmt(lambda: select(customer))
                statement += lambda s: s.where(customer.id == number)  # noqa: B023
                found.append(ids(session.scalars(statement).all()))
            everything = lambda_stmt(lambda: select(customer).order_by(customer.id))
            all_of_them = ids(session.scalars(everything).all())

        assert found == [[3], [4], []]
        assert all_of_them == TWELVE

    def test_a_lambda_as_a_criterion_has_its_value_of_each_execution(self, shop: World) -> None:
        customer = shop.models.Customer
        found = []
        with shop.session() as session:
            for number in (5, 6, 99, 5):
                statement = select(customer.id).where(lambda: customer.id == number)  # noqa: B023
                found.append(session.scalars(statement).all())

        assert found == [[5], [6], [], [5]]

    def test_baked_queries(self, shop: World) -> None:
        m = shop.models
        bakery = baked.bakery()
        query = bakery(lambda session: session.query(m.Customer))
        query += lambda q: q.filter(m.Customer.id == bindparam("id"))
        everything = bakery(lambda session: session.query(m.Customer).order_by(m.Customer.id))
        with shop.session(enable_baked_queries=True) as session:
            found = [query(session).params(id=n).one().name for n in (3, 4)]
            all_of_them = ids(everything(session).all())

        assert found == ["customer 3", "customer 4"]
        assert all_of_them == TWELVE

    def test_text_that_gives_objects(self, shop: World) -> None:
        m = shop.models
        statement = (
            text("SELECT id, name FROM customers WHERE id = :id")
            .columns(m.Customer.id, m.Customer.name)
            .bindparams(bindparam("id", 3))
        )
        options = {"shard_key": (m.Customer, 3)} if shop.is_spread else {}
        with shop.session() as session:
            if shop.is_spread:
                with pytest.raises(MissingShardKey):
                    session.scalars(select(m.Customer).from_statement(statement))
            found = session.scalars(
                select(m.Customer).from_statement(statement), execution_options=options
            ).one()
            subquery = session.execute(
                select(m.Customer.id).from_statement(text("SELECT 5 AS id")),
                execution_options=options,
            ).scalar()

        assert found.name == "customer 3"
        assert subquery == 5

    def test_text_that_every_shard_answers_gives_objects(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            found = session.scalars(
                select(m.Customer).from_statement(text("SELECT * FROM customers")),
                execution_options={"shard": "*"},
            ).all()

        assert sorted(ids(found)) == TWELVE

    def test_parameters_at_every_place(self, shop: World) -> None:
        m = shop.models
        statement = select(m.Customer.id).where(m.Customer.id == bindparam("id", 3))
        with shop.session() as session:
            by_default = session.scalar(statement)
            by_params = session.scalar(statement.params(id=4))
            by_call = session.scalar(statement, {"id": 5})
            called = session.scalar(
                select(m.Customer.id).where(m.Customer.id == bindparam(None, callable_=lambda: 6))
            )

        assert (by_default, by_params, by_call, called) == (3, 4, 5, 6)

    def test_compiled_statements(self, plain: World, four_shards: World) -> None:
        """SQLAlchemy 2.0 runs them, 2.1 does not."""
        outcomes = []
        for world in (plain, four_shards):
            world.fill()
            table = world.models.Customer.__table__
            of_key = select(table.c.id).where(table.c.id == bindparam("id"))
            everything = select(table.c.id).order_by(table.c.id)
            with world.engine.connect() as connection:
                found: list[Any] = []
                with suppress(ObjectNotExecutableError):
                    compiled: Any = of_key.compile(world.engine)
                    found += [connection.execute(compiled, {"id": n}).scalar() for n in (3, 4)]
                    compiled = everything.compile(world.engine)
                    found += connection.execute(compiled).scalars()
            outcomes.append(found)

        assert outcomes[0] == outcomes[1]
        assert outcomes[0] in ([], [3, 4, *TWELVE])

    def test_row_values_and_ordering_by_label(self, shop: World) -> None:
        m = shop.models
        keys = [(3, 31), (4, 42), (5, 99)]
        statement = (
            select(m.Order.id.label("number"))
            .where(tuple_(m.Order.customer_id, m.Order.id).in_(keys))
            .order_by("number")
        )
        with shop.session() as session:
            assert session.scalars(statement).all() == [31, 42]

    @pytest.mark.parametrize(
        "change",
        [
            lambda s, m: s.prefix_with("ALL"),
            lambda s, m: s.suffix_with("FOR UPDATE"),
            lambda s, m: s.with_hint(m.Customer, "ONLY", "postgresql"),
            lambda s, m: s.with_statement_hint("FOR UPDATE", "postgresql"),
        ],
    )
    def test_raw_text_in_a_statement_needs_a_shard(self, shop: World, change: Any) -> None:
        m = shop.models
        statement = change(select(m.Customer.id).where(m.Customer.id == 3), m)
        options = {"shard_key": (m.Customer, 3)} if shop.is_spread else {}
        with shop.session() as session:
            if shop.is_spread:
                with pytest.raises(UnsupportedStatement, match="prefix, suffix or hint"):
                    session.scalar(statement)
            found = session.scalar(statement, execution_options=options)

        assert found == 3

    @pytest.mark.parametrize("name", OVER_ALL_ROWS)
    def test_what_takes_rows_of_all_shards_answers_as_one_database(
        self, plain: World, four_shards: World, name: str
    ) -> None:
        answers = []
        for world in (plain, four_shards):
            world.fill()
            with world.session() as session:
                rows = session.execute(OVER_ALL_ROWS[name](world.models)).all()
            answers.append(sorted(map(repr, rows)))

        assert answers[1] == answers[0]
        assert answers[0]

    def test_raw_columns_beside_mapped_ones(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            row = session.execute(
                select(m.Customer.id, literal_column("1").label("one")).where(m.Customer.id == 3)
            ).one()

        assert row._asdict() == {"id": 3, "one": 1}
