"""How long a shard's turn waits, and what is tried again."""

from __future__ import annotations

import threading
from argparse import Namespace
from typing import TYPE_CHECKING

import pytest
from alembic import command
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from sqlalchemy_shards.errors import MigrationBlocked, MigrationFailed
from sqlalchemy_shards.migrations import Bounds
from sqlalchemy_shards.migrations.status import status_of
from sqlalchemy_shards.migrations.workers.messages import Waiting
from tests.databases import ask, connect
from tests.migrations.runs import outcomes, upgraded
from tests.migrations.turns import (
    ADD,
    BOUNDS,
    CREATE,
    LEDGER,
    REVISIONS,
    WAITS,
    give_bounds,
    holding,
    wait_until,
)

if TYPE_CHECKING:
    from alembic.config import Config

    from tests.migrations.project import Project

RUN = "SELECT run FROM shards.migrations ORDER BY id DESC LIMIT 1"
SLEEP = 'op.execute("SELECT pg_sleep(60)")'
TIMEOUTS = "[timeouts]\nlock_timeout = 7\nstatement_timeout = 3\n"
TELL_SETTINGS = (
    'op.execute("CREATE TABLE told AS SELECT '
    "current_setting('lock_timeout'), current_setting('statement_timeout') AS s\")"
)
INDEX = (
    "with op.get_context().autocommit_block():\n"
    '    op.execute("CREATE INDEX CONCURRENTLY things_id ON things (id)")'
)
TELL_WAIT = """
CREATE FUNCTION tell_wait() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_query() LIKE '%CONCURRENTLY%' THEN
        RAISE EXCEPTION 'it waits % for a lock', current_setting('lock_timeout');
    END IF;
END $$;
CREATE EVENT TRIGGER tell_wait ON ddl_command_start WHEN TAG IN ('CREATE INDEX')
    EXECUTE FUNCTION tell_wait()
"""
FULL_DISK = """
CREATE FUNCTION full_disk() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
END $$;
CREATE EVENT TRIGGER full_disk ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
    EXECUTE FUNCTION full_disk()
"""


