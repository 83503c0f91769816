"""The thread that recovers from time to time."""

from __future__ import annotations

import logging
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sqlalchemy_shards import Cluster, RecoveryWorker, TransactionGauges, create_cluster
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.events import RecoveryFailed, RecoveryRun, TransactionRecovered
from sqlalchemy_shards.transactions import fail_points
from tests.shards.test_recovery_at_scale import leave_prepared
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers

from tests.shards.distributed import Shards

pytestmark = pytest.mark.sync_only("a thread; of the task are the tests of `asyncio`")

SOON = timedelta(milliseconds=50)


@pytest.fixture
def shards(clean_shards: dict[str, str]) -> Iterator[Shards]:
    with Shards(clean_shards) as shards:
        shards.create()
        shards.everywhere("CREATE SEQUENCE ids START 100")
        yield shards


@pytest.fixture
def cluster(clean_shards: dict[str, str], shards: Shards) -> Iterator[Cluster]:
    cluster = create_cluster(clean_shards, name="shop")
    yield cluster
    cluster.dispose()


def runs_of(cluster: Cluster) -> list[RecoveryRun]:
    runs: list[RecoveryRun] = []
    cluster.hooks.listen(RecoveryRun, runs.append)
    return runs


class TestRunning:
    def test_it_finishes_what_a_crash_left(self, shards: Shards, cluster: Cluster) -> None:
        told: list[TransactionRecovered] = []
        cluster.hooks.listen(TransactionRecovered, told.append)
        [gid] = leave_prepared(shards, 1, committed=True)

        with RecoveryWorker(cluster, every=SOON, older_than=0):
            eventually(lambda: len(told) == 2, "both parts are finished")

        assert {(event.gid, event.outcome) for event in told} == {(gid, "committed")}
        assert shards.prepared() == {}

    def test_it_leaves_the_young_alone(self, shards: Shards, cluster: Cluster) -> None:
        leave_prepared(shards, 1, committed=True)
        runs = runs_of(cluster)

        with RecoveryWorker(cluster, every=SOON) as worker:
            eventually(lambda: len(runs) >= 2, "two runs")
            gauges = worker.gauges

        assert set(shards.prepared()) == {"s1", "s2"}
        assert gauges.in_doubt == 1
        assert gauges.oldest_seconds["s1"] > 0.0
        assert gauges.oldest_seconds["s0"] == 0.0

    def test_stop_ends_it_and_start_begins_it_again(self, cluster: Cluster) -> None:
        runs = runs_of(cluster)
        worker = RecoveryWorker(cluster, every=SOON).start()
        eventually(lambda: runs, "a run")
        worker.stop()
        after_stop, was_running = len(runs), worker.is_running
        worker.stop()

        worker.start()
        eventually(lambda: len(runs) > after_stop, "a run after the second start")
        worker.stop()

        assert not was_running
        assert not worker.is_running

    def test_starting_twice_starts_one_thread(self, cluster: Cluster) -> None:
        with RecoveryWorker(cluster, every=3600) as worker:
            worker.start()
            threads = [t for t in threading.enumerate() if t.name == "shards-recovery-shop"]

        assert len(threads) == 1
        assert threads[0].daemon

    def test_disposing_of_the_cluster_stops_it(self, cluster: Cluster) -> None:
        worker = RecoveryWorker(cluster, every=3600).start()

        cluster.dispose()

        assert not worker.is_running
        with pytest.raises(ConfigurationError, match="disposed"):
            worker.start()

    def test_a_listener_may_stop_it(self, cluster: Cluster) -> None:
        worker = RecoveryWorker(cluster, every=SOON)
        cluster.hooks.listen(RecoveryRun, lambda event: worker.stop())

        worker.start()

        eventually(lambda: not worker.is_running, "its end")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child_has_none_until_it_starts_one(self, cluster: Cluster) -> None:
        runs = runs_of(cluster)
        with RecoveryWorker(cluster, every=SOON) as worker:
            eventually(lambda: runs, "a run in the parent")
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    was_running = worker.is_running
                    before = len(runs)
                    worker.start()
                    eventually(lambda: len(runs) > before, "a run in the child")
                    status = 2 if was_running else 0
                finally:
                    os._exit(status)
            _, status = os.waitpid(child, 0)
            still_running = worker.is_running

        assert os.waitstatus_to_exitcode(status) == 0
        assert still_running


