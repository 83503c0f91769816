from __future__ import annotations

import pickle
from typing import Any

import psycopg
import pytest

from sqlalchemy_shards.connections.fan_out import (
    AdaptiveFanOut,
    Branch,
    DeadlineExceeded,
    FanOut,
    SequentialFanOut,
    choose_fan_out,
)
from sqlalchemy_shards.connections.hub import GreenletFanOut, ShardConnection, current_branch

FAN_OUTS = [SequentialFanOut(), GreenletFanOut(), AdaptiveFanOut(GreenletFanOut())]


class PlainConnection:
    def cancel(self) -> None: ...


class CooperativeConnection(PlainConnection):
    waits_in_hub = True


def fail() -> None:
    raise ValueError("wrong")


def branch_on(connection: Any) -> Branch[None]:
    return Branch("s", lambda: None, lambda: connection)


@pytest.mark.parametrize("fan_out", FAN_OUTS)
@pytest.mark.parametrize("count", [0, 1, 2, 100])
@pytest.mark.parametrize("deadline_seconds", [None, 60.0])
def test_there_is_one_outcome_for_each_branch_in_order(
    fan_out: FanOut, count: int, deadline_seconds: float | None
) -> None:
    branches = [Branch(f"s{i}", lambda i=i: i * i) for i in range(count)]  # type: ignore[misc]

    outcomes = fan_out.run(branches, deadline_seconds=deadline_seconds)

    assert [(o.shard, o.result()) for o in outcomes] == [(f"s{i}", i * i) for i in range(count)]


@pytest.mark.parametrize("fan_out", FAN_OUTS)
def test_an_error_is_the_outcome_of_its_branch(fan_out: FanOut) -> None:
    first, second = fan_out.run([Branch("s0", fail), Branch("s1", lambda: None)])

    assert second.error is None
    with pytest.raises(ValueError, match="wrong"):
        first.result()


@pytest.mark.parametrize("fan_out", FAN_OUTS)
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_no_ordinary_error_is_raised(fan_out: FanOut, count: int) -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        fan_out.run([Branch("s", leave)] * count)


def test_one_after_the_other_begins_nothing_after_the_deadline() -> None:
    begun: list[int] = []
    branches = [branch_on(PlainConnection()), Branch("s1", lambda: begun.append(1))]

    outcomes = SequentialFanOut().run(branches, deadline_seconds=0.0)

    assert begun == []
    assert [type(outcome.error) for outcome in outcomes] == [DeadlineExceeded] * 2


def test_a_single_branch_runs_in_the_caller() -> None:
    (outcome,) = GreenletFanOut().run([Branch("s0", current_branch)])

    assert outcome.result() is None


def test_several_branches_run_in_greenlets_of_their_own() -> None:
    outcomes = GreenletFanOut().run([Branch(f"s{i}", current_branch) for i in range(2)])

    assert len({id(outcome.result()) for outcome in outcomes}) == 2


@pytest.mark.parametrize(
    ("connections", "together"),
    [
        ([CooperativeConnection(), CooperativeConnection()], True),
        ([CooperativeConnection(), None], True),
        ([None, None], True),
        ([CooperativeConnection(), PlainConnection()], False),
        ([PlainConnection(), None], False),
    ],
)
def test_branches_run_at_once_where_all_their_connections_can(
    connections: list[Any], together: bool
) -> None:
    concurrent, sequential = GreenletFanOut(), SequentialFanOut()
    branches = [branch_on(connection) for connection in connections]

    chosen = choose_fan_out(branches, concurrent=concurrent, sequential=sequential)

    assert chosen is (concurrent if together else sequential)


def test_shard_connections_can_wait_in_a_hub() -> None:
    assert ShardConnection.waits_in_hub


def test_the_deadlines_error_is_a_cancelled_statement_and_survives_pickling() -> None:
    error = DeadlineExceeded.on("s1", 2.5, "its statement was cancelled")

    copy = pickle.loads(pickle.dumps(error))

    assert isinstance(copy, psycopg.errors.QueryCanceled)
    assert copy.sqlstate == "57014"
    assert copy.shard == "s1"
    assert str(copy) == "the deadline of 2.5 s passed on shard 's1'; its statement was cancelled"
