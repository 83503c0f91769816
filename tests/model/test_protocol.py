from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tests.model.bounds import Bounds
from tests.model.databases import GID
from tests.model.explorer import explore, half_a_commit
from tests.model.mistakes import MISTAKES

pytestmark = pytest.mark.slow

STEPS_MAX = int(os.environ.get("SHARDS_MODEL_STEPS", "0"))
"""Steps to take in `WIDE`, beyond what is explored each time."""

WIDE = Bounds(
    recoveries=2, cleaners=1, losses=2, crashes=1, deaths=1, stops=1, refusals=1, wrong_databases=1
)

# Name, bounds, and how many states there are, so that an exploration that has become empty is seen.
WHOLE = [
    ("nothing goes wrong", Bounds(recoveries=2, cleaners=1), 10_000),
    ("two recoveries beside a coordinator that dies", Bounds(recoveries=2, deaths=1), 3000),
    (
        "two recoveries beside one that dies with a message under way",
        Bounds(recoveries=2, losses=1, deaths=1),
        10_000,
    ),
    (
        "recovery and clean-up beside one that dies with a message under way",
        Bounds(recoveries=1, cleaners=1, losses=1, deaths=1),
        10_000,
    ),
    ("a server crashes", Bounds(recoveries=1, losses=1, crashes=1), 5000),
    (
        "everything goes wrong once with two participants",
        Bounds(participants=2, recoveries=1, cleaners=1, losses=1, crashes=1, deaths=1, refusals=1),
        10_000,
    ),
    (
        "connections lead to other databases",
        Bounds(participants=2, recoveries=2, losses=2, wrong_databases=1),
        1000,
    ),
    ("an interrupt and a refusal", Bounds(recoveries=1, losses=1, stops=1, refusals=1), 3000),
    (
        "an older transaction hides whether the deciding one is over",
        Bounds(recoveries=2, deaths=1, crashes=1, participants=2, is_busy=True),
        3000,
    ),
    (
        "databases of one server",
        Bounds(recoveries=1, losses=1, crashes=1, deaths=1, servers=(0, 0, 0)),
        3000,
    ),
    (
        "every participant is asked for its xid",
        Bounds(participants=2, recoveries=1, losses=1, deaths=1, with_markers=True),
        500,
    ),
    (
        "the xid was asked for before",
        Bounds(recoveries=1, losses=1, deaths=1, early_xid=GID.decision_xid),
        2000,
    ),
    ("a failed participant", Bounds(recoveries=1, losses=1, failed=frozenset({1})), 100),
    ("a failed decision shard", Bounds(recoveries=1, losses=1, failed=frozenset({0})), 300),
]

# One leaves a part prepared, and one tells a lie about a whole transaction.
NOT_BY_HALVES = ("does not exist is taken for success", "no trace is taken for an abort")


@pytest.mark.parametrize(
    ("bounds", "states_min"), [each[1:] for each in WHOLE], ids=[each[0] for each in WHOLE]
)
def test_the_protocol_keeps_every_promise_in_every_order(bounds: Bounds, states_min: int) -> None:
    found = explore(bounds)

    assert found.broken is None, str(found)
    assert found.is_whole
    assert found.states >= states_min


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_found(mistake: str) -> None:
    rules, bounds = MISTAKES[mistake]

    found = explore(bounds, rules)
    without = explore(bounds)

    assert found.broken is not None
    assert without.broken is None, str(without)


@pytest.mark.parametrize(
    "mistake",
    # Of the others one leaves a part prepared, and one tells a lie about a whole transaction.
    sorted(
        set(MISTAKES) - {"does not exist is taken for success", "no trace is taken for an abort"}
    ),
)
def test_a_mistake_can_end_in_half_a_commit(mistake: str) -> None:
    rules, bounds = MISTAKES[mistake]

    found = explore(replace(bounds, recoveries=1), rules, promise=half_a_commit)

    assert found.broken is not None


def test_a_broken_promise_is_told_step_by_step() -> None:
    rules, bounds = MISTAKES["the command tag is not looked at"]

    found = explore(bounds, rules)

    assert str(found).splitlines() == [
        "broken after 4 steps: never two outcomes (s0: committed, s1: aborted)",
        "  1. coordinator: ASK_AND_ASSIGN on s0: asked",
        "  2. coordinator: INSERT_DECISION on s0: done",
        "  3. coordinator: PREPARE on s1: answered ROLLBACK",
        "  4. coordinator: DECIDE on s0: answered COMMIT",
    ]


@pytest.mark.skipif(not STEPS_MAX, reason="on demand: SHARDS_MODEL_STEPS=10000000")
def test_the_protocol_keeps_every_promise_in_wider_bounds() -> None:
    found = explore(WIDE, steps_max=STEPS_MAX)

    assert found.broken is None, str(found)
