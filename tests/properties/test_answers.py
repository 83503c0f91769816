"""N shards answer as one PostgreSQL does, or refuse: rows, Python types and order alike.

Every statement runs twice, with other values, so that the second run uses the cached plan.
`SHARDS_PROPERTY_EXAMPLES` says how many statements; the share of refusals is printed at the end.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import select
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from sqlalchemy_shards.errors import ShardsError
from sqlalchemy_shards.models.distribution import Reference, distribution_of
from tests.properties.judging import REFUSALS, refusal_of
from tests.properties.statements import Change, Question, changes, questions
from tests.properties.world import World, typed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.properties.conftest import Tally

EXAMPLES = int(os.environ.get("SHARDS_PROPERTY_EXAMPLES", "120"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product"),
]
thorough = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="SHARDS_PROPERTY_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


class Answer:
    """What one bind gave: rows, or an error."""

    def __init__(self, bind: Any, statement: Any) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        try:
            with Session(bind) as session:
                self.rows = [typed(row) for row in session.execute(statement)]
        except (SQLAlchemyError, ShardsError) as error:
            self.error = error


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_cluster_answers_as_one_database(
    world_of: Callable[[int], World], count: int, tally: Tally
) -> None:
    world = world_of(count)

    @settings(thorough, max_examples=EXAMPLES if count == 4 else EXAMPLES // 3)
    @given(questions())
    def check(question: Question) -> None:
        answer_alike(world, question, tally)

    check()


def answer_alike(world: World, question: Question, tally: Tally) -> None:
    """Ask a cluster and one database the same question, twice."""
    for i in (0, 1):
        one = Answer(world.one, question.build(i))
        cluster = Answer(world.cluster.engine, question.build(i))
        if isinstance(cluster.error, REFUSALS):
            tally.refused(refusal_of(cluster.error))
            assert len(world.cluster.shards) > 1, cluster.error
            continue
        tally.counts["answered" if one.error is None else "failed alike"] += 1
        compare(question, one, cluster)


def compare(question: Question, one: Answer, cluster: Answer) -> None:
    """Hold a cluster's answer against that of one database."""
    if one.error is not None:
        assert isinstance(one.error, DBAPIError), one.error
        if isinstance(one.error, DataError) and cluster.error is None:
            # A value that does not fit its column is no error where no shard is asked.
            assert not cluster.rows
            return
        assert type(cluster.error) is type(one.error), cluster.error
        return
    assert cluster.error is None, cluster.error
    if question.is_partial:
        assert len(cluster.rows) == len(one.rows)
    else:
        assert Counter(cluster.rows) == Counter(one.rows)
    if question.ordered_by is not None:
        width = question.ordered_by
        assert [row[:width] for row in cluster.rows] == [row[:width] for row in one.rows]


@pytest.mark.parametrize("count", [2, 4])
def test_a_cluster_changes_what_one_database_changes(
    world_of: Callable[[int], World], count: int, tally: Tally
) -> None:
    world = world_of(count)

    @settings(thorough, max_examples=EXAMPLES // 2)
    @given(changes())
    def check(change: Change) -> None:
        for i in (0, 1):
            one = Outcome(world, change, i, on_cluster=False)
            cluster = Outcome(world, change, i, on_cluster=True)
            if isinstance(cluster.error, REFUSALS):
                tally.counts["change refused"] += 1
                continue
            tally.counts["changed" if one.error is None else "failed alike"] += 1
            assert type(cluster.error) is type(one.error), cluster.error
            assert cluster.copies == one.copies
            assert cluster.returned == one.returned
            assert cluster.rowcount == one.rowcount

    check()


class Outcome:
    """What a change left behind, undone at the end.

    `copies` are the contents of the table: of a reference table, all different ones that shards
    have; of others, the rows of all shards together.
    """

    def __init__(self, world: World, change: Change, i: int, *, on_cluster: bool) -> None:
        self.error: Exception | None = None
        self.copies: list[Counter[Any]] = []
        self.returned: Counter[Any] | None = None
        self.rowcount = -1
        engine = world.cluster.engine if on_cluster else world.one
        with engine.connect() as connection:
            try:
                result = connection.execute(change.build(i))
                self.rowcount = result.rowcount
                if result.returns_rows:
                    self.returned = Counter(map(typed, result))
            except (SQLAlchemyError, ShardsError) as error:
                self.error = error
            else:
                self.copies = contents(world, connection, change, on_cluster=on_cluster)


def contents(
    world: World, connection: Any, change: Change, *, on_cluster: bool
) -> list[Counter[Any]]:
    """The table as this transaction sees it."""
    statement = select(change.model.__table__)
    if not on_cluster:
        return [Counter(map(typed, connection.execute(statement)))]
    found = [
        Counter(map(typed, connection.execute(statement, execution_options={"shard": shard})))
        for shard in world.cluster.shards
    ]
    if isinstance(distribution_of(change.model.__table__), Reference):
        return [each for index, each in enumerate(found) if each not in found[:index]]
    return [sum(found, Counter())]
