"""``shards migrate upgrade`` and the like: what they print, and how they are stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from alembic import command

from sqlalchemy_shards import Cluster
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.migrations import upgrade
from sqlalchemy_shards.migrations.status import status_of
from tests.databases import ask, connect
from tests.migrations.runs import WAITING, all_heads, heads, options_of, things
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.migrations.project import Project

pytestmark = pytest.mark.slow

COMMAND = ("sqlalchemy_shards", "migrate")
WORKERS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture
def two(project: Project) -> Project:
    """A project of two revisions."""
    project.revise("r1", None, things("first"), 'op.drop_table("first")')
    project.revise("r2", "r1", things("second"), 'op.drop_table("second")')
    return project


class TestWhatIsPrinted:
    def test_a_line_for_each_shard_and_what_it_came_to(self, two: Project) -> None:
        ended = two.run(*COMMAND, "upgrade", "--parallel", "1")

        lines = ended.stdout.splitlines()
        assert ended.returncode == 0, ended.stderr
        assert lines[0] == "Upgrading app to heads: 4 shards"
        assert lines[1].startswith("✓ s0: base → r2 (2 revisions) in ")
        assert lines[6] == "✓  4 migrated  base → r2 (2 revisions): s0, s1, s2, s3"
        assert lines[8].startswith("All 4 shards are at heads, after ")

    def test_after_a_failure_what_to_do_and_how_to_go_on(self, two: Project) -> None:
        ask(two.urls["s1"], "CREATE TABLE trap ()")

        ended = two.run(*COMMAND, "upgrade", "r2", "--canary", "s1", "--parallel", "1")

        assert ended.returncode == 1
        assert "✗  1 failed     s1, at base: division by zero (in revision r1)" in ended.stdout
        assert "·  3 not begun  s0, s2, s3" in ended.stdout
        assert "0 of 4 shards are at r2" in ended.stdout
        assert ended.stdout.endswith(
            "→ mend what failed, and go on with:\n"
            "  shards migrate upgrade r2 --canary s1 --parallel 1\n"
        )

    def test_json_alone_on_standard_output(self, two: Project) -> None:
        ended = two.run(*COMMAND, "stamp", "r1", "--shard", "s2", "--json")

        told = json.loads(ended.stdout)
        assert (told["command"], told["complete"], len(told["shards"])) == ("stamp", True, 1)
        assert told["shards"][0]["after"] == ["r1"]

    def test_sql_is_printed_by_alembic_and_nothing_is_run(self, project: Project) -> None:
        project.revise("r1", None, 'op.execute("SELECT 1")')

        ended = project.run(*COMMAND, "upgrade", "--sql", "--shard", "s1")

        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("CREATE TABLE alembic_version") == 1
        assert all_heads(project) == [None] * 4


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("arguments", "said", "code"),
        [
            (["downgrade", "-1"], "the target '-1' leads nowhere from base", 2),
            (["upgrade", "nope"], "the target 'nope' leads nowhere: no script has it", 2),
            (["upgrade", "nope", "--atomic"], "the target 'nope' leads nowhere", 2),
            (["upgrade", "nope", "--sql"], "the target 'nope' leads nowhere", 2),
            (["upgrade", "--shard", "s9"], "there is no shard 's9'", 2),
            (["upgrade", "--shard", "s9", "--sql"], "there is no shard 's9'", 2),
            (["upgrade", "--canary", "s9"], "there is no shard 's9'", 2),
            (["upgrade", "--shard", "s1", "--canary", "s2"], "the canary 's2' is not among", 2),
            (["upgrade", "-x", "shard=s9"], "a run takes --shard instead", 2),
            (["upgrade", "-x", "shard=s9", "--sql"], "there is no shard 's9'", 2),
            (["upgrade", "--pause", "5s"], "--pause is for after --canary", 2),
            (["upgrade", "-c", "nowhere.ini"], "there is no nowhere.ini", 1),
        ],
        ids=lambda each: " ".join(each) if isinstance(each, list) else "",
    )
    def test_before_anything_begins(
        self, two: Project, arguments: list[str], said: str, code: int
    ) -> None:
        ended = two.shards("migrate", *arguments)

        assert (ended.exit_code, said in ended.stderr) == (code, True), ended.stderr
        assert "no shard was touched" in ended.stderr or "leads nowhere" not in ended.stderr
        assert all_heads(two) == [None] * 4

    def test_a_revision_that_no_script_has_by_the_function_too(self, two: Project) -> None:
        path = list(sys.path)
        cluster = Cluster.from_file(two.config_file)

        with pytest.raises(ConfigurationError, match="'nope' leads nowhere"):
            upgrade(cluster, "nope", options_of(two))

        cluster.dispose()
        assert (sys.path, all_heads(two)) == (path, [None] * 4)

    def test_another_cluster_than_that_of_the_environment(self, two: Project) -> None:
        other = two.config_file.read_text().replace('name = "app"', 'name = "other"')
        (two.directory / "other.toml").write_text(other)

        ended = two.run("sqlalchemy_shards", "--config", "other.toml", "migrate", "upgrade")

        assert ended.returncode == 1
        assert "the cluster is 'other' in the configuration, and 'app' in env.py" in ended.stderr


class TestRelativeTargets:
    def test_they_are_settled_where_all_shards_are_alike(self, two: Project) -> None:
        up = two.shards("migrate", "upgrade", "+1", "--parallel", "1")
        further = two.shards("migrate", "upgrade", "+1", "--atomic")
        down = two.shards("migrate", "downgrade", "-1", "--shard", "s2", "--parallel", "1")

        assert (up.exit_code, further.exit_code, down.exit_code) == (0, 0, 0), up.stderr
        assert "Upgrading app to r1: 4 shards" in up.stdout
        assert "Downgrading app to r1: 1 shard" in down.stdout
        assert all_heads(two) == [["r2"], ["r2"], ["r1"], ["r2"]]

    def test_they_are_refused_where_two_differ_and_taken_for_those_that_do_not(
        self, two: Project
    ) -> None:
        command.upgrade(two.config(), "r1")
        ask(two.urls["s2"], "UPDATE alembic_version SET version_num = 'r2'")

        refused = two.shards("migrate", "upgrade", "+1")
        taken = two.shards("migrate", "stamp", "r2", "--shard", "s0", "--parallel", "1")

        assert refused.exit_code == 2
        assert "shard 's0' is at r1, shard 's2' at r2; no shard was changed" in refused.stderr
        assert (taken.exit_code, all_heads(two)) == (0, [["r2"], ["r1"], ["r2"], ["r1"]])

    def test_the_command_that_goes_on_names_the_revision(self, two: Project) -> None:
        ask(two.urls["s1"], "CREATE TABLE trap ()")

        ended = two.run(*COMMAND, "upgrade", "+1", "--parallel", "1")

        assert ended.returncode == 1
        assert ended.stdout.endswith("  shards migrate upgrade r1 --parallel 1\n")
        assert all_heads(two) == [["r1"], None, None, None]


class TestStopping:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
    def test_what_is_at_work_is_rolled_back(self, two: Project, how: signal.Signals) -> None:
        two.revise("r3", "r2", things("third", WAITING))

        with connect(two.urls["s0"]) as holder:
            holder.execute("SELECT pg_advisory_lock(4711)")
            with _begun(two, "upgrade", "--parallel", "1") as process:
                eventually(
                    lambda: ask(two.urls["s0"], WORKERS) == [(1,)], "a worker waits", seconds=60
                )
                process.send_signal(how)
                out, _ = process.communicate(timeout=60)

        assert process.returncode == 130
        assert "!  1 interrupted  s0, at base: interrupted (in revision r3)" in out
        assert "Interrupted: 0 of 4 shards are at heads" in out
        assert out.endswith("→ go on with:\n  shards migrate upgrade --parallel 1\n")
        (shard, *_) = status_of(two.config()).shards
        assert (shard.last_outcome, shard.was_killed) == ("interrupted", False)
        assert all_heads(two) == [None] * 4

    def test_a_killed_runner_leaves_a_worker_that_ends_after_its_shard(self, two: Project) -> None:
        two.revise("r3", "r2", things("third", WAITING))

        with connect(two.urls["s0"]) as holder:
            holder.execute("SELECT pg_advisory_lock(4711)")
            with _begun(two, "upgrade", "--parallel", "1", "--verbose") as process:
                worker = _pid_of_worker(process)
                eventually(
                    lambda: ask(two.urls["s0"], WORKERS) == [(1,)], "a worker waits", seconds=60
                )
                process.kill()
                process.wait()
                assert _is_alive(worker)

        eventually(lambda: not _is_alive(worker), "the worker ends", seconds=60)
        assert [heads(two.urls[shard]) for shard in ("s0", "s1")] == [["r3"], None]
        assert two.run(*COMMAND, "upgrade", "--parallel", "1").returncode == 0
        assert all_heads(two) == [["r3"]] * 4


@contextmanager
def _begun(project: Project, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *COMMAND, *arguments],
        cwd=project.directory,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _pid_of_worker(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if "working" in line:
            return int(line.split()[-1])
    raise AssertionError("no worker came to its shard")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