class TestLocks:
    def test_a_migration_is_tried_again_until_the_lock_is_free(
        self, things: Project, caplog: pytest.LogCaptureFixture
    ) -> None:
        things.revise("r2", "r1", ADD)
        with holding(things.urls["s2"], "SELECT FROM things") as reader:
            config = patient(things, "lock_tries=1000")
            runner = threading.Thread(target=command.upgrade, args=(config, "head"))
            runner.start()
            wait_until(lambda: "tried again" in caplog.text)
            reader.execute("COMMIT")
            runner.join(60)

        assert {ask(url, REVISIONS)[0] for url in things.urls.values()} == {("r2",)}
        assert ask(things.urls["s2"], LEDGER)[-1][2:5] == ("done", ["r1"], ["r2"])
        assert "failed on shard" not in caplog.text

    def test_in_the_end_it_gives_up_and_tells_who_was_in_the_way(self, things: Project) -> None:
        things.revise("r2", "r1", ADD)
        with (
            holding(things.urls["s2"], "SET LOCAL application_name = 'sleepy'; TABLE things"),
            pytest.raises(MigrationBlocked, match="tried 3 times") as caught,
        ):
            command.upgrade(things.config(), "head")

        assert (caught.value.shard, caught.value.is_retryable) == ("s2", True)
        assert "(sleepy) for " in str(caught.value)
        assert ask(things.urls["s1"], REVISIONS) == [("r2",)]
        assert ask(things.urls["s2"], LEDGER)[-1][2:5] == ("failed", ["r1"], ["r1"])

    def test_the_same_command_goes_on_after_it(self, things: Project) -> None:
        things.revise("r2", "r1", ADD)
        with (
            holding(things.urls["s2"], "SELECT FROM things"),
            pytest.raises(MigrationBlocked),
        ):
            command.upgrade(things.config(), "head")

        command.upgrade(things.config(), "head")

        assert status_of(things.config()).is_at_head

    def test_a_query_waits_no_longer_than_the_lock_timeout_behind_it(self, things: Project) -> None:
        config = patient(things, "lock_timeout=500ms")
        things.revise("r2", "r1", ADD)
        with holding(things.urls["s0"], "SELECT FROM things") as reader:
            runner = threading.Thread(target=ignoring_blocked, args=(config,))
            runner.start()
            with connect(things.urls["s0"]) as other:
                other.execute("SET statement_timeout = '30s'")
                wait_until(lambda: other.execute(WAITS).fetchone() == (True,))
                other.execute("SELECT FROM things")
            runner.join(60)
            reader.execute("COMMIT")

        assert not runner.is_alive()

    def test_what_was_committed_for_each_migration_stays(self, things: Project) -> None:
        give_bounds(things, "transaction_per_migration=True")
        things.revise("r2", "r1", 'op.create_table("more", sa.Column("id", sa.Integer))')
        things.revise("r3", "r2", ADD)
        with (
            holding(things.urls["s0"], "SELECT FROM things"),
            pytest.raises(MigrationBlocked),
        ):
            command.upgrade(things.config(), "head")

        assert ask(things.urls["s0"], REVISIONS) == [("r2",)]
        assert ask(things.urls["s0"], LEDGER)[-1][2:5] == ("failed", ["r1"], ["r2"])

    def test_a_revision_that_committed_a_part_of_itself_is_not_run_again(
        self, things: Project, caplog: pytest.LogCaptureFixture
    ) -> None:
        things.revise(
            "r2",
            "r1",
            'op.create_table("more", sa.Column("id", sa.Integer))\n'
            "with op.get_context().autocommit_block():\n"
            '    op.execute("CREATE INDEX CONCURRENTLY more_id ON more (id)")\n'
            f"{ADD}",
        )
        with (
            holding(things.urls["s0"], "SELECT FROM things"),
            pytest.raises(OperationalError, match="lock timeout"),
        ):
            command.upgrade(things.config(), "head")

        assert "not run again by itself" in caplog.text
        assert ask(things.urls["s0"], "SELECT to_regclass('more_id')::text") == [("more_id",)]

    @pytest.mark.parametrize("end", ["op.get_bind().commit()", 'op.execute("COMMIT")'])
    def test_neither_is_one_that_has_ended_its_transaction_by_itself(
        self, things: Project, end: str
    ) -> None:
        things.revise("r2", "r1", f'op.execute("CREATE TABLE more (id int)")\n{end}\n{ADD}')
        with (
            holding(things.urls["s0"], "SELECT FROM things"),
            pytest.raises(OperationalError, match="lock timeout"),
        ):
            command.upgrade(things.config(), "head")

        assert ask(things.urls["s0"], LEDGER)[-1][2:5] == ("failed", ["r1"], ["r1"])

    def test_a_revision_after_one_with_a_block_of_its_own_is_tried_again(
        self, things: Project
    ) -> None:
        give_bounds(things, "transaction_per_migration=True")
        things.revise(
            "r2",
            "r1",
            "with op.get_context().autocommit_block():\n"
            '    op.execute("CREATE INDEX CONCURRENTLY things_id ON things (id)")',
        )
        things.revise("r3", "r2", ADD)
        command.upgrade(things.config(), "r2")
        with (
            holding(things.urls["s0"], "SELECT FROM things"),
            pytest.raises(MigrationBlocked, match="tried 3 times"),
        ):
            command.upgrade(things.config(), "head")


class TestARunOfWorkers:
    def test_waits_as_it_is_told_and_goes_on_when_it_is_run_again(self, things: Project) -> None:
        things.revise("r2", "r1", ADD)
        told: list[object] = []
        bounds = Bounds(lock_timeout=0.1, lock_tries=2)
        with (
            holding(things.urls["s2"], "SELECT FROM things"),
            pytest.raises(MigrationFailed) as raised,
        ):
            upgraded(things, told.append, parallel=1, on_failure="continue", bounds=bounds)

        report = raised.value.report
        assert outcomes(report) == ["migrated", "migrated", "failed", "migrated"]
        assert "tried 2 times" in report.shards[2].error
        assert [(each.shard, each.attempt) for each in told if isinstance(each, Waiting)] == [
            ("s2", 1)
        ]
        runs = {ask(url, RUN)[0] for url in things.urls.values()}
        assert len(runs) == 1
        assert outcomes(upgraded(things, parallel=1))[2] == "migrated"
        assert status_of(things.config()).is_at_head


