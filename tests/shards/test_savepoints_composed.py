"""Composed programs of savepoints, writes and errors mean what they mean on one PostgreSQL."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from tests.shards.shop import CUSTOMERS, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, NestedTransaction

PROGRAMS = 24
STEPS = 25
DEEPEST = 3

Step = tuple[str, int]


def composed(seed: int) -> list[Step]:
    """A program: what to do, and with which customer or which of the open savepoints."""
    chance = random.Random(seed)
    does = ("nest", "nest", "write", "write", "write", "insert", "fail", "read", "undo", "release")
    return [(chance.choice(does), chance.randrange(1, 13)) for _ in range(STEPS)]


class Run:
    """One run of a program: what each step answered, or with which SQLSTATE it failed."""

    def __init__(self, world: World, connection: Connection) -> None:
        self.customers = world.models.Customer.__table__
        self.connection = connection
        self.open: list[NestedTransaction] = []
        self.answers: list[Any] = []
        self.has_failed = False

    def perform(self, program: Sequence[Step]) -> list[Any]:
        for number, (does, which) in enumerate(program):
            try:
                self.answers.append(getattr(self, does)(which, number))
            except DBAPIError as error:
                self.has_failed = True
                self.answers.append(error.orig.sqlstate)  # type: ignore[union-attr]
        return self.answers

    def nest(self, which: int, number: int) -> None:
        if len(self.open) < DEEPEST and not self.has_failed:
            self.open.append(self.connection.begin_nested())

    def undo(self, which: int, number: int) -> None:
        if self.open:
            place = which % len(self.open)
            for savepoint in reversed(self.open[place:]):
                savepoint.rollback()
            del self.open[place:]
            self.has_failed = False

    def release(self, which: int, number: int) -> None:
        if self.open and not self.has_failed:
            self.open.pop().commit()

    def write(self, which: int, number: int) -> int:
        update = self.customers.update().where(self.customers.c.id == which)
        return self.connection.execute(update.values(name=f"step {number}")).rowcount

    def insert(self, which: int, number: int) -> None:
        row = {"id": which + 12, "name": f"step {number}", "version": 1}
        self.connection.execute(self.customers.insert(), row)

    def fail(self, which: int, number: int) -> None:
        row = {"id": which, "name": "is there already", "version": 1}
        self.connection.execute(self.customers.insert(), row)

    def read(self, which: int, number: int) -> Any:
        names = select(func.count(), func.min(self.customers.c.name))
        return tuple(self.connection.execute(names.where(self.customers.c.id >= which)).one())


def result(world: World, program: Sequence[Step]) -> tuple[list[Any], list[Any]]:
    world.fill()
    with world.engine.connect() as connection:
        run = Run(world, connection)
        with connection.begin() as transaction:
            answers = run.perform(program)
            if run.has_failed:
                transaction.rollback()
    return answers, world.rows("SELECT id, name FROM customers")


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_a_composed_program_answers_and_leaves_what_it_does_on_one_database(
    plain: World, four_shards: World, seed: int
) -> None:
    program = composed(seed)

    on_one, on_four = result(plain, program), result(four_shards, program)

    assert on_four == on_one
    assert len(on_one[1]) >= len(CUSTOMERS)
