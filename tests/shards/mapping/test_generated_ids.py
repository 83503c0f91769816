"""Ids that carry the bucket of their row's shard key, however the row is inserted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    ForeignKey,
    String,
    TypeDecorator,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import DeclarativeBase, mapped_column, relationship

from sqlalchemy_shards import (
    CompositePartitioner,
    GeneratedId,
    HashPartitioner,
    IdGenerator,
    Keyspace,
    ListPartitioner,
    ShardKeyMixin,
)
from sqlalchemy_shards.errors import MissingShardKey, RoutingError, UnsupportedStatement
from sqlalchemy_shards.models.generated_id import carries_bucket
from sqlalchemy_shards.topology.generated_id import bucket_of_id
from tests.shards.shop import enlisted

if TYPE_CHECKING:
    from tests.shards.mapping.worlds import Saying
    from tests.shards.shop import World

KEYSPACES = {
    "default": Keyspace(HashPartitioner(64)),
    "regional": Keyspace(
        CompositePartitioner(
            ListPartitioner({"west": ["Goa"], "north": ["Delhi"]}), HashPartitioner(8)
        )
    ),
    "prefixed": Keyspace(HashPartitioner(32, transform=lambda name: name.split("-")[0])),
}


def CLUSTER_OPTIONS() -> dict[str, Any]:  # noqa: N802 - a module's constant, made when needed
    return {"keyspaces": KEYSPACES}


class Shouted(TypeDecorator[str]):
    """Stored in another form than it is given."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value.upper()


def make_models(say: Saying) -> Any:
    """Declared in every world: a plain engine takes no notice of it."""
    del say

    class Base(DeclarativeBase):
        pass

    class User(ShardKeyMixin, Base):
        __tablename__ = "users"
        __shard_key__ = "id"
        id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
        orders = relationship("Order", back_populates="user", order_by="Order.id")

    class Order(ShardKeyMixin, Base):
        __tablename__ = "orders"
        __shard_key__ = "user_id"
        id = mapped_column(
            GeneratedId, primary_key=True, default=IdGenerator(KEYSPACES["default"], worker=1)
        )
        user_id = mapped_column(ForeignKey("users.id"), nullable=False)
        note = mapped_column(String)
        user = relationship(User, back_populates="orders")

    class Line(ShardKeyMixin, Base):
        """Its id is made for a keyspace that only the cluster knows."""

        __tablename__ = "lines"
        __shard_key__ = "user_id"
        user_id = mapped_column(BigInteger, nullable=False)
        order_id = mapped_column(ForeignKey("orders.id", info={"per_shard": True}))
        id = mapped_column(
            GeneratedId, primary_key=True, default=IdGenerator(KEYSPACES["default"], worker=2)
        )

    class Reading(ShardKeyMixin, Base):
        __tablename__ = "readings"
        __shard_key__ = ("state", "meter")
        __keyspace__ = "regional"
        id = mapped_column(
            GeneratedId, primary_key=True, default=IdGenerator(KEYSPACES["regional"], worker=3)
        )
        state = mapped_column(String, nullable=False)
        meter = mapped_column(BigInteger, nullable=False)

    class Page(ShardKeyMixin, Base):
        __tablename__ = "pages"
        __shard_key__ = "name"
        __keyspace__ = "prefixed"
        id = mapped_column(
            GeneratedId, primary_key=True, default=IdGenerator(KEYSPACES["prefixed"], worker=4)
        )
        name = mapped_column(Shouted, nullable=False)

    return SimpleNamespace(
        metadata=Base.metadata, User=User, Order=Order, Line=Line, Reading=Reading, Page=Page
    )


USERS = range(1, 13)


def bucket_of(key: Any, keyspace: str = "default") -> int:
    key = key if isinstance(key, tuple) else (key,)
    return KEYSPACES[keyspace].partitioner.bucket_of(key)


def stored(world: World) -> dict[int, list[int]]:
    """User -> ids of their orders, as the databases hold them."""
    found: dict[int, list[int]] = {}
    for user, number in world.rows("SELECT user_id, id FROM orders"):
        found.setdefault(user, []).append(number)
    return found


