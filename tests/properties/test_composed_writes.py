"""Whatever can be composed to write: four shards change what one PostgreSQL changes.

Each statement comes twice, with other values, so that the second meets the kept plan; each is
rolled back. They follow from seeds as those of test_free_statements.py do. docs/testing.md says how
to run one again, and how to go on without end.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import literal_column, select, text, union_all
from sqlalchemy.exc import SQLAlchemyError

from sqlalchemy_shards.errors import ShardsError
from sqlalchemy_shards.models.distribution import Global, Reference, distribution_of
from tests.properties.choices import Choices, shrink
from tests.properties.judging import Answer, normal
from tests.properties.world import Base
from tests.properties.writes import Write, composed_write
from tests.seeds import ALWAYS, seed_of

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
COUNT = int(os.environ.get("SHARDS_PROPERTY_STATEMENTS", "1200"))
"""Statements of a run, as test_free_statements.py has them; 0 goes on until it is stopped."""
SEED = seed_of("SHARDS_PROPERTY_SEED")
AGAIN = os.environ.get("SHARDS_PROPERTY_WRITE")
"""The name of a statement that is to be run again, alone."""
HAS_ICU = "SELECT count(*) > 0 FROM pg_collation WHERE collname = 'und-x-icu'"
CTE_ROWS_MAX = 5_000
REFUSED_PERCENT_MAX = 20
ENOUGH_TO_JUDGE = 100
"""Answers without which a share of refusals says nothing."""
pytestmark = [
    pytest.mark.longest,
    pytest.mark.timeout(0),
    pytest.mark.filterwarnings("ignore"),
]


def runs() -> list[str]:
    """What names of statements begin with; or the whole name of one."""
    return [AGAIN] if AGAIN else sorted({ALWAYS, SEED}) if COUNT else [SEED]


def names(run: str) -> Iterator[str]:
    """Names of statements, of which each decides everything about it."""
    if AGAIN:
        return iter([run])
    if not COUNT:
        return (f"{run}/{n}" for n in itertools.count())
    quarters = 4 if SEED == ALWAYS else 1 if run == ALWAYS else 3
    return (f"{run}/{n}" for n in range(COUNT * quarters // (4 * STATEMENTS_PER_WRITE)))


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


class Comparison:
    """A cluster and one database, in which the same is written."""

    def __init__(self, world: World) -> None:
        self.world = world
        with world.one.connect() as connection:
            has_icu = connection.scalar(text(HAS_ICU))
            self.collation = "und-x-icu" if has_icu else "C.utf8"
            name = world.one.url.database
            connection.execute(text(f'ALTER DATABASE "{name}" SET statement_timeout = 20000'))
            connection.commit()
        self.before = {on_cluster: self._states(on_cluster) for on_cluster in (False, True)}

    def differs(self, choices: Choices, tally: Tally | None = None) -> str:
        """How the outcomes of a write and of the same with other values differ, in words."""
        seed = choices.made or None
        for turn in (0, 1):
            again = Choices(recorded=seed) if seed else choices
            write = composed_write(again, turn, self.collation)
            seed = seed or list(again.made)
            one = self._run(write, on_cluster=False)
            cluster = self._run(write, on_cluster=True)
            if cluster.refusal is not None:
                if tally is not None:
                    tally.refused(cluster.refusal)
                continue
            if tally is not None:
                tally.counts["changed" if one.error is None else "failed alike"] += 1
            found = self._difference(write, one, cluster)
            if found:
                compiled = write.statement.compile(self.world.one)
                return f"{found}\n{compiled}\n{compiled.params}"
        return ""

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

    def _difference(self, write: Write, one: Outcome, cluster: Outcome) -> str:
        """What a cluster did otherwise than one database; empty: nothing."""
        if one.error is not None or cluster.error is not None:
            is_alike = one.error is not None and cluster.error is not None
            if is_alike and one.sqlstate and one.sqlstate == cluster.sqlstate:
                return ""
            if is_alike and not one.sqlstate and type(one.error) is type(cluster.error):
                return ""
            return f"one database: {one.error or 'done'}\ncluster: {cluster.error or 'done'}"
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
                if touched - {write.table.name}:
                    return f"also written: {touched - {write.table.name}}, {on_cluster=}"
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
    comparison = Comparison(world_of(SHARDS))
    told = Counter(tally.counts)
    for name in names(run):
        seed, _, number = name.rpartition("/")
        tally.seeds.add(seed)
        # Few rows are shipped as CTEs; a third of the statements ships them as tables.
        rows_max = CTE_ROWS_MAX if int(number) % 3 else -1
        monkeypatch.setattr(comparison.world.cluster.workspace, "cte_rows_max", rows_max)
        choices = Choices(f"write/{name}")
        found = comparison.differs(choices, tally)

        assert not found, _report(comparison, name, choices, found)

    told = Counter(tally.counts) - told
    if told.total() >= ENOUGH_TO_JUDGE:
        assert 100 * told["refused"] <= REFUSED_PERCENT_MAX * told.total()


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
    return f"SHARDS_PROPERTY_WRITE={name}\n{found}\n\nsimplest:\n{simple}"
