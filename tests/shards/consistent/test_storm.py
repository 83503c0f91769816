"""Consistent reads while other processes commit, die, and markers are removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from sqlalchemy_shards.events import SnapshotsTaken, at
from sqlalchemy_shards.transactions import fail_points
from tests.shards.consistent.bank import (
    DEADLINE_SECONDS,
    EACH,
    SHARDS,
    TOTAL,
    Account,
    Bank,
    disposing,
)
from tests.shards.consistent.test_markers import clean, uuids
from tests.shards.distributed import CRASHED

if TYPE_CHECKING:
    from collections.abc import Iterator

READS = 20
TELLERS = 2


def start(bank: Bank, *arguments: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "tests.shards.consistent.teller", json.dumps(bank.urls), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
    )


@contextmanager
def tellers(bank: Bank) -> Iterator[list[int]]:
    """Processes that move amounts; their numbers of transfers, when they have ended."""
    moved: list[int] = []
    with ExitStack() as stack:
        started = [stack.enter_context(start(bank)) for _ in range(TELLERS)]
        try:
            for teller in started:
                assert teller.stdout is not None
                assert teller.stdout.readline() == "ready\n"
            yield moved
        finally:
            ends = [teller.communicate(timeout=DEADLINE_SECONDS)[0] for teller in started]
    moved += [int(end) for end in ends]


@contextmanager
def removing(bank: Bank) -> Iterator[None]:
    """Markers are removed all the time, with horizons of no length."""
    stopped = threading.Event()
    errors: list[BaseException] = []

    def remove() -> None:
        try:
            while not stopped.is_set():
                clean(bank)
        except BaseException as error:  # told to the test
            errors.append(error)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(DEADLINE_SECONDS)
    assert errors == []


def test_the_sum_is_right_every_time(bank: Bank, bank_urls: dict[str, str]) -> None:
    uuids(bank)
    totals, taken = [], []
    with disposing(Bank(bank_urls, consistent_reads=True)) as (reader,):
        reader.cluster.hooks.listen(SnapshotsTaken, taken.append)
        with tellers(bank) as moved, removing(bank):
            for _ in range(READS):
                with reader.session() as session, session.begin_consistent():
                    totals.append(session.scalar(TOTAL))
                    totals.append(sum(session.scalars(select(Account.amount))))

    assert totals == [bank.total] * 2 * READS
    assert sum(moved) > READS
    assert len(taken) == READS


@pytest.mark.parametrize(
    ("fail_point", "amounts"),
    [
        (fail_points.BEFORE_DECISION, (0, 0, 0, 0)),
        (fail_points.AFTER_DECISION, (-2, 1, 1, 0)),
        (at(fail_points.AFTER_COMMIT_PREPARED, "s2"), (-2, 1, 1, 0)),
    ],
)
def test_what_a_coordinator_left_is_seen_wholly_or_not_at_all(
    bank: Bank, fail_point: str, amounts: tuple[int, ...]
) -> None:
    with start(bank, fail_point) as crashing:
        assert crashing.wait(DEADLINE_SECONDS) == CRASHED

    with bank.session() as session, session.begin_consistent():
        seen = bank.amounts(session)

    assert seen == {name: EACH + more for name, more in zip(SHARDS, amounts, strict=True)}
