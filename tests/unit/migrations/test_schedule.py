"""Whose turn it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlalchemy_shards.migrations.workers.schedule import Schedule

SHARDS = ("s0", "s1", "s2", "s3")


def test_shards_have_their_turns_in_their_order() -> None:
    schedule = Schedule(SHARDS)

    assert [schedule.next() for _ in range(5)] == [*SHARDS, None]


def test_the_canary_runs_first_and_alone() -> None:
    schedule = Schedule(SHARDS, canary="s2")

    assert (schedule.room, schedule.next()) == (1, "s2")
    assert (schedule.room, schedule.next()) == (0, None)


def test_the_rest_follows_a_canary_that_succeeded() -> None:
    schedule = Schedule(SHARDS, canary="s2")
    schedule.next()

    schedule.succeeded("s2")

    assert schedule.room == 3
    assert [schedule.next() for _ in range(4)] == ["s0", "s1", "s3", None]


@pytest.mark.parametrize("on_failure", ["stop", "continue"])
def test_nothing_follows_a_canary_that_failed(on_failure: str) -> None:
    schedule = Schedule(SHARDS, canary="s2", on_failure=on_failure)  # type: ignore[arg-type]
    schedule.next()

    schedule.failed("s2")

    assert (schedule.is_over, schedule.next()) == (True, None)
    assert schedule.waiting == ("s0", "s1", "s3")


def test_after_the_canary_somebody_may_have_to_go_on() -> None:
    schedule = Schedule(SHARDS, canary="s0", pauses=True)
    schedule.next()
    schedule.succeeded("s0")

    assert (schedule.is_paused, schedule.room, schedule.is_over) == (True, 0, False)
    schedule.go_on()
    assert schedule.next() == "s1"


def test_there_is_no_pause_after_the_only_shard() -> None:
    schedule = Schedule(["s0"], canary="s0", pauses=True)
    schedule.next()

    schedule.succeeded("s0")

    assert (schedule.is_paused, schedule.is_over) == (False, True)


def test_a_failure_stops_what_has_not_begun() -> None:
    schedule = Schedule(SHARDS)
    schedule.next()
    schedule.next()

    schedule.failed("s0")

    assert (schedule.next(), schedule.is_over, schedule.running) == (None, False, {"s1"})
    schedule.succeeded("s1")
    assert (schedule.is_over, schedule.waiting) == (True, ("s2", "s3"))


def test_a_failure_may_be_passed_over() -> None:
    schedule = Schedule(SHARDS, on_failure="continue")
    schedule.next()

    schedule.failed("s0")

    assert schedule.next() == "s1"


def test_nothing_begins_once_it_is_stopped() -> None:
    schedule = Schedule(SHARDS)
    schedule.next()

    schedule.stop()

    assert (schedule.next(), schedule.is_over) == (None, False)


@given(st.data())
def test_whatever_happens_no_shard_has_two_turns_and_every_run_ends(data: st.DataObject) -> None:
    schedule = Schedule(
        SHARDS,
        canary=data.draw(st.sampled_from([None, *SHARDS])),
        pauses=data.draw(st.booleans()),
        on_failure=data.draw(st.sampled_from(["stop", "continue"])),
    )
    given_: list[str] = []
    for _ in range(50):
        if schedule.is_over:
            break
        if (shard := schedule.next()) is not None:
            given_.append(shard)
        elif schedule.is_paused:
            schedule.go_on()
        elif schedule.running:
            ended = data.draw(st.sampled_from(sorted(schedule.running)))
            data.draw(st.sampled_from([schedule.succeeded, schedule.failed]))(ended)

    assert schedule.is_over
    assert len(given_) == len(set(given_))
    assert sorted((*given_, *schedule.waiting)) == sorted(SHARDS)
