"""Statements that follow from seeds: how many are run, each twice, and what a difference tells.

Of a run, all follow from a seed that is always the same; where another is given, three quarters
follow from that. docs/testing.md says how to run one again, and how to go on without end.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from tests.properties.choices import Choices, shrink
from tests.seeds import ALWAYS, seed_of

if TYPE_CHECKING:
    from tests.properties.conftest import Tally
    from tests.properties.judging import Answer
    from tests.properties.world import World

COUNT = int(os.environ.get("SHARDS_PROPERTY_STATEMENTS", "1200"))
"""Statements of a run; 0 goes on until it is stopped."""
SEED = seed_of("SHARDS_PROPERTY_SEED")
MARKS = [
    pytest.mark.longest,
    pytest.mark.timeout(0),
    pytest.mark.filterwarnings("ignore"),
]
HAS_ICU = "SELECT count(*) > 0 FROM pg_collation WHERE collname = 'und-x-icu'"
CTE_ROWS_MAX = 5_000


def seeds() -> list[str]:
    """What the statements of a run follow from."""
    return sorted({ALWAYS, SEED}) if COUNT else [SEED]


def count_of(seed: str) -> int:
    """How many statements of a run follow from one of its seeds."""
    quarters = 4 if SEED == ALWAYS else 1 if seed == ALWAYS else 3
    return COUNT * quarters // 4


class Comparison(ABC):
    """A cluster and one database, which are given the same statements.

    A subclass composes them, runs them and judges what came of it.
    """

    done: str
    """What a statement that did not fail is counted as."""

    def __init__(self, world: World) -> None:
        self.world = world
        with world.one.connect() as connection:
            has_icu = connection.scalar(text(HAS_ICU))
            self.collation = "und-x-icu" if has_icu else "C.utf8"
            name = world.one.url.database
            connection.execute(text(f'ALTER DATABASE "{name}" SET statement_timeout = 20000'))
            connection.commit()

    @abstractmethod
    def compose(self, choices: Choices, turn: int) -> Any:
        """Make what has a ``statement``; the same choices make the same, with values per turn."""

    @abstractmethod
    def outcomes(self, made: Any) -> tuple[Answer, Answer]:
        """What one database gives for a statement, and what the cluster gives."""

    @abstractmethod
    def difference(self, made: Any, one: Answer, cluster: Answer) -> str:
        """What the cluster did otherwise than one database; empty: nothing."""

    def ship(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        """Ship rows as CTEs, as few of them are; for a third of the statements, as tables."""
        rows_max = CTE_ROWS_MAX if number % 3 else -1
        monkeypatch.setattr(self.world.cluster.workspace, "cte_rows_max", rows_max)

    def differs(self, choices: Choices, tally: Tally | None = None) -> str:
        """How the outcomes of a statement and of the same with other values differ, in words.

        The second meets the plan that the first left behind.
        """
        seed = choices.made or None
        for turn in (0, 1):
            again = Choices(recorded=seed) if seed else choices
            made = self.compose(again, turn)
            seed = seed or list(again.made)
            one, cluster = self.outcomes(made)
            if cluster.refusal is not None and len(self.world.cluster.shards) > 1:
                if tally is not None:
                    tally.refused(cluster.refusal)
                continue
            if tally is not None:
                tally.counts[self.done if one.error is None else "failed alike"] += 1
            found = self.difference(made, one, cluster)
            if found:
                compiled = made.statement.compile(self.world.one)
                return f"{found}\n{compiled}\n{compiled.params}"
        return ""

    def report(self, name: str, choices: Choices, found: str) -> str:
        """What differs, and the simplest statement that was found to differ as well.

        :param name: what is set in the environment to run the statement again.
        """

        def fails(simpler: list[int]) -> bool:
            try:
                return bool(self.differs(Choices(recorded=simpler)))
            except Exception:  # choices that make no statement
                return False

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            simplest = shrink(choices.made, fails)
            simple = self.differs(Choices(recorded=simplest))
        return f"{name}\n{found}\n\nsimplest:\n{simple}"
