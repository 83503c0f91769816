"""Bulk statements: executemany, "insertmanyvalues" batches, ORM bulk insert, update and delete."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    bindparam,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from sqlalchemy_shards import shard_table
from sqlalchemy_shards.errors import (
    MissingShardKey,
    ScatterNotAllowed,
    ShardKeyChanged,
    UnsupportedStatement,
)
from sqlalchemy_shards.models.distribution import Sharded, note_distribution
from tests.shards.shop import CUSTOMERS, Statements, World, enlisted

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = range(1000)


def rows(numbers: Any = CUSTOMERS) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"n{number}", "version": 1} for number in numbers]


class TestObjects:
    def test_a_thousand_objects_get_their_own_server_values(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            customers = [m.Customer(id=number, name=str(number)) for number in MANY]
            orders = [m.Order(customer_id=number, id=1, amount=number) for number in MANY]
            session.add_all(customers + orders)
            session.flush()
            session.commit()
            homes = {each.id: each.home for each in customers}
            doubled = [each.doubled for each in orders]

        assert homes == dict(world.rows("SELECT id, home FROM customers"))
        assert len(set(homes.values())) == len(world.urls)
        assert doubled == [2 * number for number in MANY]

    @pytest.mark.parametrize("page_size", [1, 137, 999, 1000, 5000])
    def test_the_page_size_changes_nothing(self, world: World, page_size: int) -> None:
        m = world.models
        engine = world.engine.execution_options(insertmanyvalues_page_size=page_size)
        with world.session(bind=engine) as session, Statements(world.engine) as statements:
            customers = [m.Customer(id=number, name=str(number)) for number in MANY]
            session.add_all(customers)
            session.commit()
            homes = {each.id: each.home for each in customers}

        inserts = [each for each in statements if each.startswith("INSERT")]
        assert homes == dict(world.rows("SELECT id, home FROM customers"))
        assert len(inserts) == -(-len(MANY) // page_size)

    def test_rows_with_and_without_a_value_are_batched_apart(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            for number in CUSTOMERS:
                extra = {"home": "given"} if number % 3 else {}
                session.add(m.Customer(id=number, name="x", **extra))
            session.commit()
            found = {
                number: session.get(m.Customer, number).home == "given" for number in CUSTOMERS
            }

        assert found == {number: bool(number % 3) for number in CUSTOMERS}

    def test_bulk_save_objects(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            customers = [m.Customer(id=number, name="x", version=1) for number in CUSTOMERS]
            session.bulk_save_objects(customers)
            session.commit()

        assert world.rows("SELECT id FROM customers") == [(number,) for number in CUSTOMERS]

    def test_bulk_insert_and_update_mappings(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.bulk_insert_mappings(m.Customer, rows())
            session.bulk_insert_mappings(
                m.Order, [{"customer_id": n, "id": 1, "amount": 1} for n in CUSTOMERS]
            )
            session.bulk_update_mappings(
                m.Order, [{"customer_id": n, "id": 1, "amount": n} for n in CUSTOMERS]
            )
            session.commit()

        assert world.rows("SELECT id, name FROM customers") == [
            (number, f"n{number}") for number in CUSTOMERS
        ]
        assert world.rows("SELECT amount FROM orders") == [(number,) for number in CUSTOMERS]


class TestOrmStatements:
    def test_insert_of_many_rows(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            session.execute(insert(m.Customer), rows())
            session.commit()

        assert world.rows("SELECT id, name FROM customers") == [
            (number, f"n{number}") for number in CUSTOMERS
        ]

    def test_insert_returning_objects(self, world: World) -> None:
        m = world.models
        with world.session() as session:
            customers = session.scalars(insert(m.Customer).returning(m.Customer), rows()).all()
            found = {customer.id: customer.home for customer in customers}
            are_persistent = all(customer in session for customer in customers)
            session.commit()

        assert found == dict(world.rows("SELECT id, home FROM customers"))
        assert are_persistent

    @pytest.mark.parametrize("is_sorted", [True, False])
    @pytest.mark.parametrize("page_size", [3, 100])
    def test_insert_returning_in_the_order_of_the_parameters(
        self, world: World, page_size: int, is_sorted: bool
    ) -> None:
        m = world.models
        numbers = [7, 3, 11, 1, 12, 2, 9, 4, 10, 5, 8, 6]
        with world.session() as session:
            found = session.execute(
                insert(m.Customer).returning(
                    m.Customer.id, m.Customer.name, sort_by_parameter_order=is_sorted
                ),
                rows(numbers),
                execution_options={"insertmanyvalues_page_size": page_size},
            ).all()

        assert found == [(number, f"n{number}") for number in numbers]

    def test_update_by_primary_key(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            session.execute(
                update(m.Order),
                [
                    {"customer_id": number, "id": number * 10 + 1, "amount": number}
                    for number in CUSTOMERS
                ],
            )
            session.commit()

        assert shop.rows("SELECT id, amount FROM orders WHERE amount <> 2 OR customer_id = 2") == [
            row
            for number in CUSTOMERS
            for row in [(number * 10 + 1, number), *([(22, 2)] if number == 2 else [])]
        ]

    @pytest.mark.parametrize("synchronize", ["evaluate", "fetch", False, "auto"])
    def test_update_where_a_key_is_given(self, shop: World, synchronize: Any) -> None:
        m = shop.models
        with shop.session() as session:
            order = session.get(m.Order, (4, 41))
            result = session.execute(
                update(m.Order)
                .where(m.Order.customer_id == 4)
                .values(amount=m.Order.amount + 10)
                .execution_options(synchronize_session=synchronize)
            )
            seen = order.amount
            session.commit()

        assert result.rowcount == 2
        assert seen == (1 if synchronize is False else 11)
        assert shop.rows("SELECT amount FROM orders WHERE customer_id = 4") == [(11,), (12,)]

    @pytest.mark.parametrize("synchronize", ["evaluate", "fetch", False])
    def test_delete_where_keys_are_given(self, shop: World, synchronize: Any) -> None:
        m = shop.models
        with shop.session() as session:
            label = session.get(m.Label, (4, 1))
            result = session.execute(
                delete(m.Label)
                .where(m.Label.customer_id.in_([1, 2, 3, 4]))
                .execution_options(synchronize_session=synchronize)
            )
            is_there = label in session
            session.commit()

        assert result.rowcount == 8
        assert is_there == (synchronize is False)
        assert shop.rows("SELECT DISTINCT customer_id FROM labels") == [
            (number,) for number in CUSTOMERS if number > 4
        ]

    def test_update_returning(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            found = session.execute(
                update(m.Order)
                .where(m.Order.customer_id.in_([1, 2, 3]), m.Order.amount == 1)
                .values(amount=50)
                .returning(m.Order.id, m.Order.doubled)
            ).all()

        assert sorted(found) == [(11, 100), (21, 100), (31, 100)]

    def test_delete_returning(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            found = session.scalars(
                delete(m.Label).where(m.Label.customer_id.in_([1, 2])).returning(m.Label.text)
            ).all()

        assert sorted(found) == ["label 1.1", "label 1.2", "label 2.1", "label 2.2"]

    def test_update_from_a_co_located_table(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            session.execute(
                update(m.Order)
                .where(
                    m.Order.customer_id == m.Customer.id,
                    m.Customer.id == 5,
                    m.Customer.name == "customer 5",
                )
                .values(status="seen")
                .execution_options(synchronize_session=False)
            )
            session.commit()

        assert shop.rows("SELECT id FROM orders WHERE status = 'seen'") == [(51,), (52,)]

    def test_insert_from_select_of_the_same_key(self, shop: World) -> None:
        m = shop.models
        columns = ["customer_id", "id", "text"]
        source = select(m.Order.customer_id, m.Order.id, m.Order.status).where(
            m.Order.customer_id == 5
        )
        statement = insert(m.Label).from_select(columns, source)
        with shop.session() as session:
            session.execute(statement)
            session.commit()

        assert len(shop.rows("SELECT * FROM labels WHERE customer_id = 5")) == 4


class TestCore:
    def test_executemany_without_returning(self, world: World) -> None:
        table = world.models.Customer.__table__
        with world.engine.begin() as connection:
            preserving = connection.execution_options(preserve_rowcount=True)
            counted = preserving.execute(table.insert(), rows()).rowcount

        assert counted == len(CUSTOMERS)
        assert len(world.rows("SELECT * FROM customers")) == len(CUSTOMERS)

    def test_executemany_updates_and_deletes(self, shop: World) -> None:
        m = shop.models
        table = m.Order.__table__
        with shop.engine.begin() as connection:
            updated = connection.execute(
                table.update()
                .where(table.c.customer_id == bindparam("owner"), table.c.id == bindparam("number"))
                .values(amount=bindparam("new")),
                [{"owner": n, "number": n * 10 + 1, "new": 7} for n in CUSTOMERS],
            ).rowcount
            deleted = connection.execute(
                table.delete().where(table.c.customer_id == bindparam("owner")),
                [{"owner": n} for n in (1, 2, 3)],
            ).rowcount

        assert (updated, deleted) == (12, 6)
        assert shop.rows("SELECT customer_id FROM orders WHERE amount = 7") == [
            (number,) for number in CUSTOMERS if number > 3
        ]

    def test_a_row_without_its_key_is_told_by_its_number(self, four_shards: World) -> None:
        given: list[Any] = [{"id": number, "customer_id": number} for number in (1, 2, 3)]
        given[1]["customer_id"] = None

        with (
            four_shards.engine.begin() as connection,
            pytest.raises(MissingShardKey, match="'customer_id', in parameter set 2 of 3;") as told,
        ):
            connection.execute(insert(four_shards.models.Order.__table__), given)

        assert told.value.statement.startswith("INSERT INTO orders")

    def test_client_defaults_decide_the_shard(self, world: World) -> None:
        key = Column("id", Uuid, primary_key=True, default=uuid.uuid4)
        with made(world, key) as table:
            insertion = table.insert().returning(
                table.c.id, table.c.note, sort_by_parameter_order=True
            )
            notes = [str(number) for number in range(50)]
            with world.engine.begin() as connection:
                found = connection.execute(insertion, [{"note": note} for note in notes]).all()
            stored = world.rows("SELECT id, note FROM made")
            by_shard = world.rows_by_shard("SELECT id FROM made")

        assert [note for _, note in found] == notes
        assert stored == sorted(map(tuple, found))
        assert all(by_shard.values())
        if world.cluster and world.is_spread:
            for name, ids in by_shard.items():
                assert {world.cluster.shard_for(table, each) for (each,) in ids} == {name}

    def test_a_listener_that_changes_the_sql_and_copies_parameters_does_no_harm(
        self, world: World
    ) -> None:
        m = world.models

        def comment(
            connection: Any, cursor: Any, statement: str, parameters: Any, *more: Any
        ) -> tuple[str, Any]:
            is_many = isinstance(parameters, list)
            copied = [dict(each) for each in parameters] if is_many else dict(parameters)
            return f"{statement} /* commented */", copied

        event.listen(world.engine, "before_cursor_execute", comment, retval=True)
        with world.session() as session:
            customers = [m.Customer(id=number, name="x") for number in CUSTOMERS]
            session.add_all(customers)
            session.commit()
            homes = {each.id: each.home for each in customers}

        assert homes == dict(world.rows("SELECT id, home FROM customers"))

    def test_rows_inserted_one_at_a_time_where_the_server_makes_the_key(self, world: World) -> None:
        # Nothing that SQLAlchemy could sort returned rows by: it sends row after row.
        owner = Column("owner", BigInteger, nullable=False)
        key = Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()"))
        numbers = [5, 3, 8, 1, 9, 2]
        with made(world, owner, key, shard_key="owner") as table:
            insertion = table.insert().returning(
                table.c.owner, table.c.id, sort_by_parameter_order=True
            )
            with world.engine.begin() as connection:
                found = connection.execute(insertion, [{"owner": each} for each in numbers]).all()
            stored = world.rows("SELECT owner, id FROM made")

        assert [owner for owner, _ in found] == numbers
        assert stored == sorted(map(tuple, found))

    def test_a_schema_translate_map_reaches_each_shards_batch(self, world: World) -> None:
        metadata = MetaData()
        table = Table(
            "made",
            metadata,
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("note", String, server_default="from the server"),
            schema="logical",
        )
        if world.is_spread:
            shard_table(table)
        with world.engine.begin() as connection:
            connection.execute(text("CREATE SCHEMA physical"), execution_options={"shard": "*"})
            connection.execute(
                text("CREATE TABLE physical.made (id int PRIMARY KEY, note text DEFAULT 'server')"),
                execution_options={"shard": "*"},
            )
        engine = world.engine.execution_options(schema_translate_map={"logical": "physical"})
        try:
            with engine.begin() as connection:
                found = connection.execute(
                    table.insert().returning(
                        table.c.id, table.c.note, sort_by_parameter_order=True
                    ),
                    [{"id": number} for number in (4, 2, 9, 1, 7)],
                ).all()
                ordered = connection.execute(
                    select(table.c.id).order_by(table.c.id).limit(3)
                ).scalars()
                first_three = ordered.all()
        finally:
            with world.engine.begin() as connection:
                connection.execute(
                    text("DROP SCHEMA physical CASCADE"), execution_options={"shard": "*"}
                )

        assert found == [(number, "server") for number in (4, 2, 9, 1, 7)]
        assert first_three == [1, 2, 4]


class TestUpserts:
    def test_on_conflict_do_nothing_for_one_key(self, shop: World) -> None:
        m = shop.models
        statement = upsert(m.Customer).on_conflict_do_nothing()
        with shop.session() as session:
            counts = [
                session.execute(
                    statement.values(id=number, name="new", version=1),
                    execution_options={"preserve_rowcount": True},
                ).rowcount
                for number in (5, 100)
            ]
            used = enlisted(session) if shop.cluster else None
            session.commit()

        assert counts == [0, 1]
        assert shop.rows("SELECT name FROM customers WHERE id IN (5, 100)") == [
            ("customer 5",),
            ("new",),
        ]
        if shop.is_spread and shop.cluster:
            assert used == {shop.cluster.shard_for(m.Customer, each) for each in (5, 100)}

    def test_on_conflict_do_nothing_returning_for_many_keys(self, shop: World) -> None:
        m = shop.models
        statement = upsert(m.Customer).on_conflict_do_nothing().returning(m.Customer.id)
        with shop.session() as session:
            found = session.scalars(statement, rows(range(8, 20))).all()
            session.commit()

        assert sorted(found) == list(range(13, 20))
        assert len(shop.rows("SELECT * FROM customers")) == 19

    def test_on_conflict_do_update_returning_in_order(self, shop: World) -> None:
        m = shop.models
        statement = upsert(m.Customer)
        statement = statement.on_conflict_do_update(
            index_elements=["id"], set_={"name": statement.excluded.name}
        ).returning(m.Customer.id, m.Customer.name, sort_by_parameter_order=True)
        numbers = [19, 3, 14, 1, 12]
        with shop.session() as session:
            found = session.execute(statement, rows(numbers)).all()
            session.commit()

        assert found == [(number, f"n{number}") for number in numbers]
        assert shop.rows("SELECT id FROM customers WHERE name LIKE 'n%'") == [
            (number,) for number in sorted(numbers)
        ]

    def test_on_conflict_must_not_set_the_shard_key(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = upsert(m.Customer).values(id=5, name="x", version=1)
        statement = statement.on_conflict_do_update(index_elements=["id"], set_={"id": 6})
        with spread_shop.session() as session, pytest.raises(ShardKeyChanged):
            session.execute(statement)

    def test_an_upsert_into_a_reference_table_reaches_every_copy(self, shop: World) -> None:
        m = shop.models
        statement = upsert(m.Region).values(code="n", name="new")
        statement = statement.on_conflict_do_update(
            index_elements=["code"], set_={"name": statement.excluded.name}
        )
        with shop.session() as session:
            options = {"preserve_rowcount": True}
            result = session.execute(statement, execution_options=options)
            session.commit()

        assert result.rowcount == 1
        assert set(shop.rows("SELECT name FROM regions WHERE code = 'n'")) == {("new",)}
        assert len(shop.rows("SELECT name FROM regions WHERE code = 'n'")) == len(shop.urls)

    def test_reference_rows_may_be_returned_whole(self, shop: World) -> None:
        table = shop.models.Region.__table__
        with shop.engine.begin() as connection:
            made = connection.execute(insert(table).returning(table), {"code": "z", "name": "Z"})
            changed = connection.execute(update(table).values(name="x").returning(table))
            gone = connection.execute(delete(table).where(table.c.code == "z").returning(table))

            assert made.all() == [("z", "Z")]
            assert sorted(changed.all()) == [("n", "x"), ("s", "x"), ("z", "x")]
            assert gone.all() == [("z", "x")]


class TestWritingEverywhere:
    def test_an_update_of_everything_needs_to_be_asked_for(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = update(m.Order).values(status="seen")
        with spread_shop.session() as session:
            with pytest.raises(ScatterNotAllowed):
                session.execute(statement)
            result = session.execute(statement, execution_options={"shard": "*"})
            session.commit()

        assert result.rowcount == 24
        assert spread_shop.rows("SELECT DISTINCT status FROM orders") == [("seen",)] * 4

    @pytest.mark.parametrize("options", [{"shard": "*"}, {"scatter": "allow"}])
    def test_a_delete_of_everything_that_matches(
        self, spread_shop: World, options: dict[str, Any]
    ) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:
            statement = delete(m.Order).where(m.Order.amount == 1)
            counted = session.execute(statement, execution_options=options).rowcount
            session.commit()

        assert counted == 12
        assert len(spread_shop.rows("SELECT * FROM orders")) == 12

    def test_the_shard_key_cannot_be_set(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = update(m.Order).where(m.Order.customer_id == 5).values(customer_id=6)
        with spread_shop.session() as session, pytest.raises(ShardKeyChanged):
            session.execute(statement)

    def test_a_key_that_sql_computes_is_refused(self, spread_shop: World) -> None:
        m = spread_shop.models
        statement = insert(m.Customer).values(id=func.length("abc"), name="x", version=1)
        with spread_shop.session() as session, pytest.raises(MissingShardKey):
            session.execute(statement)

    def test_rows_whose_order_only_the_server_knows_are_refused(self, four_shards: World) -> None:
        """SQLAlchemy would sort by an identity column, which counts on each shard."""
        table = Table(
            "counted",
            MetaData(),
            Column("id", Integer, Identity(), primary_key=True),
            Column("owner", Integer, nullable=False),
        )
        # Declared behind the checks' back, as by a table that was reflected.
        note_distribution(table, Sharded(("owner",), "default", True))
        statement = table.insert().returning(table.c.id, sort_by_parameter_order=True)
        with four_shards.engine.begin() as connection, pytest.raises(UnsupportedStatement):
            connection.execute(statement, [{"owner": number} for number in CUSTOMERS])

    def test_a_failing_row_fails_the_whole_batch_everywhere(self, shop: World) -> None:
        m = shop.models
        with shop.session() as session:
            with pytest.raises(IntegrityError):
                session.execute(insert(m.Customer), rows(range(12, 30)))
            session.rollback()

        assert len(shop.rows("SELECT * FROM customers")) == len(CUSTOMERS)


@contextmanager
def made(world: World, *columns: Column[Any], shard_key: str = "id") -> Iterator[Table]:
    """A table that is there for one test."""
    table = Table("made", MetaData(), *columns, Column("note", String))
    if world.is_spread:
        shard_table(table, key=shard_key)
    table.create(world.engine)
    try:
        yield table
    finally:
        table.drop(world.engine)