class TestSettings:
    def test_the_timeouts_of_the_application_are_not_those_of_migrations(
        self, project: Project
    ) -> None:
        project.write(cluster=TIMEOUTS)
        project.revise("r1", None, TELL_SETTINGS)

        command.upgrade(project.config(), "head")

        assert ask(project.urls["s0"], "TABLE told") == [("5s", "0")]

    @pytest.mark.parametrize(
        ("said", "waits"), [("", "0"), ("op.execute(\"SET lock_timeout = '3s'\")", "3s")]
    )
    def test_an_index_is_built_concurrently_however_long_that_waits_unless_somebody_says(
        self, project: Project, said: str, waits: str
    ) -> None:
        ask(project.urls["s0"], TELL_WAIT)
        project.revise("r1", None, f"{said}\n{CREATE}\n{INDEX}")

        try:
            with pytest.raises(DBAPIError, match=f"it waits {waits} for a lock"):
                command.upgrade(project.config(), "head")
        finally:
            ask(project.urls["s0"], "DROP EVENT TRIGGER tell_wait; DROP FUNCTION tell_wait")

    def test_after_an_index_the_others_wait_shortly_again(self, project: Project) -> None:
        project.revise("r1", None, f"{CREATE}\n{INDEX}\n{TELL_SETTINGS}")

        command.upgrade(project.config(), "head")

        assert ask(project.urls["s0"], "TABLE told") == [("5s", "0")]

    def test_what_env_py_says_holds(self, project: Project) -> None:
        give_bounds(project, "bounds=Bounds(lock_timeout=0, statement_timeout=90)")
        project.revise("r1", None, TELL_SETTINGS)

        command.upgrade(project.config(), "head")

        assert ask(project.urls["s0"], "TABLE told") == [("0", "90s")]

    def test_what_the_database_says_holds_where_nobody_else_does(self, project: Project) -> None:
        ask(project.urls["s0"], "ALTER DATABASE s0 SET lock_timeout = '44s'")
        project.revise("r1", None, TELL_SETTINGS)

        command.upgrade(project.config(), "head")

        ask(project.urls["s0"], "ALTER DATABASE s0 RESET lock_timeout")
        assert ask(project.urls["s0"], "TABLE told") == [("44s", "0")]

    def test_x_wins_over_env_py(self, project: Project) -> None:
        give_bounds(project, BOUNDS)
        project.revise("r1", None, TELL_SETTINGS)

        result = project.run(
            "alembic", "-x", "lock_timeout=800ms", "-x", "statement_timeout=5m", "upgrade", "head"
        )

        assert result.returncode == 0, result.stderr
        assert ask(project.urls["s0"], "TABLE told") == [("800ms", "5min")]

    def test_a_statement_that_takes_too_long_fails_its_migration(self, things: Project) -> None:
        give_bounds(things, "transaction_per_migration=False")
        things.revise("r2", "r1", f'{ADD}\nop.execute("SET statement_timeout = 50")\n{SLEEP}')

        with pytest.raises(OperationalError, match="statement timeout"):
            command.upgrade(things.config(), "head")

        assert ask(things.urls["s0"], LEDGER)[-1][2:5] == ("failed", ["r1"], ["r1"])
        (s0, *_) = status_of(things.config()).shards
        assert (s0.last_outcome, s0.distance.behind, s0.runner) == ("failed", 1, None)

    def test_an_error_like_that_of_a_full_disk_leaves_the_shard_where_it_was(
        self, things: Project
    ) -> None:
        url = things.urls["s1"]
        ask(url, FULL_DISK)
        things.revise("r2", "r1", ADD)

        with pytest.raises((OperationalError, ProgrammingError), match="No space left"):
            command.upgrade(things.config(), "head")

        s0, s1, s2, _ = status_of(things.config()).shards
        assert [each.distance.behind for each in (s0, s1, s2)] == [0, 1, 1]
        assert s1.last is not None
        assert s1.last.error == "DiskFull: could not extend file: No space left on device"
        ask(url, "DROP EVENT TRIGGER full_disk; DROP FUNCTION full_disk")
        command.upgrade(things.config(), "head")
        assert status_of(things.config()).is_at_head


def patient(project: Project, *x: str) -> Config:
    """The configuration of a command with these ``-x``."""
    config = project.config()
    config.cmd_opts = Namespace(x=list(x))
    return config


def ignoring_blocked(config: Config) -> None:
    """Upgrade, or give up."""
    with pytest.raises(MigrationBlocked):
        command.upgrade(config, "head")
