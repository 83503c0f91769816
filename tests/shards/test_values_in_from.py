"""VALUES in the FROM list: joined, and written from, as on one database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Integer, String, column, func, select, update, values

from sqlalchemy_shards.errors import ScatterNotAllowed, UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.shop import World

GIVEN = values(column("number", Integer), column("word", String), name="given").data(
    [(1, "one"), (3, "three"), (99, "many")]
)

READS: dict[str, Callable[[Any], Any]] = {
    "joined": lambda m: (
        select(GIVEN.c.word, m.Customer.name)
        .join(m.Customer, m.Customer.id == GIVEN.c.number)
        .order_by(GIVEN.c.word)
    ),
    "with rows that have no partner": lambda m: (
        select(GIVEN.c.word, m.Customer.name)
        .outerjoin(m.Customer, m.Customer.id == GIVEN.c.number)
        .order_by(GIVEN.c.word)
    ),
    "without those that are there": lambda m: select(GIVEN.c.word).where(
        GIVEN.c.number.not_in(select(m.Customer.id))
    ),
    "counted": lambda m: (
        select(GIVEN.c.word, func.count(m.Customer.id))
        .join(m.Customer, m.Customer.id > GIVEN.c.number, isouter=True)
        .group_by(GIVEN.c.word)
        .order_by(GIVEN.c.word)
    ),
    "of one key": lambda m: (
        select(GIVEN.c.word)
        .join(m.Customer, m.Customer.id == GIVEN.c.number)
        .where(m.Customer.id == 3)
    ),
    "alone": lambda _: select(GIVEN.c.word).order_by(GIVEN.c.number),
}


@pytest.mark.parametrize("make", READS.values(), ids=READS)
def test_they_are_read_as_on_one_database(
    plain: World, four_shards: World, make: Callable[[Any], Any]
) -> None:
    found = []
    for world in (plain, four_shards):
        m = world.models
        with world.session() as session:
            session.add_all([m.Customer(id=number, name=f"c{number}") for number in range(1, 7)])
            session.flush()
            found.append([tuple(row) for row in session.execute(make(m))])

    assert found[1] == found[0]
    assert found[0]


def renamed(m: Any) -> Any:
    return (
        update(m.Customer)
        .where(m.Customer.id == GIVEN.c.number)
        .values(name=GIVEN.c.word)
        .execution_options(synchronize_session=False)
    )


def test_rows_of_one_key_are_written_from_them(four_shards: World) -> None:
    m = four_shards.models
    with four_shards.session() as session:
        session.add_all([m.Customer(id=1, name="a"), m.Customer(id=3, name="b")])
        session.flush()
        session.execute(renamed(m).where(m.Customer.id == 3))
        found = session.scalars(select(m.Customer.name).order_by(m.Customer.id)).all()

    assert found == ["a", "three"]


def test_rows_of_several_shards_are_written_from_them(world: World) -> None:
    m = world.models
    with world.session() as session:
        session.add_all([m.Customer(id=number, name="old") for number in range(1, 13)])
        session.flush()
        changed = session.execute(renamed(m), execution_options={"shard": "*"}).rowcount
        found = session.execute(select(m.Customer.id, m.Customer.name)).all()

    assert changed == 2
    assert {number: name for number, name in found if name != "old"} == {1: "one", 3: "three"}


def test_rows_of_several_shards_are_not_written_unasked(four_shards: World) -> None:
    with four_shards.session() as session, pytest.raises(ScatterNotAllowed, match="which shard"):
        session.execute(renamed(four_shards.models))


def test_a_reference_table_is_written_from_parameter_sets_instead(world: World) -> None:
    m = world.models
    statement = update(m.Region).where(m.Region.code == GIVEN.c.word).values(name=GIVEN.c.word)
    with world.session() as session, session.begin():
        session.add_all([m.Region(code=each, name="old") for each in ("one", "two", "three")])
        session.flush()
        if world.is_spread:
            with pytest.raises(UnsupportedStatement, match="VALUES in the FROM list would be"):
                session.execute(statement, execution_options={"synchronize_session": False})
        changed = [{"code": each, "name": each} for each in ("one", "three")]
        session.execute(update(m.Region), changed)
    with world.session() as session:
        found = session.execute(select(m.Region.code, m.Region.name)).all()

    assert sorted(map(tuple, found)) == [("one", "one"), ("three", "three"), ("two", "old")]


def test_values_that_are_expressions_are_not_looked_into(four_shards: World) -> None:
    m = four_shards.models
    drawn = values(column("number", Integer), name="drawn").data([(func.random(),)])
    statement = select(m.Customer.id).join(drawn, drawn.c.number < m.Customer.id)
    with four_shards.session() as session, pytest.raises(UnsupportedStatement, match="a Values"):
        session.execute(statement)
