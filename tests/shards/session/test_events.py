"""Listeners are called on a cluster as on one database: the same events, as often, in order.

One body is recorded in each world, and the records are compared. What must differ is held apart:
pools, since a cluster's engine holds no server, and each shard has a pool of its own.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, event, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session, attributes, with_loader_criteria

from sqlalchemy_shards.events import DistributedCommit
from tests.shards.shop import CUSTOMERS, World

SESSION_EVENTS = (
    "after_attach after_begin after_bulk_delete after_bulk_update after_commit after_flush "
    "after_flush_postexec after_rollback after_soft_rollback after_transaction_create "
    "after_transaction_end before_attach before_commit before_flush deleted_to_detached "
    "deleted_to_persistent detached_to_persistent do_orm_execute loaded_as_persistent "
    "pending_to_persistent pending_to_transient persistent_to_deleted persistent_to_detached "
    "persistent_to_transient transient_to_pending"
).split()

ENGINE_EVENTS = (
    "after_cursor_execute after_execute before_cursor_execute before_execute begin commit "
    "engine_connect release_savepoint rollback rollback_savepoint savepoint "
    "set_connection_execution_options"
).split()


class Record:
    """Names of the events of a target, in the order in which they came."""

    def __init__(self, target: Any, names: list[str]) -> None:
        self.names: list[str] = []
        for name in names:
            event.listen(target, name, self._noting(name), retval=False)

    def _noting(self, name: str) -> Any:
        def note(*arguments: Any, **keywords: Any) -> None:
            self.names.append(name)

        return note


def busy_session(world: World, session: Session) -> None:
    """A bit of everything that a session does."""
    m = world.models
    session.add_all([m.Region(code="n", name="North")])
    session.flush()
    session.add_all([m.Customer(id=n, name=f"customer {n}", region_code="n") for n in CUSTOMERS])
    session.commit()
    customers = session.scalars(select(m.Customer).order_by(m.Customer.id)).all()
    customers[0].name = "changed"
    customers[1].orders.append(m.Order(id=1, amount=1))
    session.flush()
    session.delete(customers[2])
    session.flush()
    session.rollback()
    with session.begin_nested():
        customers[3].name = "changed"
    savepoint = session.begin_nested()
    session.add(m.Customer(id=99, name="undone"))
    session.flush()
    savepoint.rollback()
    session.query(m.Customer).filter_by(id=5).update({"name": "twice changed"})
    session.query(m.Customer).filter_by(id=9).delete()
    session.execute(update(m.Customer).where(m.Customer.id == 5).values(name="changed"))
    session.execute(delete(m.Customer).where(m.Customer.id == 7))
    session.delete(customers[5])
    session.commit()
    session.expunge(customers[7])
    session.add(customers[7])
    session.refresh(customers[7])
    customers[10].region.name
    session.add(m.Order(customer_id=999, id=1, amount=1))
    with pytest.raises(IntegrityError):
        session.flush()
    session.rollback()


def test_session_events_come_as_on_one_database(
    plain: World, one_shard: World, four_shards: World
) -> None:
    records = []
    for world in (plain, four_shards):
        with world.session() as session:
            record = Record(session, SESSION_EVENTS)
            busy_session(world, session)
        records.append(record.names)
    empty(plain)
    with one_shard.session() as session:
        record = Record(session, SESSION_EVENTS)
        busy_session(one_shard, session)

    assert records[1] == records[0]
    assert record.names == records[0]
    assert set(SESSION_EVENTS) == set(records[0])


def test_engine_events_come_as_on_one_database(plain: World, four_shards: World) -> None:
    records = []
    for world in (plain, four_shards):
        record = Record(world.engine, ENGINE_EVENTS)
        with world.session() as session:
            busy_session(world, session)
        records.append(record.names)

    assert records[1] == records[0]
    assert "release_savepoint" in records[0]
    assert "rollback_savepoint" in records[0]


def test_core_events_come_as_on_one_database(plain: World, four_shards: World) -> None:
    records = []
    for world in (plain, four_shards):
        table = world.models.Customer.__table__
        record = Record(world.engine, ENGINE_EVENTS)
        with world.engine.connect() as connection:
            connection.execution_options(logging_token="x")
            connection.execute(
                insert(table), [{"id": n, "name": "x", "version": 1} for n in CUSTOMERS]
            )
            with connection.begin_nested():
                connection.execute(select(table)).all()
            connection.rollback()
        records.append(record.names)

    assert records[1] == records[0]
    assert "set_connection_execution_options" in records[0]


def test_what_listeners_are_given(shop: World) -> None:
    m = shop.models
    seen: dict[str, Any] = {}

    @event.listens_for(shop.engine, "before_cursor_execute")
    def before(connection: Any, cursor: Any, statement: Any, parameters: Any, *more: Any) -> None:
        seen["before"] = (statement.split()[0], dict(parameters))

    @event.listens_for(shop.engine, "after_cursor_execute")
    def after(connection: Any, cursor: Any, statement: Any, parameters: Any, *more: Any) -> None:
        seen["after"] = cursor.rowcount
        seen["description"] = [column[0] for column in cursor.description]

    with shop.engine.connect() as connection:
        connection.execute(select(m.Customer.id).where(m.Customer.id == 3)).all()

    assert seen == {"before": ("SELECT", {"id_1": 3}), "after": 1, "description": ["id"]}


def test_a_listener_can_change_the_sql(shop: World) -> None:
    m = shop.models

    @event.listens_for(shop.engine, "before_cursor_execute", retval=True)
    def comment(connection: Any, cursor: Any, statement: Any, parameters: Any, *more: Any) -> Any:
        return f"{statement} /* from the shop */", parameters

    with shop.session() as session:
        found = [
            session.get(m.Customer, 3).name,
            len(session.scalars(select(m.Customer)).all()),
            session.scalars(select(m.Customer.id).order_by(m.Customer.id.desc()).limit(1)).one(),
        ]
        session.add_all([m.Customer(id=n + 100, name="new") for n in CUSTOMERS])
        session.commit()

    assert found == ["customer 3", 12, 12]
    assert len(shop.rows("SELECT * FROM customers")) == 24


def test_before_execute_can_replace_the_statement(shop: World) -> None:
    m = shop.models

    @event.listens_for(shop.engine, "before_execute", retval=True)
    def narrow(connection: Any, clause: Any, multi: Any, params: Any, options: Any) -> Any:
        return clause.where(m.Customer.id == 4), multi, params

    with shop.engine.connect() as connection:
        found = connection.execute(select(m.Customer.id)).scalars().all()

    assert found == [4]


def test_do_orm_execute_can_add_criteria_and_options(shop: World) -> None:
    m = shop.models
    with shop.session() as session:

        @event.listens_for(session, "do_orm_execute")
        def soften(state: Any) -> None:
            if state.is_select:
                state.statement = state.statement.options(
                    with_loader_criteria(m.Order, m.Order.amount == 1)
                )
            state.update_execution_options(populate_existing=True)

        customers = session.scalars(select(m.Customer).order_by(m.Customer.id)).all()
        orders = {len(customer.orders) for customer in customers}
        count = len(session.scalars(select(m.Order)).all())

    assert orders == {1}
    assert count == 12


def test_do_orm_execute_can_route(spread_shop: World) -> None:
    m = spread_shop.models
    with spread_shop.session() as session:

        @event.listens_for(session, "do_orm_execute")
        def to_one(state: Any) -> None:
            state.update_execution_options(shard_key=(m.Customer, 3))

        homes = set(session.scalars(select(m.Customer.home)))

    assert len(homes) == 1


def test_handle_error_can_replace_the_error(shop: World) -> None:
    class NoSuchThing(Exception):
        pass

    @event.listens_for(shop.engine, "handle_error")
    def translate(context: Any) -> None:
        if "no_such" in str(context.original_exception):
            raise NoSuchThing(context.statement) from context.original_exception

    option = {"shard": "s1"} if shop.is_spread else {}
    with shop.engine.connect() as connection, pytest.raises(NoSuchThing, match="no_such"):
        connection.execute(text("SELECT * FROM no_such"), execution_options=option)


def test_handle_error_is_told_the_drivers_error(shop: World) -> None:
    seen = []

    @event.listens_for(shop.engine, "handle_error")
    def note(context: Any) -> None:
        seen.append((context.original_exception.sqlstate, context.is_disconnect))

    with shop.session() as session:
        session.add_all([shop.models.Customer(id=n, name="again") for n in (1, 2)])
        with pytest.raises(DBAPIError):
            session.flush()

    assert seen == [("23505", False)]


def test_attribute_and_instance_events(shop: World) -> None:
    m = shop.models
    seen: list[Any] = []

    def loaded(instance: Any, context: Any) -> None:
        seen.append("load")

    def refreshed(instance: Any, context: Any, names: Any) -> None:
        seen.append("refresh")

    def changed(instance: Any, value: Any, old: Any, initiator: Any) -> None:
        seen.append((old, value))

    def stored(mapper: Any, connection: Any, instance: Any) -> None:
        seen.append(connection.dialect.name)

    listeners = [
        (m.Customer, "load", loaded),
        (m.Customer, "refresh", refreshed),
        (m.Customer.name, "set", changed),
        (m.Customer, "before_update", stored),
    ]
    for target, name, listener in listeners:
        event.listen(target, name, listener)
    try:
        with shop.session() as session:
            customer = session.get(m.Customer, 1)
            customer.name = "changed"
            session.flush()
            session.refresh(customer)
    finally:
        for target, name, listener in listeners:
            event.remove(target, name, listener)

    assert seen == ["load", ("customer 1", "changed"), "postgresql", "refresh"]
    assert attributes.instance_dict(customer)["name"] == "changed"


def test_a_listener_to_a_flush_can_write_on_other_shards(shop: World) -> None:
    m = shop.models
    with shop.session() as session:

        @event.listens_for(session, "before_flush")
        def label(session: Session, context: Any, instances: Any) -> None:
            for customer in [each for each in session.new if isinstance(each, m.Customer)]:
                session.add(m.Label(customer_id=customer.id - 100, id=9, text="referrer"))

        session.add_all([m.Customer(id=n + 100, name="new") for n in CUSTOMERS])
        session.commit()

    assert len(shop.rows("SELECT * FROM labels WHERE id = 9")) == 12


class TestPools:
    """A cluster's engine has no server: its pool holds cluster connections, which are cheap."""

    def test_each_shards_pool_tells_of_its_own_connections(self, spread_shop: World) -> None:
        m = spread_shop.models
        with spread_shop.session() as session:  # opens what is opened once
            session.get(m.Customer, 1)
        names = ["connect", "checkout", "checkin", "reset"]
        records = {
            name: Record(shard.engine, names)
            for name, shard in spread_shop.cluster.shards.items()  # type: ignore[union-attr]
        }
        home = spread_shop.cluster.shard_for(m.Customer, 1)  # type: ignore[union-attr]
        with spread_shop.session() as session:
            session.get(m.Customer, 1)

        for name, record in records.items():
            assert record.names == (["checkout", "reset", "checkin"] if name == home else [])

    def test_the_clusters_pool_tells_of_cluster_connections(self, world: World) -> None:
        record = Record(world.engine, ["checkout", "reset", "checkin"])
        with world.session() as session:
            session.scalars(select(world.models.Customer)).all()

        assert record.names == ["checkout", "reset", "checkin"]

    def test_a_listener_to_connect_can_set_up_every_shards_connections(
        self, four_shards: World
    ) -> None:
        for shard in four_shards.cluster.shards.values():  # type: ignore[union-attr]

            @event.listens_for(shard.engine, "connect")
            def set_up(driver_connection: Any, record: Any) -> None:
                driver_connection.execute("SET application_name = 'the shop'")
                driver_connection.commit()

        with four_shards.engine.connect() as connection:
            found = connection.execute(
                text("SHOW application_name"), execution_options={"shard": "*"}
            )

            assert set(found.scalars()) == {"the shop"}

    def test_a_disposed_engine_opens_new_connections(self, shop: World) -> None:
        with shop.session() as session:
            before = session.get(shop.models.Customer, 1).name
        shop.engine.dispose()
        with shop.session() as session:
            after = session.get(shop.models.Customer, 1).name

        assert before == after


def test_a_distributed_commit_is_told_once_beside_sqlalchemys_commit(spread_shop: World) -> None:
    m = spread_shop.models
    told: list[Any] = []
    spread_shop.cluster.hooks.listen(DistributedCommit, told.append)  # type: ignore[union-attr]
    record = Record(spread_shop.engine, ["commit"])
    with spread_shop.session() as session:
        for customer in session.scalars(select(m.Customer)):
            customer.name = "changed"
        session.commit()

    assert record.names == ["commit"]
    assert [len(each.participants) for each in told] == [4]


def empty(world: World) -> None:
    with world.engine.begin() as connection:
        for table in reversed(world.models.metadata.sorted_tables):
            connection.execute(table.delete())
