"""One shard's turn: alone, and written down."""

from __future__ import annotations

import threading
from argparse import Namespace
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy import text

from sqlalchemy_shards import Cluster
from sqlalchemy_shards.catalog.identity import SCHEMA_VERSION
from sqlalchemy_shards.catalog.schema import STEPS
from sqlalchemy_shards.errors import ConfigurationError, MigrationBlocked, ShardUnavailable
from sqlalchemy_shards.migrations.status import status_of
from sqlalchemy_shards.migrations.turns.lock import MIGRATION_LOCK
from tests.databases import ask, connect
from tests.migrations.turns import ADD, CREATE, LEDGER, REVISIONS, WAITS, holding, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.config import Config

    from sqlalchemy_shards.testing.servers import PostgresServers
    from tests.migrations.project import Project

VERSION = "SELECT schema_version FROM shards.identity"
RUNS = "SELECT run FROM shards.migrations"
CLUSTER = "SELECT cluster_uuid FROM shards.identity"


class TestTheLedger:
    def test_a_run_is_written_down_on_each_shard(self, things: Project) -> None:
        runs = {row for url in things.urls.values() for row in ask(url, RUNS)}

        assert len(runs) == 1
        for url in things.urls.values():
            assert ask(url, LEDGER) == [("upgrade", "head", "done", [], ["r1"], None)]

    def test_a_run_that_found_nothing_to_do_is_not_kept(self, things: Project) -> None:
        command.upgrade(things.config(), "head")

        assert len(ask(things.urls["s0"], LEDGER)) == 1

    def test_a_failed_run_is_kept_though_it_was_rolled_back(self, things: Project) -> None:
        things.revise("r2", "r1", f"{ADD}\nop.execute(\"SELECT 1/0, 'secret'\")")

        with pytest.raises(Exception, match="division by zero"):
            command.upgrade(things.config(), "head")

        *_, row = ask(things.urls["s0"], LEDGER)
        failed = ("upgrade", "head", "failed", ["r1"], ["r1"], "DivisionByZero: division by zero")
        assert row == failed

    def test_the_first_good_run_after_a_failed_one_is_kept_though_it_did_nothing(
        self, things: Project
    ) -> None:
        url = things.urls["s0"]
        ask(url, "UPDATE shards.migrations SET outcome = 'failed'")

        command.upgrade(things.config(), "head")

        assert [row[2] for row in ask(url, LEDGER)] == ["failed", "done"]

    def test_some_runs_are_remembered(self, things: Project) -> None:
        url = things.urls["s0"]
        ask(
            url,
            "INSERT INTO shards.migrations (run, command, client, outcome)"
            " SELECT gen_random_uuid(), 'old', '', 'failed' FROM generate_series(1, 150)",
        )

        command.upgrade(things.config(), "head")

        assert ask(url, "SELECT count(*) FROM shards.migrations") == [(100,)]

    def test_a_stamp_and_a_downgrade_are_runs_too(self, things: Project) -> None:
        command.stamp(things.config(), "base")
        command.stamp(things.config(), "r1")
        command.downgrade(things.config(), "base")

        assert [row[:5] for row in ask(things.urls["s3"], LEDGER)][1:] == [
            ("stamp", "base", "done", ["r1"], []),
            ("stamp", "r1", "done", [], ["r1"]),
            ("downgrade", "base", "done", ["r1"], []),
        ]

    def test_a_version_table_that_was_emptied_is_worth_a_row(self, things: Project) -> None:
        command.stamp(things.config(), "base", purge=True)

        assert ask(things.urls["s0"], LEDGER)[-1][:5] == ("stamp", "base", "done", ["r1"], [])

    def test_a_command_that_only_looks_leaves_nothing(self, project: Project) -> None:
        project.revise("r1", None, CREATE)

        command.current(project.config())

        assert ask(project.urls["s0"], "SELECT to_regnamespace('shards')") == [(None,)]


class TestRights:
    def test_a_role_that_may_not_make_the_ledger_is_told_who_may(self, things: Project) -> None:
        url = things.urls["s0"]
        ask(url, "DROP SCHEMA shards CASCADE; CREATE ROLE migrator")
        things.urls = {**things.urls, "s0": f"{url}&options=-crole%3Dmigrator"}
        things.write()

        with pytest.raises(ConfigurationError, match=r"may not create the schema 'shards' on sh"):
            command.upgrade(things.config(), "head")

        ask(url, "DROP ROLE migrator")

    def test_a_role_that_may_not_write_there_is_told_so(self, things: Project) -> None:
        url = things.urls["s0"]
        ask(url, "CREATE ROLE migrator; GRANT USAGE, CREATE ON SCHEMA public TO migrator")
        ask(url, "GRANT USAGE ON SCHEMA shards TO migrator")
        ask(url, "GRANT SELECT ON shards.identity, alembic_version TO migrator")
        things.urls = {**things.urls, "s0": f"{url}&options=-crole%3Dmigrator"}
        things.write()

        with pytest.raises(ConfigurationError, match=r"may not write to 'shards.migrations'"):
            command.upgrade(things.config(), "head")

        ask(url, "DROP OWNED BY migrator; DROP ROLE migrator")


