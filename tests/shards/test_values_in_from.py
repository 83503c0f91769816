"""VALUES in the FROM list: joined, and written from, as on one database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Integer, String, column, func, select, update, values

from sqlalchemy_shards.errors import UnsupportedStatement

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


@pytest.mark.parametrize("options", [{}, {"shard": "*"}], ids=str)
def test_rows_of_several_shards_are_not_written_from_them(
    four_shards: World, options: dict[str, Any]
) -> None:
    with four_shards.session() as session, pytest.raises(UnsupportedStatement, match="VALUES"):
        session.execute(renamed(four_shards.models), execution_options=options)


def test_values_that_are_expressions_are_not_looked_into(four_shards: World) -> None:
    m = four_shards.models
    drawn = values(column("number", Integer), name="drawn").data([(func.random(),)])
    statement = select(m.Customer.id).join(drawn, drawn.c.number < m.Customer.id)
    with four_shards.session() as session, pytest.raises(UnsupportedStatement, match="a Values"):
        session.execute(statement)
