"""SELECTs over several shards that ask for the time: the shards are told, and answer themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Interval, bindparam, func, literal_column, select, text, update

from sqlalchemy_shards import GatherLimit
from sqlalchemy_shards.errors import UnsupportedStatement
from tests.shards.shop import enlisted
from tests.shards.test_time_in_writes import OwnNow

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.shop import World

DAY = timedelta(days=1)


def old(m: Any) -> Any:
    return m.Customer.created < func.now() - DAY


READS: dict[str, Callable[[Any], Any]] = {
    "a filter": lambda m: select(m.Customer.id, m.Customer.name).where(old(m)),
    "ordered": lambda m: select(m.Customer.id).where(old(m)).order_by(m.Customer.id.desc()),
    "ordered, limited": lambda m: (
        select(m.Customer.id).where(old(m)).order_by(m.Customer.id).limit(3).offset(1)
    ),
    "limited by none": lambda m: select(m.Customer.id).where(old(m)).limit(0),
    "distinct": lambda m: select(m.Customer.version).where(old(m)).distinct(),
    "an aggregate": lambda m: select(func.count(), func.max(m.Customer.id)).where(old(m)),
    "groups": lambda m: (
        select(m.Customer.version, func.count()).where(old(m)).group_by(m.Customer.version)
    ),
    "groups by age": lambda m: select((is_old := old(m).label("is_old")), func.count()).group_by(
        is_old
    ),
    "an age": lambda m: select(m.Customer.id, old(m)),
    "a join of what lies together": lambda m: (
        select(m.Customer.id, m.Order.amount).join(m.Customer.orders).where(old(m))
    ),
    "today": lambda m: select(m.Customer.id).where(m.Customer.created >= func.current_date()),
    "by the local clock": lambda m: select(m.Customer.id).where(
        m.Customer.created < func.localtimestamp(literal_column("0")) - DAY
    ),
    "a list of keys": lambda m: select(m.Customer.id).where(old(m), m.Customer.id.in_(range(1, 8))),
}


def age(world: World) -> None:
    world.fill()
    m = world.models
    with world.engine.begin() as connection:
        statement = update(m.Customer).values(created=func.now() - 3 * DAY)
        for number in (2, 3, 5, 7, 11):
            connection.execute(statement.where(m.Customer.id == number))


@pytest.mark.parametrize("name", READS)
def test_the_answer_is_that_of_one_database(plain: World, four_shards: World, name: str) -> None:
    found = []
    for world in (plain, four_shards):
        age(world)
        statement = READS[name](world.models)
        with world.engine.connect() as connection:
            for _ in range(2):  # the second meets the kept plan
                found.append([tuple(row) for row in connection.execute(statement)])
            connection.rollback()

    if "ordered" not in name:
        found = [sorted(each) for each in found]
    assert found[1:] == found[:-1]
    assert bool(found[0]) == (name != "limited by none")


@pytest.mark.parametrize("name", READS)
def test_nothing_is_gathered(four_shards: World, name: str) -> None:
    assert four_shards.cluster is not None
    explanation = four_shards.cluster.explain(READS[name](four_shards.models))

    assert explanation.tier.value == "scatter and merge"
    assert "shards_now" in str(explanation)


def test_rows_are_streamed_however_many_there_are(spread_shop: World) -> None:
    m = spread_shop.models
    statement = (
        select(m.Order.id, func.now())
        .join(m.Order.customer)
        .where(m.Customer.created <= func.now())
    )
    with spread_shop.session() as session:
        options = {"yield_per": 2, "gather_limit": GatherLimit(rows=1)}
        rows = session.execute(statement, execution_options=options).all()
        again = session.execute(statement).all()

    assert len(rows) == 24
    assert len({moment for _, moment in rows + again}) == 1


def test_it_is_the_moment_of_the_transaction(spread_shop: World) -> None:
    m = spread_shop.models
    with spread_shop.session() as session, session.begin():
        first = session.execute(select(m.Customer.id, func.now())).all()
        session.execute(
            update(m.Customer).values(created=func.now()), execution_options={"shard": "*"}
        )
        created = session.scalars(select(m.Customer.created).distinct()).all()
    with spread_shop.session() as session:
        later = session.execute(select(m.Customer.id, func.now())).all()

    assert {moment for _, moment in first} == set(created)
    assert {moment for _, moment in later}.isdisjoint(created)


def test_the_time_is_asked_of_a_shard_that_takes_part(spread_shop: World) -> None:
    m = spread_shop.models
    assert spread_shop.cluster is not None
    keys = [key for key in range(1, 13) if spread_shop.cluster.shard_for(m.Customer, key) != "s0"]
    with spread_shop.session() as session:
        session.execute(select(func.now(), m.Customer.id).where(m.Customer.id.in_(keys))).all()

        assert enlisted(session) == {"s1", "s2", "s3"}


NOT_THE_TIME: dict[str, Callable[[Any], Any]] = {
    "a namesake in a schema": lambda m: m.Customer.created < func.away.now(),
    "a parameter of that name": lambda m: (
        m.Customer.created < func.now() - bindparam("shards_now", DAY, Interval())
    ),
    "raw text": lambda m: m.Customer.created < text("now()"),
}


@pytest.mark.parametrize("name", NOT_THE_TIME)
def test_what_is_only_called_like_the_time_is_refused(spread_shop: World, name: str) -> None:
    m = spread_shop.models
    statement = select(m.Customer.id).where(NOT_THE_TIME[name](m))
    with spread_shop.engine.connect() as connection, pytest.raises(UnsupportedStatement):
        connection.execute(statement)


def test_a_construct_that_writes_another_function_is_not_told(four_shards: World) -> None:
    m = four_shards.models
    assert four_shards.cluster is not None
    explanation = four_shards.cluster.explain(
        select(m.Customer.id, OwnNow()).where(m.Customer.created < func.now())
    )

    assert explanation.tier.value == "gather"
