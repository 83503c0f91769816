"""How many rows a shard would ship, as its planner expects: found out, and kept for a while.

Asked on the session's own connection: the statement that is explained runs on that shard in that
transaction anyway, whose locks and settings may decide what can be seen at all. A connection apart
would wait for a lock that the transaction itself holds, or for the pool that it has exhausted.

EXPLAIN reads no rows. What it costs is two round trips in `ESTIMATE_SECONDS`, at most; a wrong
estimate makes a gather slower and no answer wrong.
"""

from __future__ import annotations

import json
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import scalar_row
from psycopg.types.string import TextLoader

from sqlalchemy_shards.cluster.enlistment.moments import tell_time
from sqlalchemy_shards.cluster.enlistment.on_shards import on_shards
from sqlalchemy_shards.connections.written_values import with_values
from sqlalchemy_shards.planning.parts import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy_shards.cluster.connection import ClusterConnection
    from sqlalchemy_shards.cluster.dispatch.work import Work
    from sqlalchemy_shards.cluster.enlistment.enlisted import EnlistedShard
    from sqlalchemy_shards.planning.parts import Gathering, Question

ESTIMATE_SECONDS: Final = 60.0
"""How long an estimate is kept, whatever values the statement comes with meanwhile."""

ESTIMATING: Final = "estimate"
"""Name of the step where it is observed."""


def expected_rows(
    connection: ClusterConnection,
    gathering: Gathering,
    questions: Mapping[Question, str],
    work_of: Callable[[Question, str], Work],
) -> Mapping[Question, int]:
    """How many rows statements would give.

    :param questions: what is asked, and which shard.
    :param work_of: makes the statement that is explained.
    """
    now = monotonic()
    known = gathering.estimates
    new = {
        question: work_of(question, shard)
        for question, shard in questions.items()
        if not is_known(gathering, question)
    }
    of_shard: dict[str, list[tuple[Question, Work]]] = {}
    for question, work in new.items():
        of_shard.setdefault(work.shard, []).append((question, work))
    if new:
        tell_time(connection, list(new.values()))
        answers = on_shards(
            connection,
            [each[0][1] for each in of_shard.values()],
            lambda work, enlisted: _explained([each for _, each in of_shard[work.shard]], enlisted),
            step=ESTIMATING,
        )
        for asked, rows in zip(of_shard.values(), answers, strict=True):
            for (question, _), count in zip(asked, rows, strict=True):
                note(gathering, question, count, now)
    return {question: known[question].rows for question in questions}


def is_known(gathering: Gathering, question: Question) -> bool:
    """Whether it was found out lately."""
    known = gathering.estimates.get(question)
    return known is not None and known.until >= monotonic()


def note(gathering: Gathering, question: Question, rows: int, now: float | None = None) -> None:
    """Keep what was found out."""
    until = (monotonic() if now is None else now) + ESTIMATE_SECONDS
    gathering.estimates[question] = Estimate(rows, until)


def _explained(works: Sequence[Work], enlisted: EnlistedShard) -> list[int]:
    """What a shard expects of each statement, in one round trip."""
    driver = enlisted.driver
    commands = [
        b"EXPLAIN (FORMAT JSON) " + with_values(driver, work.sql, work.parameters) for work in works
    ]
    found = []
    with driver.cursor(row_factory=scalar_row) as cursor:
        # The application may read JSON in ways of its own.
        cursor.adapters.register_loader("json", TextLoader)
        cursor.execute(b"; ".join(commands))
        for _ in works:
            plan: Any = cursor.fetchone()
            found.append(int(json.loads(plan)[0]["Plan"]["Plan Rows"]))
            cursor.nextset()
    return found
