"""Whatever can be composed to write: four shards change what one PostgreSQL changes.

Each statement comes twice, with other values, and is rolled back. They follow from the seeds of
`composed`.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import literal_column, select, union_all
from sqlalchemy.exc import SQLAlchemyError

from sqlalchemy_shards.errors import ShardsError
from sqlalchemy_shards.models.distribution import Global, Reference, distribution_of
from tests.properties.choices import Choices
from tests.properties.composed import COUNT, MARKS, Comparison, count_of, seeds
from tests.properties.judging import Answer, difference_of_errors, normal
from tests.properties.world import Base
from tests.properties.writes import Write, composed_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Table

    from tests.properties.conftest import Tally
    from tests.properties.world import World

SHARDS = 4
FIRST = "s0"
"""The shard that has the global tables."""
STATEMENTS_PER_WRITE = 10
"""Of so many statements that are asked for, one is of this module."""
AGAIN = os.environ.get("SHARDS_PROPERTY_WRITE")
"""The name of a statement that is to be run again, alone."""
REFUSED_PERCENT_MAX = 20
ENOUGH_TO_JUDGE = 100
"""Answers without which a share of refusals says nothing."""
pytestmark = MARKS


def runs() -> list[str]:
    """What names of statements begin with; or the whole name of one."""
    return [AGAIN] if AGAIN else seeds()


def names(run: str) -> Iterator[str]:
    """Names of statements, of which each decides everything about it."""
    if AGAIN:
        return iter([run])
    if not COUNT:
        return (f"{run}/{n}" for n in itertools.count())
    return (f"{run}/{n}" for n in range(count_of(run) // STATEMENTS_PER_WRITE))


@dataclass
class Outcome(Answer):
    """What a write gave, and what it left behind in its transaction.

    `rows` are those of RETURNING. `copies` are the contents of the table: of a reference table, all
    different ones that shards have; of others, the rows of all shards together. `others` are the
    other tables of each database.
    """

    rowcount: int = -1
    copies: list[Counter[str]] = field(default_factory=list)
    others: list[Counter[Any]] = field(default_factory=list)


class Changes(Comparison):
    """A cluster and one database, in which the same is written."""

    done = "changed"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.before = {on_cluster: self._states(on_cluster) for on_cluster in (False, True)}

    def compose(self, choices: Choices, turn: int) -> Write:
        return composed_write(choices, turn, self.collation)

    def outcomes(self, made: Write) -> tuple[Outcome, Outcome]:
        return self._run(made, on_cluster=False), self._run(made, on_cluster=True)

    def _run(self, write: Write, *, on_cluster: bool) -> Outcome:
        engine = self.world.cluster.engine if on_cluster else self.world.one
        with engine.connect().execution_options(scatter="allow") as connection:
            try:
                result = connection.execute(write.statement)
                rowcount = result.rowcount
                rows = _normal(result) if result.returns_rows else []
                copies = self._contents(connection, write.table, on_cluster)
                others = self._kept(connection, on_cluster)
            except (SQLAlchemyError, ShardsError) as error:
                return Outcome(error=error)
            finally:
                connection.rollback()
        return Outcome(rows, rowcount=rowcount, copies=copies, others=others)

    def _contents(
        self, connection: Connection, table: Table, on_cluster: bool
    ) -> list[Counter[str]]:
        found = [
            Counter(_normal(connection.execute(select(table), execution_options=options)))
            for options in self._places(on_cluster, table)
        ]
        if isinstance(distribution_of(table), Reference):
            return [each for index, each in enumerate(found) if each not in found[:index]]
        return [sum(found, Counter())]

    def _kept(self, connection: Connection, on_cluster: bool) -> list[Counter[Any]]:
        """All rows of each database, as PostgreSQL writes them."""
        return [
            Counter(map(tuple, connection.execute(_every_row(options), execution_options=options)))
            for options in self._places(on_cluster)
        ]

    def _places(self, on_cluster: bool, table: Table | None = None) -> list[dict[str, Any]]:
        """Options that lead to each database, or to each that has a table."""
        shards = list(self.world.cluster.shards)
        if table is not None and isinstance(distribution_of(table), Global):
            shards = shards[:1]
        return [{"shard": name} for name in shards] if on_cluster else [{}]

    def _states(self, on_cluster: bool) -> list[Counter[Any]]:
        engine = self.world.cluster.engine if on_cluster else self.world.one
        with engine.connect() as connection:
            return self._kept(connection, on_cluster)

    def difference(self, made: Write, one: Any, cluster: Any) -> str:
        if one.error is not None or cluster.error is not None:
            return difference_of_errors(one, cluster)
        if one.rowcount != cluster.rowcount:
            return f"other row counts: {one.rowcount} and {cluster.rowcount}"
        if Counter(one.rows) != Counter(cluster.rows):
            return _told("rows of RETURNING", Counter(one.rows), Counter(cluster.rows))
        if one.copies != cluster.copies:
            if len(cluster.copies) > 1:
                return f"copies that differ: {cluster.copies}"
            return _told("contents", one.copies[0], cluster.copies[0])
        for on_cluster, outcome in ((False, one), (True, cluster)):
            for before, after in zip(self.before[on_cluster], outcome.others, strict=True):
                touched = {each[0] for each in (before - after) + (after - before)}
                if touched - {made.table.name}:
                    return f"also written: {touched - {made.table.name}}, {on_cluster=}"
        return ""


def _every_row(options: dict[str, Any]) -> Any:
    """The rows of all tables that a database has, each with the name of its table."""
    has_all = options.get("shard", FIRST) == FIRST
    return union_all(
        *(
            select(
                literal_column(f"'{table.name}'").label("name"),
                literal_column(f"{table.name}::text").label("told"),
            ).select_from(table)
            for table in Base.metadata.sorted_tables
            if has_all or not isinstance(distribution_of(table), Global)
        )
    )


def _normal(rows: Any) -> list[str]:
    return [repr([normal(each, is_loose=True) for each in row]) for row in rows]


def _told(what: str, one: Counter[str], cluster: Counter[str]) -> str:
    missing, extra = list((one - cluster).elements()), list((cluster - one).elements())
    return f"other {what}; only in one database: {missing[:5]}; only on the cluster: {extra[:5]}"


@pytest.mark.parametrize("run", runs())
def test_whatever_is_written_is_written_as_in_one_database(
    world_of: Callable[[int], World], run: str, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = Changes(world_of(SHARDS))
    told = Counter(tally.counts)
    for name in names(run):
        seed, _, number = name.rpartition("/")
        tally.seeds.add(seed)
        comparison.ship(monkeypatch, int(number))
        choices = Choices(f"write/{name}")
        found = comparison.differs(choices, tally)

        assert not found, comparison.report(f"SHARDS_PROPERTY_WRITE={name}", choices, found)

    told = Counter(tally.counts) - told
    if told.total() >= ENOUGH_TO_JUDGE:
        assert 100 * told["refused"] <= REFUSED_PERCENT_MAX * told.total()