def add_users(world: World) -> None:
    with world.session() as session, session.begin():
        session.add_all([world.models.User(id=number) for number in USERS])


def all_carry_their_bucket(world: World) -> bool:
    return all(
        bucket_of_id(number) == bucket_of(user)
        for user, numbers in stored(world).items()
        for number in numbers
    )


# -- ways to insert ----------------------------------------------------------------------------


def test_objects_get_ids_for_the_key_of_their_parent(world: World) -> None:
    m = world.models
    with world.session() as session, session.begin():
        users = [m.User(id=number, orders=[m.Order(), m.Order()]) for number in USERS]
        session.add_all(users)
        session.flush()

        ids = {user.id: sorted(order.id for order in user.orders) for user in users}

    assert stored(world) == ids
    assert all_carry_their_bucket(world)


def test_objects_get_ids_for_the_key_that_they_were_given(world: World) -> None:
    add_users(world)
    with world.session() as session, session.begin():
        orders = [world.models.Order(user_id=number) for number in USERS]
        session.add_all(orders)

    assert len(stored(world)) == len(USERS)
    assert all_carry_their_bucket(world)


@pytest.mark.parametrize("returning", [True, False])
def test_many_rows_by_one_insert(world: World, returning: bool) -> None:
    add_users(world)
    order = world.models.Order
    rows = [{"user_id": number} for number in USERS for _ in range(3)]
    statement = insert(order).returning(order.id) if returning else insert(order)
    with world.session() as session, session.begin():
        result = session.execute(statement, rows)
        ids = result.scalars().all() if returning else None

    held = stored(world)
    assert all_carry_their_bucket(world)
    assert [len(each) for each in held.values()] == [3] * len(USERS)
    assert ids is None or sorted(ids) == sorted(each for found in held.values() for each in found)


def test_many_rows_by_core(world: World) -> None:
    add_users(world)
    table = world.models.Order.__table__
    with world.engine.begin() as connection:
        connection.execute(insert(table), [{"user_id": number} for number in USERS])

    assert len(stored(world)) == len(USERS)
    assert all_carry_their_bucket(world)


def test_one_row_by_values(world: World) -> None:
    add_users(world)
    table = world.models.Order.__table__
    with world.engine.begin() as connection:
        for number in USERS:
            made = connection.execute(insert(table).values(user_id=number)).inserted_primary_key
            assert bucket_of_id(made[0]) == bucket_of(number)

    assert all_carry_their_bucket(world)


def test_a_row_by_a_parameter_of_another_name(world: World) -> None:
    add_users(world)
    statement = insert(world.models.Order.__table__).values(user_id=bindparam("who"))
    with world.engine.begin() as connection:
        connection.execute(statement, {"who": 5})

    assert list(stored(world)) == [5]
    assert all_carry_their_bucket(world)


def test_rows_of_one_key_in_a_values_list(world: World) -> None:
    add_users(world)
    statement = insert(world.models.Order).values([{"user_id": 5}, {"user_id": 5}])
    with world.session() as session, session.begin():
        session.execute(statement)

    assert [len(each) for each in stored(world).values()] == [2]
    assert all_carry_their_bucket(world)


def test_an_upsert(world: World) -> None:
    add_users(world)
    order = world.models.Order
    statement = upsert(order).values(user_id=7, note="new").on_conflict_do_nothing()
    with world.session() as session, session.begin():
        session.execute(statement)

    assert list(stored(world)) == [7]
    assert all_carry_their_bucket(world)


def test_an_upsert_that_sets_everything(world: World) -> None:
    add_users(world)
    order = world.models.Order
    number = id_for(7)
    for note in ("old", "new"):
        statement = upsert(order).values(id=number, user_id=7, note=note)
        excluded = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=["id"], set_={"id": excluded.id, "note": excluded.note}
        )
        with world.session() as session, session.begin():
            session.execute(statement)

    assert world.rows("SELECT id, note FROM orders") == [(number, "new")]


def test_keys_of_several_parts(world: World) -> None:
    m = world.models
    with world.session() as session, session.begin():
        session.add_all(
            [m.Reading(state=state, meter=n) for state in ("Goa", "Delhi") for n in range(4)]
        )

    found = world.rows("SELECT id, state, meter FROM readings")
    assert len(found) == 8
    assert all(
        bucket_of_id(number) == bucket_of((state, meter), "regional")
        for number, state, meter in found
    )