class TestTheIdentityOfACluster:
    def test_a_new_shard_gets_that_of_the_others(self, things: Project) -> None:
        ask(things.urls["s1"], "DROP SCHEMA shards CASCADE")

        command.upgrade(things.config(), "head")

        uuids = {ask(url, CLUSTER)[0] for url in things.urls.values()}
        assert len(uuids) == 1

    def test_one_that_another_shard_tells_is_enough(
        self, things: Project, servers: PostgresServers
    ) -> None:
        ask(things.urls["s1"], "DROP SCHEMA shards CASCADE")
        servers.stop(0)

        things_on(things.config(), "s1")

        assert ask(things.urls["s1"], CLUSTER) == ask(things.urls["s3"], CLUSTER)

    def test_none_is_made_up_while_a_shard_that_may_have_one_is_down(
        self, project: Project, servers: PostgresServers
    ) -> None:
        project.revise("r1", None, CREATE)
        servers.stop(2)

        with pytest.raises(ConfigurationError, match="'s2' may have the identity of the cluster"):
            command.upgrade(project.config(), "head")

        assert ask(project.urls["s0"], "SELECT to_regnamespace('shards')") == [(None,)]


@pytest.mark.parametrize("ask_alembic", [command.current, command.check])
def test_a_shard_that_is_down_is_named_by_whatever_looks_at_it(
    things: Project, servers: PostgresServers, ask_alembic: Callable[[Any], None]
) -> None:
    servers.stop(2)

    with pytest.raises(ShardUnavailable, match=r"shard 's2' at .* cannot be reached"):
        ask_alembic(things.config())


class TestAnOlderSchema:
    def test_applications_go_on_while_a_shard_gets_its_ledger(self, project: Project) -> None:
        for shard, url in project.urls.items():
            make_version_3(shard, url)
        project.revise("r1", None, CREATE)
        with closed(Cluster.from_file(project.config_file)) as application:
            add_note(application)

            things_on(project.config(), "s1")

            add_note(application)
            application.close_pools()
            add_note(application)
        versions = [ask(url, VERSION)[0][0] for url in project.urls.values()]
        assert versions == [3, SCHEMA_VERSION, 3, 3]
        assert {ask(url, "SELECT count(*) FROM notes")[0] for url in project.urls.values()} == {
            (3,)
        }

    def test_a_schema_that_has_a_ledger_is_left_as_it_is(self, things: Project) -> None:
        things.revise("r2", "r1", ADD)
        ask(things.urls["s1"], "UPDATE shards.identity SET schema_version = 4")

        command.upgrade(things.config(), "head")

        assert ask(things.urls["s1"], VERSION) == [(4,)]


class TestTwoRunners:
    def test_the_second_is_told_who_is_at_work(self, things: Project) -> None:
        things.revise("r2", "r1", ADD)
        with connect(things.urls["s1"]) as other:
            pid = other.info.backend_pid
            other.execute("SET application_name = 'another runner'")
            other.execute(f"SELECT pg_advisory_lock({MIGRATION_LOCK})".encode())

            with pytest.raises(MigrationBlocked, match="another runner") as caught:
                command.upgrade(things.config(), "head")

        assert f"pg_terminate_backend({pid})" in str(caught.value)
        assert ask(things.urls["s0"], REVISIONS) == [("r2",)]
        assert ask(things.urls["s1"], REVISIONS) == [("r1",)]

    def test_the_second_waits_and_finds_it_done(self, project: Project) -> None:
        project.revise("r1", None, f'{CREATE}\nop.execute("SELECT pg_sleep(0.05)")')
        errors: list[BaseException] = []

        results = [threading.Thread(target=lambda: run_and_note(project, errors)) for _ in range(2)]
        for thread in results:
            thread.start()
        for thread in results:
            thread.join(100)

        assert errors == []
        assert status_of(project.config()).is_at_head

    def test_an_index_is_made_concurrently_while_another_runner_waits(
        self, things: Project
    ) -> None:
        things.revise(
            "r2",
            "r1",
            "with op.get_context().autocommit_block():\n"
            '    op.execute("CREATE INDEX CONCURRENTLY things_id ON things (id)")',
        )
        errors: list[BaseException] = []
        with holding(things.urls["s0"], "INSERT INTO things VALUES (1)") as writer:
            threads = [
                threading.Thread(target=lambda: run_and_note(things, errors)) for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            wait_until(lambda: ask(things.urls["s0"], WAITS) == [(True,)])
            writer.execute("COMMIT")
            for thread in threads:
                thread.join(100)

        assert errors == []
        assert status_of(things.config()).is_at_head


def make_version_3(shard: str, url: str) -> None:
    """Give a shard the schema of a release without a ledger, and a table."""
    ask(url, "CREATE SCHEMA shards; CREATE TABLE notes (id int)")
    for step in STEPS[:3]:
        for statement in step:
            ask(url, statement)
    ask(
        url,
        "INSERT INTO shards.identity"
        " (cluster_uuid, cluster_name, shard_uuid, shard_name, schema_version) VALUES"
        f" ('{UUID(int=1)}', 'app', gen_random_uuid(), '{shard}', 3)",
    )


@contextmanager
def closed(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster that is disposed at the end."""
    try:
        yield cluster
    finally:
        cluster.dispose()


def add_note(application: Cluster) -> None:
    """Write on every shard in one transaction."""
    with application.engine.begin() as connection:
        connection.execute(text("INSERT INTO notes VALUES (1)"), execution_options={"shard": "*"})


def things_on(config: Config, shard: str) -> None:
    """Upgrade one shard."""
    config.cmd_opts = Namespace(x=[f"shard={shard}"])
    command.upgrade(config, "head")


def run_and_note(project: Project, errors: list[BaseException]) -> None:
    """Upgrade in a process of its own."""
    result = project.run("alembic", "-x", "runner_timeout=60s", "upgrade", "head")
    if result.returncode:
        errors.append(AssertionError(result.stderr))
