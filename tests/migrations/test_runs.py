"""Runs over many shards: order, failures, and going on after them."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from sqlalchemy_shards import Cluster
from sqlalchemy_shards.errors import MigrationFailed
from sqlalchemy_shards.migrations import downgrade, stamp, upgrade
from sqlalchemy_shards.migrations.workers.messages import Began, Take
from sqlalchemy_shards.migrations.workers.runner import Output
from sqlalchemy_shards.testing.databases import ScratchDatabase
from tests.benchmarks.migrations import counted_connections
from tests.databases import ask, connect, own_urls
from tests.migrations.project import Project
from tests.migrations.runs import (
    WAITING,
    all_heads,
    heads,
    options_of,
    outcomes,
    things,
    upgraded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy_shards.migrations import MigrationReport
    from sqlalchemy_shards.testing.servers import PostgresServers

pytestmark = pytest.mark.slow

EIGHT = [f"s{number}" for number in range(8)]


@pytest.fixture(scope="module")
def _databases(servers: PostgresServers) -> Iterator[dict[str, ScratchDatabase]]:
    servers.start(0)
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(ScratchDatabase(servers.url(0), f"runs_{name}"))
            for name in EIGHT
        }
        servers.start(0)


@pytest.fixture
def eight(
    tmp_path: Path, servers: PostgresServers, _databases: dict[str, ScratchDatabase]
) -> Project:
    """A project of two revisions on eight empty shards, of which none has a trap yet."""
    servers.start(0)
    for database in _databases.values():
        database.empty()
    project = Project(tmp_path, {name: each.url for name, each in _databases.items()})
    project.write()
    project.revise("r1", None, things("first"), 'op.drop_table("first")')
    project.revise("r2", "r1", things("second"), 'op.drop_table("second")')
    return project


def trap(project: Project, shard: str) -> None:
    ask(project.urls[shard], "CREATE TABLE trap ()")


class TestAFailure:
    def test_it_stops_what_has_not_begun_and_the_next_run_goes_on(self, eight: Project) -> None:
        trap(eight, "s2")

        with pytest.raises(MigrationFailed, match="shard 's2': division by zero") as raised:
            upgraded(eight, parallel=1)

        report: MigrationReport = raised.value.report
        assert outcomes(report) == ["migrated"] * 2 + ["failed"] + ["not begun"] * 5
        assert (report.shards[2].error, report.shards[2].revision) == ("division by zero", "r1")
        assert all_heads(eight) == [["r2"]] * 2 + [None] * 6
        ask(eight.urls["s2"], "DROP TABLE trap")
        again = upgraded(eight, parallel=1)
        assert outcomes(again) == ["already there"] * 2 + ["migrated"] * 6
        assert all_heads(eight) == [["r2"]] * 8

    def test_it_can_be_passed_over(self, eight: Project) -> None:
        trap(eight, "s2")

        with pytest.raises(MigrationFailed, match="1 of 8 shards") as raised:
            upgraded(eight, parallel=2, on_failure="continue")

        assert outcomes(raised.value.report) == [
            "failed" if shard == "s2" else "migrated" for shard in EIGHT
        ]
        assert [heads(eight.urls[shard]) for shard in ("s1", "s2", "s7")] == [["r2"], None, ["r2"]]

    def test_of_the_canary_leaves_the_others_alone(self, eight: Project) -> None:
        trap(eight, "s5")

        with pytest.raises(MigrationFailed) as raised:
            upgraded(eight, canary="s5", on_failure="continue")

        assert outcomes(raised.value.report) == [
            "failed" if shard == "s5" else "not begun" for shard in EIGHT
        ]
        assert all_heads(eight) == [None] * 8

    def test_what_was_committed_of_a_shard_is_told(self, eight: Project) -> None:
        eight.write("None, transaction_per_migration=True")
        eight.revise("r3", "r2", 'op.execute("SELECT 1 / 0")')

        with pytest.raises(MigrationFailed) as raised:
            upgraded(eight, shards=["s0"])

        (shard,) = raised.value.report.shards
        assert (shard.before, shard.after, shard.applied) == ((), ("r2",), 2)
        assert (shard.revision, heads(eight.urls["s0"])) == ("r3", ["r2"])

    def test_a_dead_shard_does_not_keep_others_from_being_migrated(
        self, eight: Project, servers: PostgresServers
    ) -> None:
        urls = {"s0": servers.url(1), **{name: eight.urls[name] for name in ("s1", "s2")}}
        project = Project(eight.directory, urls)
        project.write()
        Cluster.from_file(project.config_file).bootstrap()
        servers.stop(1)

        with pytest.raises(MigrationFailed) as raised:
            upgraded(project, parallel=1, on_failure="continue")

        servers.start(1)
        ask(urls["s0"], "DROP SCHEMA shards CASCADE")
        assert outcomes(raised.value.report) == ["failed", "migrated", "migrated"]


class TestWhatRuns:
    def test_the_canary_is_migrated_before_any_other(self, eight: Project) -> None:
        taken: list[str] = []

        def observe(progress: Any) -> None:
            if isinstance(progress, Take):
                taken.append(progress.shard)

        report = upgraded(
            eight, observe, shards=["s0", "s1", "s4"], canary="s4", pause=lambda: True
        )

        assert (taken[0], sorted(taken)) == ("s4", ["s0", "s1", "s4"])
        assert report.is_complete

    def test_the_rest_is_left_alone_if_nobody_wants_to_go_on(self, eight: Project) -> None:
        with pytest.raises(MigrationFailed) as raised:
            upgraded(eight, shards=["s0", "s1"], canary="s1", pause=lambda: False)

        assert outcomes(raised.value.report) == ["not begun", "migrated"]

    def test_shards_are_downgraded_and_stamped_alike(self, eight: Project) -> None:
        cluster = Cluster.from_file(eight.config_file)
        options = options_of(eight, shards=["s0", "s1"], parallel=1)

        stamped = stamp(cluster, "r1", options=options)
        again = stamp(cluster, "r1", options=options)
        back = downgrade(cluster, "base", options_of(eight, shards=["s2"]))

        cluster.dispose()
        assert outcomes(stamped) == ["migrated"] * 2
        assert outcomes(again) == outcomes(back) * 2 == ["already there"] * 2
        assert all_heads(eight) == [["r1"]] * 2 + [None] * 6

    def test_a_downgrade_can_be_repeated(self, eight: Project) -> None:
        upgraded(eight, shards=["s0", "s1"], parallel=1)
        cluster = Cluster.from_file(eight.config_file)

        first = downgrade(cluster, "r1", options_of(eight, shards=["s0"]))
        both = downgrade(cluster, "r1", options_of(eight, shards=["s0", "s1"], parallel=1))

        cluster.dispose()
        assert (outcomes(first), outcomes(both)) == (["migrated"], ["already there", "migrated"])
        assert all_heads(eight)[:2] == [["r1"]] * 2


class TestAWorker:
    def test_that_is_killed_has_failed_and_another_takes_its_place(self, eight: Project) -> None:
        eight.revise("r3", "r2", things("third", WAITING), 'op.drop_table("third")')
        killed: list[int] = []

        def observe(progress: Any) -> None:
            if isinstance(progress, Output) and progress.shard == "s0" and not killed:
                killed.append(int(progress.line.split()[1]))
                os.kill(killed[0], signal.SIGKILL)

        with connect(eight.urls["s0"]) as holder:
            holder.execute("SELECT pg_advisory_lock(4711)")
            with pytest.raises(MigrationFailed, match="killed by signal 9") as raised:
                upgraded(eight, observe, shards=["s0", "s1"], parallel=1, on_failure="continue")

        assert outcomes(raised.value.report) == ["failed", "migrated"]
        assert [heads(eight.urls[shard]) for shard in ("s0", "s1")] == [None, ["r3"]]

    @pytest.mark.parametrize(
        ("env", "error"),
        [
            ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
            ("import os; os._exit(3)", "its worker ended with exit code 3"),
            ("", "env.py does not call run_migrations"),
        ],
        ids=["raises", "ends", "calls nothing"],
    )
    def test_whose_environment_does_not_load_has_begun_nothing(
        self, eight: Project, env: str, error: str
    ) -> None:
        eight.write(env=env)

        with pytest.raises(MigrationFailed) as raised:
            upgraded(eight, parallel=2, on_failure="continue")

        assert error in str(raised.value.report.error)
        assert outcomes(raised.value.report) == ["not begun"] * 8

    def test_of_another_cluster_is_given_no_shard(self, eight: Project) -> None:
        elsewhere = Project(
            eight.directory, {**eight.urls, "s1": eight.urls["s2"], "s2": eight.urls["s1"]}
        )
        cluster = Cluster.from_file(eight.config_file)
        elsewhere.write()

        with pytest.raises(MigrationFailed, match=r"shard 's1' is .* in env\.py") as raised:
            upgrade(cluster, "heads", options_of(eight, parallel=1))

        cluster.dispose()
        assert outcomes(raised.value.report) == ["not begun"] * 8

    def test_tells_what_its_shard_needs(self, eight: Project) -> None:
        told: list[Began] = []

        def observe(progress: Any) -> None:
            if isinstance(progress, Began):
                told.append(progress)

        upgraded(eight, observe, shards=["s0"])

        assert told == [Began("s0", (), ("r1", "r2"))]


class TestTwoRunners:
    def test_each_shard_is_migrated_once_and_both_find_it_done(self, eight: Project) -> None:
        shards = ["s0", "s1", "s2"]

        with ThreadPoolExecutor(2) as both:
            runs = [both.submit(upgraded, eight, shards=shards, parallel=1) for _ in range(2)]
            reports = [run.result() for run in runs]

        for one, other in zip(reports[0].shards, reports[1].shards, strict=True):
            assert {one.outcome.value, other.outcome.value} == {"migrated", "already there"}
        assert all_heads(eight)[:3] == [["r2"]] * 3


class TestManyShards:
    @pytest.mark.slow
    @pytest.mark.timeout(600)
    def test_connections_are_bounded_by_the_workers(
        self, tmp_path: Path, servers: PostgresServers
    ) -> None:
        names = [f"s{number}" for number in range(40)]
        with own_urls(servers, "many", names) as urls:
            project = Project(tmp_path, urls)
            project.write()
            project.revise("r1", None, things("first"))

            with counted_connections(list(urls.values())) as fresh:
                report = upgraded(project, parallel=4)
            project.revise("r2", "r1", things("second"))
            with counted_connections(list(urls.values())) as later:
                again = upgraded(project, parallel=4)

            assert outcomes(report) == outcomes(again) == ["migrated"] * 40
            # A worker has one, and the server may not have ended its last one yet. While it makes
            # the schema `shards` it has two, and asks four others at once.
            assert 1 <= max(later) <= 4 * 2
            assert 1 <= max(fresh) <= 4 * 6