def test_a_key_that_is_stored_in_another_form_and_transformed(world: World) -> None:
    m = world.models
    with world.session() as session, session.begin():
        session.add_all([m.Page(name=f"site{n}-a") for n in range(6)])

    found = world.rows("SELECT id, name FROM pages")
    assert {name for _, name in found} == {f"SITE{n}-A" for n in range(6)}
    assert all(bucket_of_id(number) == bucket_of(name, "prefixed") for number, name in found)


def test_an_id_that_the_application_made_itself(world: World) -> None:
    add_users(world)
    made = IdGenerator(KEYSPACES["default"], worker=9)(5)
    with world.session() as session, session.begin():
        session.add(world.models.Order(id=made, user_id=5))

    assert stored(world) == {5: [made]}


# -- what is refused ---------------------------------------------------------------------------


def refused_with(world: World, error: type[Exception]) -> type[Exception]:
    """SQLAlchemy wraps what a default raises; a cluster gives it as it is."""
    return StatementError if world.cluster is None else error


def test_a_row_without_its_key_has_no_id(world: World) -> None:
    with world.session() as session:
        session.add(world.models.Order(note="whose?"))

        with pytest.raises(
            refused_with(world, MissingShardKey), match=r"'orders' has no value for its shard key"
        ):
            session.flush()


def test_a_key_that_only_sql_knows_has_no_id(world: World) -> None:
    statement = insert(world.models.Order.__table__).values(user_id=func.abs(-5))

    with (
        world.engine.connect() as connection,
        pytest.raises(refused_with(world, MissingShardKey), match="when its id is made"),
    ):
        connection.execute(statement)


def test_a_value_that_is_no_key_has_no_id(world: World) -> None:
    with (
        world.engine.connect() as connection,
        pytest.raises(
            refused_with(world, RoutingError),
            match=r"shard-key column orders\.user_id is of type str",
        ),
    ):
        connection.execute(insert(world.models.Order.__table__), {"user_id": "5"})


# -- reading by the id alone -------------------------------------------------------------------


def test_the_column_of_a_foreign_key_holds_generated_ids_too(world: World) -> None:
    assert carries_bucket(world.models.Line.__table__.c.order_id.type)


def test_an_object_is_found_by_its_id_alone(world: World) -> None:
    test_objects_get_ids_for_the_key_of_their_parent(world)
    order = world.models.Order
    ids = stored(world)
    with world.session() as session:
        for user, numbers in ids.items():
            assert session.get(order, numbers[0]).user_id == user
            found = session.scalars(select(order.user_id).where(order.id.in_(numbers))).all()
            assert found == [user] * 2


def test_rows_are_changed_by_their_id_alone(world: World) -> None:
    test_objects_get_ids_for_the_key_of_their_parent(world)
    order, ids = world.models.Order, stored(world)
    with world.session() as session, session.begin():
        for user, numbers in ids.items():
            changed = session.execute(
                update(order).where(order.id == numbers[0]).values(note=f"of {user}")
            )
            assert changed.rowcount == 1

    found = world.rows("SELECT user_id, note FROM orders WHERE note IS NOT NULL")
    assert found == [(user, f"of {user}") for user in USERS]


# -- ids that would not find their row ---------------------------------------------------------


def other_key(key: int) -> int:
    """A key of another bucket."""
    return next(other for other in range(100, 200) if bucket_of(other) != bucket_of(key))


def id_for(key: int) -> int:
    return IdGenerator(KEYSPACES["default"], worker=9)(key)


@pytest.mark.parametrize("world", ["one_shard", "four_shards"], indirect=True)
def test_an_id_of_another_bucket_is_not_inserted(world: World) -> None:
    add_users(world)
    order, wrong = world.models.Order, id_for(other_key(5))
    for statement, rows in (
        (insert(order), [{"id": wrong, "user_id": 5}]),
        (insert(order), [{"id": id_for(6), "user_id": 6}, {"id": wrong, "user_id": 5}]),
        (insert(order).values(id=wrong, user_id=5), None),
        (
            insert(order).values([{"id": wrong, "user_id": 5}, {"id": id_for(6), "user_id": 6}]),
            None,
        ),
    ):
        with (
            world.session() as session,
            pytest.raises(RoutingError, match=r"orders\.id carries another bucket"),
        ):
            session.execute(statement, rows)

    assert stored(world) == {}


