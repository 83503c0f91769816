"""Whatever can be composed of SQLAlchemy's parts: N shards answer as one PostgreSQL does.

Each statement comes twice, with other values, so that the second meets the cached plan. They
follow from a seed that is always the same; where another is given, three quarters follow from that.
The seeds are printed at the end. docs/testing.md says how to run one again, and how to go on
without end.
"""

from __future__ import annotations

import itertools
import os
import warnings
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from sqlalchemy_shards.cluster.gather.key_lists import ROWS_WORTH_WAITING
from sqlalchemy_shards.planning.asked_keys import KEYS_MAX
from tests.properties.choices import Choices, shrink
from tests.properties.free_statements import free_statement
from tests.properties.judging import ask, difference
from tests.seeds import ALWAYS, seed_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.properties.conftest import Tally
    from tests.properties.world import World

SHARDS = (1, 2, 3, 5)
COUNT = int(os.environ.get("SHARDS_PROPERTY_STATEMENTS", "1200"))
"""Statements of a run, over all tests of this module; 0 goes on until it is stopped."""
SEED = seed_of("SHARDS_PROPERTY_SEED")
AGAIN = os.environ.get("SHARDS_PROPERTY_STATEMENT")
"""The name of a statement that is to be run again, alone."""
HAS_ICU = "SELECT count(*) > 0 FROM pg_collation WHERE collname = 'und-x-icu'"
CTE_ROWS_MAX = 5_000
pytestmark = [
    pytest.mark.longest,
    pytest.mark.timeout(0),
    pytest.mark.filterwarnings("ignore"),
]


def runs() -> list[str]:
    """Where names of statements begin: a seed and a number of shards; or the whole name of one."""
    if AGAIN:
        return [AGAIN]
    if not COUNT:
        return [SEED]
    return [f"{seed}/{count}" for count in SHARDS for seed in sorted({ALWAYS, SEED})]


def names(run: str) -> Iterator[str]:
    """Names of statements, of which each decides everything about it."""
    if AGAIN:
        return iter([run])
    if not COUNT:
        return (f"{run}/{SHARDS[n % len(SHARDS)]}/{n}" for n in itertools.count())
    quarters = 4 if SEED == ALWAYS else 1 if run.startswith(ALWAYS) else 3
    return (f"{run}/{n}" for n in range(COUNT * quarters // (4 * len(SHARDS))))


class Comparison:
    """A cluster and one database, which are asked the same."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.one = Session(world.one)
        self.cluster = Session(world.cluster.engine)
        with world.one.connect() as connection:
            has_icu = connection.scalar(text(HAS_ICU))
            self.collation = "und-x-icu" if has_icu else "C.utf8"
            name = world.one.url.database
            connection.execute(text(f'ALTER DATABASE "{name}" SET statement_timeout = 20000'))
            connection.commit()

    def differs(self, choices: Choices, tally: Tally | None = None) -> str:
        """How the answers to a statement and to the same with other values differ, in words."""
        seed = choices.made or None
        for turn in (0, 1):
            again = Choices(recorded=seed) if seed else choices
            free = free_statement(again, turn, self.collation)
            seed = seed or list(again.made)
            one = ask(self.one, free)
            whole = None if free.whole is None else ask(self.one, free, free.whole)
            cluster = ask(self.cluster, free)
            if cluster.refusal is not None and len(self.world.cluster.shards) > 1:
                if tally is not None:
                    tally.refused(cluster.refusal)
                continue
            if tally is not None:
                tally.counts["answered" if one.error is None else "failed alike"] += 1
            found = difference(free, one, cluster, whole)
            if found:
                compiled = free.statement.compile(self.world.one)
                return f"{found}\n{compiled}\n{compiled.params}"
        return ""


@pytest.mark.parametrize("run", runs())
def test_whatever_is_composed_is_answered_as_by_one_database(
    world_of: Callable[[int], World], run: str, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparisons: dict[int, Comparison] = {}
    for name in names(run):
        seed, shards, number = name.rsplit("/", 2)
        tally.seeds.add(seed)
        count = int(shards)
        comparison = comparisons.get(count) or Comparison(world_of(count))
        comparisons[count] = comparison
        # Few rows are shipped as CTEs; a third of the statements ships them as tables.
        rows_max = CTE_ROWS_MAX if int(number) % 3 else -1
        monkeypatch.setattr(comparison.world.cluster.workspace, "cte_rows_max", rows_max)
        # No table has enough rows for it: half of the statements choose by keys wherever they can.
        worth_waiting = ROWS_WORTH_WAITING if int(number) % 2 else -KEYS_MAX
        monkeypatch.setattr(comparison.world.cluster, "rows_worth_waiting", worth_waiting)
        choices = Choices(name)
        found = comparison.differs(choices, tally)

        assert not found, _report(comparison, name, choices, found)


def _report(comparison: Comparison, name: str, choices: Choices, found: str) -> str:
    """What differs, and the simplest statement that was found to differ as well."""

    def fails(simpler: list[int]) -> bool:
        try:
            return bool(comparison.differs(Choices(recorded=simpler)))
        except Exception:  # choices that make no statement
            return False

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simplest = shrink(choices.made, fails)
        simple = comparison.differs(Choices(recorded=simplest))
    return f"SHARDS_PROPERTY_STATEMENT={name}\n{found}\n\nsimplest:\n{simple}"
