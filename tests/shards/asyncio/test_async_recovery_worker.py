"""The task that recovers from time to time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.util import await_only

from sqlalchemy_shards import AsyncCluster, AsyncRecoveryWorker, RecoveryWorker, create_cluster
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.events import RecoveryFailed, RecoveryRun, TransactionRecovered
from sqlalchemy_shards.transactions import fail_points
from tests.shards.asyncio.opened import opened, run, until
from tests.shards.distributed import Shards
from tests.shards.test_recovery_at_scale import leave_prepared

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 0.05


@pytest.fixture
def shards(clean_shards: dict[str, str]) -> Iterator[Shards]:
    with Shards(clean_shards) as shards:
        shards.create()
        shards.everywhere("CREATE SEQUENCE ids START 100")
        yield shards


def runs_of(cluster: AsyncCluster) -> list[RecoveryRun]:
    runs: list[RecoveryRun] = []
    cluster.hooks.listen(RecoveryRun, runs.append)
    return runs


def test_it_finishes_what_a_crash_left(clean_shards: dict[str, str], shards: Shards) -> None:
    told: list[TransactionRecovered] = []
    [gid] = leave_prepared(shards, 1, committed=True)

    async def scenario() -> None:
        async with opened(clean_shards) as cluster:
            cluster.hooks.listen(TransactionRecovered, told.append)
            async with AsyncRecoveryWorker(cluster, every=SOON, older_than=0) as worker:
                await until(lambda: len(told) == 2, "both parts are finished")
                await until(lambda: worker.gauges.recovered == 2, "it is told")

    run(scenario())

    assert {(event.gid, event.outcome) for event in told} == {(gid, "committed")}
    assert shards.prepared() == {}


def test_stop_ends_it_and_start_begins_it_again(clean_shards: dict[str, str]) -> None:
    async def scenario() -> None:
        async with opened(clean_shards) as cluster:
            await cluster.bootstrap()
            runs = runs_of(cluster)
            worker = AsyncRecoveryWorker(cluster, every=SOON).start()
            assert worker.start() is worker
            await until(lambda: runs, "a run")
            await worker.stop()
            after_stop, was_running = len(runs), worker.is_running
            await worker.stop()

            worker.start()
            await until(lambda: len(runs) > after_stop, "a run after the second start")
            await worker.stop()

            assert not was_running
            assert not worker.is_running
            assert len(asyncio.all_tasks()) <= 2  # of this test, and of its limit

    run(scenario())


def test_disposing_of_the_cluster_stops_it(clean_shards: dict[str, str]) -> None:
    async def scenario() -> None:
        async with opened(clean_shards) as cluster:
            worker = AsyncRecoveryWorker(cluster, every=3600).start()

            await cluster.dispose()

            assert not worker.is_running
            with pytest.raises(ConfigurationError, match="disposed"):
                worker.start()

    run(scenario())


def test_it_ends_with_its_loop_and_is_started_in_the_next(clean_shards: dict[str, str]) -> None:
    workers: list[AsyncRecoveryWorker] = []

    async def begin() -> None:
        async with opened(clean_shards) as cluster:
            await cluster.bootstrap()
            workers.append(AsyncRecoveryWorker(cluster, every=3600).start())
            cluster.workers.clear()  # as if nobody had disposed of the cluster

    run(begin())

    assert not workers[0].is_running


def test_a_listener_may_stop_it(clean_shards: dict[str, str]) -> None:
    async def scenario() -> None:
        async with opened(clean_shards) as cluster:
            await cluster.bootstrap()
            worker = AsyncRecoveryWorker(cluster, every=SOON)
            cluster.hooks.listen(RecoveryRun, lambda event: await_only(worker.stop()))

            worker.start()

            await until(lambda: not worker.is_running, "its end")

    run(scenario())


def test_it_survives_errors_and_tells_of_them(clean_shards: dict[str, str]) -> None:
    failures: list[RecoveryFailed] = []

    async def scenario() -> None:
        async with opened(clean_shards) as cluster:
            await cluster.bootstrap()
            runs = runs_of(cluster)
            cluster.hooks.listen(RecoveryFailed, failures.append)

            def fail_once(_: str) -> None:
                cluster.hooks.fail_points = None
                raise ValueError("a mistake of ours")

            cluster.hooks.fail_points = {fail_points.BEFORE_CLEAN_UP: fail_once}
            async with AsyncRecoveryWorker(cluster, every=SOON):
                await until(lambda: runs, "a run after the failure")

    run(scenario())

    assert [event.error for event in failures] == ["ValueError: a mistake of ours"]


def test_a_run_that_hangs_is_cancelled_when_the_time_to_stop_is_over(
    clean_shards: dict[str, str], shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlalchemy_shards.cluster.recovery.async_worker.STOP_SECONDS", 0.2)
    leave_prepared(shards, 1, committed=True)

    async def scenario() -> float:
        async with opened(clean_shards) as cluster:
            hanging = asyncio.Event()

            def hang(_: str) -> None:
                hanging.set()
                await_only(asyncio.sleep(300))

            cluster.hooks.fail_points = {fail_points.BEFORE_CLEAN_UP: hang}
            worker = AsyncRecoveryWorker(cluster, every=SOON, older_than=0).start()
            await hanging.wait()
            before = asyncio.get_running_loop().time()
            await worker.stop()
            assert not worker.is_running
            return asyncio.get_running_loop().time() - before

    assert run(scenario()) < 20


def test_each_worker_is_for_its_own_kind_of_cluster(clean_shards: dict[str, str]) -> None:
    ordinary = create_cluster(clean_shards, name="shop")

    async def scenario() -> None:
        async with opened(clean_shards) as cluster:
            for given in (cluster, cluster.sync_cluster):
                with pytest.raises(ConfigurationError, match="AsyncRecoveryWorker"):
                    RecoveryWorker(given)  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError, match="or use RecoveryWorker"):
                AsyncRecoveryWorker(ordinary)  # type: ignore[arg-type]

    run(scenario())
    ordinary.dispose()


def test_it_is_started_where_an_event_loop_runs(clean_shards: dict[str, str]) -> None:
    async def scenario() -> AsyncRecoveryWorker:
        async with opened(clean_shards) as cluster:
            worker = AsyncRecoveryWorker(cluster)
            with pytest.raises(ConfigurationError, match="no event loop of asyncio runs"):
                await asyncio.to_thread(worker.start)
            return worker

    assert not run(scenario()).is_running


@pytest.mark.parametrize("wrong", [{"every": 0}, {"every": "1m"}, {"older_than": -1}], ids=str)
def test_what_is_no_time_is_told(clean_shards: dict[str, str], wrong: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with opened(clean_shards) as cluster:
            with pytest.raises(ConfigurationError, match=next(iter(wrong))):
                AsyncRecoveryWorker(cluster, **wrong)

    run(scenario())