@pytest.mark.parametrize("world", ["one_shard", "four_shards"], indirect=True)
def test_an_object_with_an_id_of_another_bucket_is_not_flushed(world: World) -> None:
    add_users(world)
    with world.session() as session:
        session.add(world.models.Order(id=id_for(other_key(5)), user_id=5))

        with pytest.raises(RoutingError, match="carries another bucket"):
            session.flush()


@pytest.mark.parametrize("world", ["one_shard", "four_shards"], indirect=True)
def test_a_number_that_was_not_generated_is_no_identity(world: World) -> None:
    add_users(world)
    with world.session() as session:
        session.add(world.models.Order(id=12, user_id=5))

        with pytest.raises(RoutingError, match="was not made by an IdGenerator"):
            session.flush()


@pytest.mark.parametrize("world", ["one_shard", "four_shards"], indirect=True)
def test_an_id_that_only_sql_knows_is_not_written(world: World) -> None:
    add_users(world)
    order = world.models.Order
    statement = insert(order).values(id=func.abs(5), user_id=5)
    on_conflict = upsert(order).values(user_id=5)
    on_conflict = on_conflict.on_conflict_do_update(
        index_elements=["id"], set_={"id": on_conflict.excluded.id + 1}
    )
    for each in (statement, on_conflict):
        with (
            world.session() as session,
            pytest.raises(UnsupportedStatement, match="cannot be told whether"),
        ):
            session.execute(each)


@pytest.mark.parametrize("world", ["one_shard", "four_shards"], indirect=True)
def test_a_reference_is_changed_to_a_row_of_the_same_key_only(world: World) -> None:
    test_objects_get_ids_for_the_key_of_their_parent(world)
    line, ids = world.models.Line, stored(world)
    with world.session() as session, session.begin():
        session.add(line(user_id=5, order_id=ids[5][0]))
    with world.session() as session, session.begin():
        held = session.scalars(select(line).where(line.user_id == 5)).one()
        held.order_id = ids[5][1]
        session.flush()
        held.order_id = None
        session.flush()
        session.execute(update(line).where(line.user_id == 5).values(order_id=ids[5][1]))
        far = next(user for user in USERS if bucket_of(user) != bucket_of(5))
        with pytest.raises(RoutingError, match=r"lines\.order_id carries another bucket"):
            session.execute(update(line).where(line.id == held.id).values(order_id=ids[far][0]))
        with pytest.raises(UnsupportedStatement, match="cannot be told whether"):
            session.execute(
                update(line).values(order_id=ids[5][0]), execution_options={"scatter": "allow"}
            )

    assert world.rows("SELECT order_id FROM lines") == [(ids[5][1],)]


@pytest.mark.parametrize("world", ["four_shards"], indirect=True)
def test_rows_are_looked_for_by_id_on_their_shard_alone(world: World) -> None:
    test_objects_get_ids_for_the_key_of_their_parent(world)
    cluster, order = world.cluster, world.models.Order
    assert cluster is not None
    for user, numbers in stored(world).items():
        for statement in (
            select(order).where(order.id == numbers[0]),
            select(order).where(order.id.in_(numbers)),
            update(order).where(order.id == numbers[0]).values(note="x"),
        ):
            assert cluster.explain(statement).shards == (
                cluster.shard_for(world.models.User, user),
            )


@pytest.mark.parametrize("world", ["four_shards"], indirect=True)
def test_reading_by_id_takes_no_other_shard_into_the_transaction(world: World) -> None:
    test_objects_get_ids_for_the_key_of_their_parent(world)
    order = world.models.Order
    (number, *_) = stored(world)[5]
    with world.session() as session:
        session.execute(select(order).where(order.id == number)).one()

        assert enlisted(session) == {world.cluster.shard_for(world.models.User, 5)}
