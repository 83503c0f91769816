"""Whatever breaks when: nothing is half done, and every report was true.

`SHARDS_FAULT_SECONDS` says how long the storm rages, `SHARDS_FAULT_SEED` what it follows from.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

import pytest

from tests.faults.storm import Storm
from tests.faults.workload import ABORTED, COMMITTED, MONEY, OPEN, POTS, UNKNOWN
from tests.faults.world import SHARDS, cluster_of, eventually
from tests.seeds import seed_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy_shards import Cluster
    from tests.faults.workload import Told
    from tests.faults.world import World

SECONDS = float(os.environ.get("SHARDS_FAULT_SECONDS", "20"))
SEED = seed_of("SHARDS_FAULT_SEED")
CALM_SECONDS = min(5.0, SECONDS)
SETTLING_SECONDS = 240

Pot = tuple[str, int]


@pytest.fixture
def bank(world: World) -> World:
    """Pots with money on every shard, and no entry."""
    for name in SHARDS:
        world.ask(name, "DELETE FROM entry; DELETE FROM pot")
        world.ask(
            name,
            f"INSERT INTO pot SELECT '{name}', number, {MONEY} * (number > 0)::int, 0"
            f" FROM generate_series(0, {POTS}) AS number",
        )
    return world


@pytest.mark.longest
@pytest.mark.timeout(SECONDS + SETTLING_SECONDS)
def test_nothing_is_half_done_whatever_breaks_when(bank: World, tmp_path: Path) -> None:
    storm = Storm(bank, tmp_path, SEED)

    told = storm.rage(SECONDS)

    reports = Counter(each.report for each in told)
    print(f"SHARDS_FAULT_SEED={SEED}: {dict(reports)}; {dict(storm.faults)}")
    finish_all(bank)
    judge(bank, told)
    assert reports[COMMITTED] > 0


@pytest.mark.timeout(CALM_SECONDS + SETTLING_SECONDS)
def test_recovery_in_a_tight_loop_aborts_nothing_that_reports_success(
    bank: World, tmp_path: Path
) -> None:
    storm = Storm(bank, tmp_path, SEED)

    told = storm.rage(CALM_SECONDS, with_faults=False)

    reports = Counter(each.report for each in told)
    print(dict(reports))
    finish_all(bank)
    judge(bank, told)
    assert reports[COMMITTED] > 0
    assert reports[UNKNOWN] == reports[OPEN] == 0


def finish_all(bank: World) -> None:
    """Let recovery finish what the storm has left; it needs nobody's help."""
    bank.wait_for_idle()
    with cluster_of(bank.direct) as cluster:
        eventually(lambda: cluster.recover().is_clean, "the end of all doubts")


def judge(bank: World, told: list[Told]) -> None:
    """Everything is so on all shards as the clients were told."""
    entries = {
        name: bank.ask(name, "SELECT number, version, transaction FROM entry") for name in SHARDS
    }
    chains: dict[Pot, dict[int, UUID]] = defaultdict(dict)
    done: dict[UUID, set[Pot]] = defaultdict(set)
    for name, rows in entries.items():
        for number, version, transaction in rows:
            chains[name, number][version] = transaction
            done[transaction].add((name, number))

    assert bank.prepared() == {}
    check_pots(bank, chains)
    with cluster_of(bank.direct) as cluster:
        for each in told:
            check_report(cluster, each, done.get(each.transaction, set()))
    check_order(chains)


def check_pots(bank: World, chains: Mapping[Pot, Mapping[int, UUID]]) -> None:
    """No money came or went, all counters are equal, and no change was lost or doubled."""
    pots = {
        (name, number): (money, version)
        for name in SHARDS
        for number, money, version in bank.ask(name, "SELECT number, money, version FROM pot")
    }
    money = sum(money for (_, number), (money, _) in pots.items() if number > 0)
    counters = {money for (_, number), (money, _) in pots.items() if number == 0}

    assert money == MONEY * POTS * len(SHARDS)
    assert len(counters) == 1
    for pot, (_, version) in pots.items():
        assert sorted(chains.get(pot, {})) == list(range(1, version + 1))


def check_report(cluster: Cluster, told: Told, done: set[Pot]) -> None:
    """It is wholly there or not at all, as its client was told."""
    assert done in (set(), set(told.pots)), f"half a transaction: {told}, but {done}"
    if told.report == COMMITTED:
        assert done, f"reported as committed, and not there: {told}"
    if told.report == ABORTED:
        assert not done, f"reported as aborted, and there: {told}"
    if told.report == UNKNOWN:
        assert cluster.outcome(told.gid or "") == (COMMITTED if done else ABORTED)


def check_order(chains: Mapping[Pot, Mapping[int, UUID]]) -> None:
    """Transactions that met on several shards have the same order on all of them.

    :raises graphlib.CycleError: one came before another here, and after it there.
    """
    order: TopologicalSorter[UUID] = TopologicalSorter()
    for chain in chains.values():
        for version, transaction in chain.items():
            if version > 1:
                order.add(transaction, chain[version - 1])
    order.prepare()
