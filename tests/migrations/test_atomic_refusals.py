"""What cannot be part of a migration of all shards or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards import Cluster
from sqlalchemy_shards.errors import (
    TransactionAborted,
)
from sqlalchemy_shards.migrations.atomic.run import AtomicRun
from sqlalchemy_shards.migrations.turns.run import RUN_KEY
from tests.databases import ask
from tests.migrations.atomic import (
    CREATE,
    DROP,
    ENV_OF_A_CLUSTER,
    SHARDS,
    TABLES,
    assert_nothing_migrated,
    refused,
    upgrade,
)

if TYPE_CHECKING:
    from tests.migrations.project import Project


class TestRefusing:
    """What PostgreSQL cannot prepare, or not run in a transaction."""

    @pytest.mark.parametrize(
        ("lines", "reason"),
        [
            ('op.execute("CREATE TEMP TABLE t (id int)")', "with temporary objects"),
            (
                'op.execute("CREATE TEMP TABLE t (id int) ON COMMIT DROP")',
                "with temporary objects",
            ),
            ("op.execute(\"NOTIFY news, 'migrated'\")", "with NOTIFY"),
            ('op.execute("SELECT 1; LISTEN news")', "with LISTEN"),
            (
                'op.execute("DECLARE c CURSOR WITH HOLD FOR SELECT 1")',
                "with cursors WITH HOLD",
            ),
            (
                'op.create_index("ix", "things", ["id"], postgresql_concurrently=True)',
                "CREATE INDEX CONCURRENTLY cannot run inside a transaction block",
            ),
            ('op.execute("VACUUM")', "VACUUM cannot run inside a transaction block"),
            (
                'op.execute("CREATE DATABASE no")',
                "CREATE DATABASE cannot run inside a transaction block",
            ),
            (
                """with op.get_context().autocommit_block():
    op.execute("VACUUM")""",
                "autocommit_block() commits on one shard",
            ),
            ('op.create_index_concurrently("ix", "things", ["id"])', "autocommit_block()"),
            ('op.validate_constraint("things", "ck")', "autocommit_block()"),
            ('op.execute("COMMIT")', "COMMIT in SQL text would end the transaction"),
            ('op.execute("SELECT 1; ROLLBACK")', "ROLLBACK in SQL text would end"),
            ("op.get_bind().commit()", "commit() would end the transaction on one shard"),
            ("op.get_bind().rollback()", "rollback() would end the transaction on one shard"),
            (
                "op.get_bind().connection.commit()",
                "commit() would end the transaction on one shard",
            ),
            (
                'op.execute("DO $$ BEGIN COMMIT; END $$")',
                "PostgreSQL does not run this in a transaction (invalid transaction termination)",
            ),
            (
                """with op.get_bind().engine.begin() as other:
    other.execute(sa.text("CREATE TABLE things_of_others (id int)"))""",
                "over another connection to the shard",
            ),
        ],
    )
    def test_it_says_what_and_where(self, standing: Project, lines: str, reason: str) -> None:
        standing.revise("r1", None, CREATE, DROP)
        standing.revise("r2", "r1", lines)

        said = refused(standing)

        assert "in revision 'r2' on shard 's0'" in said
        assert reason in said

    def test_a_new_value_of_an_enum_is_not_used_at_once(self, ready: Project) -> None:
        for url in ready.urls.values():
            ask(url, "CREATE TYPE mood AS ENUM ('sad')")
        ready.revise("r1", None, """op.execute("ALTER TYPE mood ADD VALUE 'glad'")""")
        ready.revise("r2", "r1", """op.execute("SELECT 'glad'::mood")""")

        said = refused(ready)

        assert "a new value of an enum is used" in said

    def test_a_notification_that_only_the_server_sees_is_found_when_it_prepares(
        self, standing: Project
    ) -> None:
        standing.revise("r1", None, CREATE + """\nop.execute("SELECT pg_notify('a', 'b')")""")

        said = refused(standing, error=TransactionAborted)

        assert "cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY" in said

    def test_an_end_over_the_drivers_own_connection_is_told_truthfully(
        self, ready: Project
    ) -> None:
        ready.revise("r1", None, f"{CREATE}\nop.get_bind().connection.driver_connection.commit()")

        with pytest.raises(TransactionAborted, match="has ended the transaction on shard 's0'"):
            upgrade(ready)

        assert [ask(url, TABLES) for url in ready.urls.values()] == [
            [(1,)],
            [(0,)],
            [(0,)],
            [(0,)],
        ]

    def test_an_error_that_a_migration_swallows_ends_it(self, standing: Project) -> None:
        standing.revise(
            "r1",
            None,
            f"""{CREATE}
try:
    op.execute("SELECT 1 / 0")
except sa.exc.DBAPIError:
    pass""",
        )

        with pytest.raises(DBAPIError):
            upgrade(standing)

        assert_nothing_migrated(standing)

    def test_a_role_that_a_migration_takes_is_given_back(self, ready: Project) -> None:
        for url in ready.urls.values():
            ask(url, "CREATE ROLE maker SUPERUSER")
        ready.revise("r1", None, f"op.execute('SET ROLE maker')\n{CREATE}", DROP)

        upgrade(ready)

        owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'things'"
        owners = [ask(url, owner) for url in ready.urls.values()]
        for url in ready.urls.values():
            ask(url, "DROP OWNED BY maker; DROP ROLE maker")
        assert owners == [[("maker",)]] * 4

    def test_what_a_migration_sets_for_its_session_ends_with_it(self, ready: Project) -> None:
        ready.write(env=ENV_OF_A_CLUSTER)
        ready.revise("r1", None, CREATE + "\nop.execute('SET work_mem = 64')")
        cluster = Cluster.from_file(ready.config_file)
        config = ready.config()
        config.attributes.update({"cluster": cluster, RUN_KEY: AtomicRun(SHARDS)})

        command.upgrade(config, "head")

        with cluster.shards["s1"].engine.connect() as connection:
            work_mem = connection.execute(text("SHOW work_mem")).scalar_one()
        cluster.dispose()
        assert work_mem == "4MB"
