"""How many rows a shard would ship, as its planner expects: found out, and kept for a while.

Asked on the session's own connection: the statement that is explained runs on that shard in that
transaction anyway, whose locks and settings may decide what can be seen at all. A connection apart
would wait for a lock that the transaction itself holds, or for the pool that it has exhausted.

EXPLAIN reads no rows. What it costs is a round trip for each part and `ESTIMATE_SECONDS`, at most;
a wrong estimate makes a gather slower and no answer wrong.
"""

from __future__ import annotations

import json
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import scalar_row
from psycopg.types.string import TextLoader

from sqlalchemy_shards.connections.written_values import with_values
from sqlalchemy_shards.planning.parts import Estimate

from .moments import tell_time
from .on_shards import on_shards

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards.planning.parts import Gathering

    from .connection import ClusterConnection
    from .enlisted import EnlistedShard
    from .work import Work

ESTIMATE_SECONDS: Final = 60.0
"""How long an estimate is kept, whatever values the statement comes with meanwhile."""

ESTIMATING: Final = "estimate"
"""Name of the step where it is observed."""


def expected_rows(
    connection: ClusterConnection, gathering: Gathering, part: int, make_work: Callable[[], Work]
) -> int:
    """How many rows of a part a shard would ship.

    :param make_work: makes what is explained: the shard, and the statement that ships the part.
    """
    now = monotonic()
    known = gathering.estimates.get(part)
    if known is None or known.until < now:
        work = make_work()
        tell_time(connection, [work])
        (rows,) = on_shards(connection, [work], _explained, step=ESTIMATING)
        known = gathering.estimates[part] = Estimate(rows, now + ESTIMATE_SECONDS)
    return known.rows


def _explained(work: Work, enlisted: EnlistedShard) -> int:
    driver = enlisted.driver
    sql = b"EXPLAIN (FORMAT JSON) " + with_values(driver, work.sql, work.parameters)
    with driver.cursor(row_factory=scalar_row) as cursor:
        # The application may read JSON in ways of its own.
        cursor.adapters.register_loader("json", TextLoader)
        plan: Any = cursor.execute(sql).fetchone()
    return int(json.loads(plan)[0]["Plan"]["Plan Rows"])
