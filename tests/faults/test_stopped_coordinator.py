"""A coordinator that sleeps anywhere in its commit, and goes on when recovery has been there.

It is neither overruled into a half, nor told what is not so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sqlalchemy_shards.events import at
from sqlalchemy_shards.transactions import fail_points
from tests.faults.arrows import warm_up
from tests.faults.client import client
from tests.faults.trial import ABORTED, COMMITTED, raise_all_and_tell, recovered_outcome
from tests.faults.world import SHARDS, cluster_of

if TYPE_CHECKING:
    from tests.faults.world import World

PLACES = [
    fail_points.BEFORE_ROUND_0,
    fail_points.AFTER_ROUND_0,
    fail_points.BEFORE_DECISION_ROW,
    fail_points.AFTER_DECISION_ROW,
    at(fail_points.BEFORE_PREPARE, "s2"),
    at(fail_points.AFTER_PREPARE, "s1"),
    fail_points.BEFORE_DECISION,
    fail_points.AFTER_DECISION,
    at(fail_points.BEFORE_COMMIT_PREPARED, "s2"),
    at(fail_points.AFTER_COMMIT_PREPARED, "s1"),
    fail_points.AFTER_ROUND_3,
]

TRUTH = {
    "": COMMITTED,
    "TransactionUnfinished": COMMITTED,
    "TransactionAborted": ABORTED,
    "OperationalError": ABORTED,
    # Recovery was there, and nothing is left that would tell what it found.
    "TransactionOutcomeUnknown": ABORTED,
}


@pytest.mark.parametrize("is_given_up", [False, True], ids=["awaited", "given up by the servers"])
@pytest.mark.parametrize("place", PLACES)
def test_a_coordinator_that_slept_is_told_the_truth(
    world: World, place: str, *, is_given_up: bool
) -> None:
    with client(world.urls, warm_up, raise_all_and_tell, stops_at=place) as process:
        process.go()
        process.result()
        process.go()
        process.wait_for_stop()
        if is_given_up:
            end_sessions(world)
        with cluster_of(world.direct) as another:
            another.recover()
            another.recover()
        process.resume()
        told = process.result()

    assert TRUTH[told] == recovered_outcome(world)


def end_sessions(world: World) -> None:
    """As `idle_in_transaction_session_timeout` and a network that gives up would."""
    for name in SHARDS:
        world.ask(
            name,
            "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'",
        )
