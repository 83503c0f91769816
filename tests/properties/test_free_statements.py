"""Whatever can be composed of SQLAlchemy's parts: N shards answer as one PostgreSQL does.

Each statement comes twice, with other values. They follow from the seeds of `composed`, which are
printed at the end.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.orm import Session

from sqlalchemy_shards.cluster.gather.key_lists import ROWS_WORTH_WAITING
from sqlalchemy_shards.planning.asked_keys import KEYS_MAX
from tests.properties.choices import Choices
from tests.properties.composed import COUNT, MARKS, SEED, Comparison, count_of, seeds
from tests.properties.free_statements import free_statement
from tests.properties.judging import ask, difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.properties.conftest import Tally
    from tests.properties.free_statements import FreeStatement
    from tests.properties.judging import Answer
    from tests.properties.world import World

SHARDS = (1, 2, 3, 5)
AGAIN = os.environ.get("SHARDS_PROPERTY_STATEMENT")
"""The name of a statement that is to be run again, alone."""
pytestmark = MARKS


def runs() -> list[str]:
    """Where names of statements begin: a seed and a number of shards; or the whole name of one."""
    if AGAIN:
        return [AGAIN]
    if not COUNT:
        return [SEED]
    return [f"{seed}/{count}" for count in SHARDS for seed in seeds()]


def names(run: str) -> Iterator[str]:
    """Names of statements, of which each decides everything about it."""
    if AGAIN:
        return iter([run])
    if not COUNT:
        return (f"{run}/{SHARDS[n % len(SHARDS)]}/{n}" for n in itertools.count())
    return (f"{run}/{n}" for n in range(count_of(run.rpartition("/")[0]) // len(SHARDS)))


class Answers(Comparison):
    """A cluster and one database, which are asked the same."""

    done = "answered"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.one = Session(world.one)
        self.cluster = Session(world.cluster.engine)

    def compose(self, choices: Choices, turn: int) -> FreeStatement:
        return free_statement(choices, turn, self.collation)

    def outcomes(self, made: FreeStatement) -> tuple[Answer, Answer]:
        return ask(self.one, made), ask(self.cluster, made)

    def difference(self, made: FreeStatement, one: Answer, cluster: Answer) -> str:
        whole = None if made.whole is None else ask(self.one, made, made.whole)
        return difference(made, one, cluster, whole)


@pytest.mark.parametrize("run", runs())
def test_whatever_is_composed_is_answered_as_by_one_database(
    world_of: Callable[[int], World], run: str, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparisons: dict[int, Answers] = {}
    for name in names(run):
        seed, shards, number = name.rsplit("/", 2)
        tally.seeds.add(seed)
        count = int(shards)
        comparison = comparisons.get(count) or Answers(world_of(count))
        comparisons[count] = comparison
        comparison.ship(monkeypatch, int(number))
        # No table has enough rows for it: half of the statements choose by keys wherever they can.
        worth_waiting = ROWS_WORTH_WAITING if int(number) % 2 else -KEYS_MAX
        monkeypatch.setattr(comparison.world.cluster, "rows_worth_waiting", worth_waiting)
        choices = Choices(name)
        found = comparison.differs(choices, tally)

        assert not found, comparison.report(f"SHARDS_PROPERTY_STATEMENT={name}", choices, found)
