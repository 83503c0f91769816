"""What a run of all shards or none says of its end: to its caller, and in the ledger."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import psycopg
import pytest
from alembic import command
from sqlalchemy.exc import ProgrammingError

from sqlalchemy_shards import Cluster
from sqlalchemy_shards.errors import (
    MigrationBlocked,
)
from sqlalchemy_shards.migrations.atomic.run import AtomicRun
from sqlalchemy_shards.migrations.turns.bounds import Bounds
from sqlalchemy_shards.migrations.turns.lock import try_lock
from sqlalchemy_shards.migrations.turns.run import RUN_KEY
from sqlalchemy_shards.migrations.turns.turn import TurnOptions
from tests.databases import ask, libpq_url
from tests.migrations.atomic import (
    CREATE,
    DROP,
    ENV_OF_A_CLUSTER,
    HAS_LEDGER,
    HAS_VERSIONS,
    LEDGER,
    PREPARED,
    REVISIONS,
    SHARDS,
    upgrade,
)

if TYPE_CHECKING:
    from tests.migrations.project import Project


class TestTheCommand:
    COMMAND = ("sqlalchemy_shards", "migrate", "upgrade", "--atomic")

    def test_it_says_that_all_were_migrated(self, ready: Project) -> None:
        ready.revise("r1", None, CREATE, DROP)

        ended = ready.run(*self.COMMAND)
        again = ready.run(*self.COMMAND)

        assert (ended.returncode, again.returncode) == (0, 0), ended.stderr
        assert ended.stdout == "All 4 shards were migrated together.\n"
        assert again.stdout == "Every shard is there already.\n"
        assert [ask(url, REVISIONS) for url in ready.urls.values()] == [[("r1",)]] * 4

    def test_it_says_that_nothing_was_and_how_to_go_on(self, ready: Project) -> None:
        ask(ready.urls["s2"], "CREATE TABLE things ()")
        ready.revise("r1", None, CREATE, DROP)

        ended = ready.run(*self.COMMAND, "r1")

        assert ended.returncode == 1
        assert ended.stdout.splitlines() == [
            '✗ relation "things" already exists',
            "Nothing was migrated: revision 'r1' failed on shard 's2', and every shard is where it"
            " was.",
            "→ mend what failed, and go on with:",
            "  shards migrate upgrade --atomic r1",
        ]

    def test_it_says_who_has_the_lock_and_how_to_go_on(self, ready: Project) -> None:
        for url in ready.urls.values():
            ask(url, "CREATE TABLE busy (id int)")
        ready.revise("r1", None, 'op.execute("ALTER TABLE busy ADD COLUMN x int")')
        options = ("--lock-timeout", "100ms", "--lock-tries", "2")

        with psycopg.connect(libpq_url(ready.urls["s2"]), application_name="report") as other:
            other.execute("SELECT * FROM busy")
            holder = f"process {other.info.backend_pid} (report) for "
            ended = ready.run(*self.COMMAND, *options)

        assert ended.returncode == 1
        said = " ".join(ended.stdout.split())
        assert "✗ shard 's2' could not be migrated: a lock was not to be had in revision " in said
        assert holder in said
        assert "with locks on busy" in said
        assert said.endswith(f"shards migrate upgrade --atomic {' '.join(options)}")
        assert "s2: LockNotAvailable: canceling statement due to lock timeout; all" in ended.stderr
        assert "Traceback" not in ended.stderr
        for url in ready.urls.values():
            assert ask(url, HAS_VERSIONS) == [(False,)]
            assert ask(url, PREPARED) == [(0,)]

    def test_it_names_a_prepared_transaction_that_has_the_lock(self, ready: Project) -> None:
        ask(ready.urls["s2"], "CREATE TABLE busy (id int)")
        ready.revise("r1", None, 'op.execute("ALTER TABLE busy ADD COLUMN x int")')
        bounds = Bounds(lock_timeout=0.1, lock_tries=1)
        with psycopg.connect(libpq_url(ready.urls["s2"])) as other:
            other.tpc_begin(other.xid(7, "left", "behind"))
            other.execute("INSERT INTO busy VALUES (1)")
            other.tpc_prepare()

            with pytest.raises(MigrationBlocked) as caught:
                upgrade(ready, run=AtomicRun(["s2"], TurnOptions(bounds=bounds)))

            other.tpc_rollback()
        assert re.search(r"'7_\S+' \(prepared\) for .* with locks on busy", str(caught.value))

    def test_it_prints_json(self, standing: Project) -> None:
        standing.revise("r1", None, 'op.execute("VACUUM")')

        ended = standing.run(*self.COMMAND, "--json")

        told = json.loads(ended.stdout)
        assert ended.returncode == 1
        assert (told["outcome"], told["shard"], told["revision"]) == (
            "nothing migrated",
            "s0",
            "r1",
        )
        assert "PostgreSQL does not run this in a transaction" in told["error"]

    def test_options_that_mean_nothing_are_refused(self, standing: Project) -> None:
        ended = standing.run(*self.COMMAND, "--canary", "s0", "--on-failure", "continue")

        assert ended.returncode == 2
        assert "--canary, --on-failure continue means nothing with --atomic" in " ".join(
            ended.stderr.replace("│", " ").split()
        )


class TestWritingDown:
    """The ledger and the lock of migrations."""

    def test_all_are_done_in_one_run(self, ready: Project) -> None:
        ready.revise("r1", None, CREATE, DROP)

        upgrade(ready)

        found = [ask(url, LEDGER) for url in ready.urls.values()]
        assert found == [[("done", ["r1"], None)]] * 4
        runs = {ask(url, "SELECT run FROM shards.migrations")[0] for url in ready.urls.values()}
        assert len(runs) == 1

    def test_what_failed_is_told_on_each_shard_that_had_its_turn(self, ready: Project) -> None:
        ask(ready.urls["s1"], "CREATE TABLE things ()")
        ready.revise("r1", None, CREATE, DROP)

        with pytest.raises(ProgrammingError):
            upgrade(ready)

        [[(failed, _, why)], [(failed_too, _, why_too)], *rest] = [
            ask(url, LEDGER) for url in ready.urls.values() if ask(url, HAS_LEDGER) == [(True,)]
        ]
        assert (failed, failed_too) == ("failed", "failed")
        assert why.startswith("rolled back with all others, because of shard s1: Duplicate")
        assert why_too.startswith("DuplicateTable: relation")
        assert rest == [[], []]

    def test_a_shard_that_was_there_is_told_of_no_more_than_before(self, ready: Project) -> None:
        ready.revise("r1", None, CREATE, DROP)
        upgrade(ready)

        upgrade(ready)

        found = [ask(url, LEDGER) for url in ready.urls.values()]
        assert found == [[("done", ["r1"], None)]] * 4

    def test_two_runs_at_once_go_one_after_the_other(self, ready: Project) -> None:
        ready.revise("r1", None, CREATE, DROP)
        options = TurnOptions(bounds=Bounds(runner_timeout=0.1))

        with psycopg.connect(libpq_url(ready.urls["s2"])) as other:
            assert try_lock(other)
            with pytest.raises(MigrationBlocked, match="shard 's2' is being migrated by"):
                upgrade(ready, run=AtomicRun(SHARDS, options))

        upgrade(ready)
        assert [ask(url, REVISIONS) for url in ready.urls.values()] == [[("r1",)]] * 4

    def test_no_lock_is_left(self, ready: Project) -> None:
        ready.write(env=ENV_OF_A_CLUSTER)
        ready.revise("r1", None, CREATE, DROP)
        cluster = Cluster.from_file(ready.config_file)
        config = ready.config()
        config.attributes.update({"cluster": cluster, RUN_KEY: AtomicRun(SHARDS)})

        command.upgrade(config, "head")

        with psycopg.connect(libpq_url(ready.urls["s0"])) as other:
            is_free = try_lock(other)
        cluster.dispose()
        assert is_free

    def test_a_run_that_is_not_finished_keeps_others_away(self, ready: Project) -> None:
        ready.revise("r1", None, CREATE, DROP)
        ready.revise("r2", "r1")
        upgrade(ready, target="r1")
        url = ready.urls["s1"]
        with psycopg.connect(libpq_url(url)) as other:
            other.execute("UPDATE shards.migrations SET outcome = 'running'")
            other.commit()
            other.execute("UPDATE shards.migrations SET outcome = 'done'")
            other.execute("PREPARE TRANSACTION 'left'")

        options = TurnOptions(bounds=Bounds(lock_timeout=0.1))
        with pytest.raises(MigrationBlocked, match="is not finished on shard 's1'"):
            upgrade(ready, run=AtomicRun(SHARDS, options))

        ask(url, "ROLLBACK PREPARED 'left'")
