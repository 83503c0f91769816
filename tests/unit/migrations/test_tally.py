"""What messages of workers come to."""

from __future__ import annotations

from sqlalchemy_shards.migrations.workers.messages import Applied, Began, Done, Failed
from sqlalchemy_shards.migrations.workers.report import MigrationReport, Outcome, ShardMigration
from sqlalchemy_shards.migrations.workers.tally import Tally


def tally_of(*messages: Began | Applied | Done | Failed) -> ShardMigration:
    """What one shard comes to, with a second between messages."""
    tally = Tally(["s0"])
    tally.given("s0", 0)
    for at, message in enumerate(messages, 1):
        tally.note(message, at)
    return tally.results(10)[0]


def test_a_shard_that_was_migrated() -> None:
    found = tally_of(
        Began("s0", ("r1",), ("r2", "r3")),
        Applied("s0", "r2"),
        Applied("s0", "r3"),
        Done("s0", ("r3",)),
    )

    assert found == ShardMigration("s0", Outcome.MIGRATED, ("r1",), ("r3",), 2, 4)


def test_a_shard_that_had_nothing_to_do() -> None:
    found = tally_of(Began("s0", ("r3",), ()), Done("s0", ("r3",)))

    assert found == ShardMigration("s0", Outcome.UNCHANGED, ("r3",), ("r3",), 0, 2)


def test_what_was_rolled_back_counts_as_not_applied() -> None:
    found = tally_of(
        Began("s0", ("r1",), ("r2", "r3")),
        Applied("s0", "r2"),
        Failed("s0", "no", "r3", ("r1",)),
    )

    assert (found.outcome, found.applied, found.revision) == (Outcome.FAILED, 0, "r3")


def test_what_was_committed_before_a_failure_counts() -> None:
    found = tally_of(
        Began("s0", ("r1",), ("r2", "r3")),
        Applied("s0", "r2"),
        Failed("s0", "no", "r3", ("r2",)),
    )

    assert (found.applied, found.before, found.after) == (1, ("r1",), ("r2",))


def test_a_second_attempt_begins_anew() -> None:
    found = tally_of(
        Began("s0", ("r1",), ("r2",)),
        Applied("s0", "r2"),
        Began("s0", ("r1",), ("r2",)),
        Applied("s0", "r2"),
        Done("s0", ("r2",)),
    )

    assert (found.outcome, found.applied) == (Outcome.MIGRATED, 1)


def test_a_shard_that_said_nothing_more_is_not_counted_as_done() -> None:
    found = tally_of(Began("s0", (), ("r1",)), Applied("s0", "r1"))

    assert (found.outcome, found.after, found.is_there) == (Outcome.INTERRUPTED, None, False)


def test_a_shard_without_a_turn_has_not_begun() -> None:
    assert Tally(["s0"]).results(1) == (ShardMigration("s0", Outcome.NOT_BEGUN),)


def test_a_report_in_plain_types() -> None:
    shards = (ShardMigration("s0", Outcome.MIGRATED, (), ("r1",), 1, 0.12345),)

    found = MigrationReport("shop", "upgrade", ("heads",), shards, 1.23456, 1).as_dict()

    assert found == {
        "cluster": "shop",
        "command": "upgrade",
        "revisions": ["heads"],
        "complete": True,
        "interrupted": False,
        "error": None,
        "seconds": 1.235,
        "workers": 1,
        "shards": [
            {
                "shard": "s0",
                "outcome": "migrated",
                "before": [],
                "after": ["r1"],
                "applied": 1,
                "seconds": 0.123,
                "error": None,
                "revision": None,
            }
        ],
    }