class TestFailing:
    def test_it_survives_errors_and_tells_of_them(
        self, cluster: Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        failures: list[RecoveryFailed] = []
        runs = runs_of(cluster)
        cluster.hooks.listen(RecoveryFailed, failures.append)

        def fail_once(_: str) -> None:
            cluster.hooks.fail_points = None
            raise ValueError("a mistake of ours")

        cluster.hooks.fail_points = {fail_points.BEFORE_CLEAN_UP: fail_once}
        with caplog.at_level(logging.ERROR), RecoveryWorker(cluster, every=SOON):
            eventually(lambda: runs, "a run after the failure")

        assert [event.error for event in failures] == ["ValueError: a mistake of ours"]
        assert "the recovery of the cluster 'shop' failed" in caplog.text

    def test_it_goes_on_while_a_shard_is_down_and_logs_it_once(
        self,
        shards: Shards,
        cluster: Cluster,
        servers: PostgresServers,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        leave_prepared(shards, 1, committed=True)
        runs = runs_of(cluster)
        servers.stop(1)

        with caplog.at_level(logging.INFO), RecoveryWorker(cluster, every=SOON, older_than=0):
            eventually(lambda: len(runs) >= 3, "three runs without s1")
            down = cluster.transaction_gauges()
            servers.start(1)
            eventually(lambda: cluster.transaction_gauges().recovered == 2, "s1 is done, too")

        assert down.unreachable == ("s1",)
        assert "s1" not in down.oldest_seconds
        warned = [r for r in caplog.records if "does not answer" in r.getMessage()]
        assert len({r.getMessage() for r in warned}) == len(warned)
        assert shards.prepared() == {}


class TestGauges:
    def test_they_are_empty_before_the_first_run(self, cluster: Cluster) -> None:
        assert cluster.transaction_gauges() == TransactionGauges()

    def test_they_add_up_what_was_done(self, shards: Shards, cluster: Cluster) -> None:
        leave_prepared(shards, 2, committed=True)
        cluster.recover()
        leave_prepared(shards, 1, committed=False)
        cluster.recover()

        gauges = cluster.transaction_gauges()

        assert (gauges.recovered, gauges.runs, gauges.in_doubt, gauges.failed) == (6, 2, 0, 0)
        assert gauges.at is not None
        assert gauges.oldest_seconds == {"s0": 0.0, "s1": 0.0, "s2": 0.0, "s3": 0.0}

    def test_one_transaction_can_be_finished_alone(self, shards: Shards, cluster: Cluster) -> None:
        first, second = leave_prepared(shards, 2, committed=True)

        report = cluster.recover(gid=first)

        assert {part.gid for part in report.finished} == {first}
        assert [one.gid for one in cluster.in_doubt()] == [second]
        assert cluster.transaction_gauges().runs == 0


@pytest.mark.parametrize(
    "wrong",
    [{"every": 0}, {"every": "1m"}, {"every": True}, {"older_than": timedelta(seconds=-1)}],
    ids=str,
)
def test_what_is_no_time_is_told(cluster: Cluster, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RecoveryWorker(cluster, **wrong)


def test_a_loaded_cluster_commits_beside_it(shards: Shards, cluster: Cluster) -> None:
    runs = runs_of(cluster)
    with RecoveryWorker(cluster, every=0.01):
        for _ in range(30):
            shards.commit(shards.deposit("s0", "s1"))
            if len(runs) > 3:
                break
        eventually(lambda: len(runs) > 3, "some runs")

    amounts = shards.amounts()
    assert amounts["s0"] == amounts["s1"] > 100
    assert shards.prepared() == {}
    assert all(run.failed == 0 and run.unreachable == () for run in runs)
