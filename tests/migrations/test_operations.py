"""Operations that Alembic does not have: indexes, constraints, the schema `shards`."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from alembic import command
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError

from sqlalchemy_shards.errors import ConfigurationError, UnsupportedStatement
from tests.databases import ask, connect
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.migrations.project import Project

TABLE = (
    'op.create_table("users", sa.Column("id", sa.BigInteger, primary_key=True),'
    ' sa.Column("name", sa.Text), sa.Column("age", sa.Integer))'
)
CREATE = 'op.create_index_concurrently("users_name", "users", ["name"]{options})'
DEFINITIONS = "SELECT pg_get_indexdef('users_name'::regclass)"
IS_THE_INDEX = "indexrelid = to_regclass('users_name')"
INDEX = f"SELECT indisvalid, indexrelid FROM pg_index WHERE {IS_THE_INDEX}"
LOOKING = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE query LIKE '%l.transactionid = i.xmax%' AND pid <> pg_backend_pid()"
)
BUILDING = (
    "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY users_name%'"
)
WAITING = (
    "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE%' AND wait_event_type = 'Lock'"
)
REVISIONS = "SELECT version_num FROM alembic_version"


STOCK = """\
from alembic import context
from sqlalchemy import NullPool, create_engine
from sqlalchemy_shards.migrations.plugin import ensure_plugin

ensure_plugin()

with create_engine({url!r}, poolclass=NullPool).connect() as connection:
    context.configure(connection=connection{options})
    with context.begin_transaction():
        context.run_migrations()
"""


def go_without_us(project: Project, shard: str, options: str = "") -> None:
    """Give one shard alone an `env.py` that does not call us."""
    text = STOCK.format(url=project.urls[shard], options=options)
    (project.scripts / "env.py").write_text(text)


@pytest.fixture
def one_shard(project: Project) -> Project:
    """The project on its first shard alone, with a table and a row."""
    project.urls = dict(list(project.urls.items())[:1])
    project.write()
    project.revise("r1", None, TABLE)
    command.upgrade(project.config(), "head")
    ask(url_of(project), "INSERT INTO users VALUES (1, 'a', 20)")
    return project


def url_of(project: Project) -> str:
    return next(iter(project.urls.values()))


@contextmanager
def writing(url: str) -> Iterator[None]:
    """Another session is in a transaction that has written to the table."""
    with connect(url) as other:
        other.execute("BEGIN")
        other.execute("UPDATE users SET age = age + 1")
        yield
        other.execute("COMMIT")


def leave_invalid_index(url: str) -> None:
    """A unique index that the rows do not allow stays, invalid."""
    ask(url, "INSERT INTO users VALUES (2, 'a', 20)")
    with pytest.raises(Exception, match="could not create unique index"):
        ask(url, "CREATE UNIQUE INDEX CONCURRENTLY users_name ON users (name)")
    ask(url, "DELETE FROM users WHERE id = 2")


class TestBuildingAnIndex:
    def test_it_is_built_on_every_shard_and_dropped_again(self, project: Project) -> None:
        project.revise("r1", None, TABLE)
        project.revise(
            "r2",
            "r1",
            'op.create_index_concurrently("users_name", "users", [sa.text("lower(name)"), "age"],'
            ' unique=True, postgresql_where=sa.text("age > 1"), postgresql_include=["id"])',
            'op.drop_index_concurrently("users_name", "users")',
        )
        command.upgrade(project.config(), "head")
        built = [ask(url, DEFINITIONS)[0][0] for url in project.urls.values()]

        command.downgrade(project.config(), "r1")

        assert built == 4 * [
            "CREATE UNIQUE INDEX users_name ON public.users USING btree"
            " (lower(name), age) INCLUDE (id) WHERE (age > 1)"
        ]
        assert [ask(url, INDEX) for url in project.urls.values()] == [[]] * 4

    @pytest.mark.parametrize(
        "options",
        [
            "",
            ", unique=True, postgresql_where=sa.text(\"age > 1 AND name LIKE 'a%'\")",
            ', postgresql_using="hash"',
            ', postgresql_ops={"name": "text_pattern_ops"}, postgresql_include=["age"]',
        ],
    )
    def test_the_same_index_is_left_alone(self, one_shard: Project, options: str) -> None:
        one_shard.revise("r2", "r1", CREATE.format(options=options))
        command.upgrade(one_shard.config(), "head")
        before = ask(url_of(one_shard), INDEX)
        command.stamp(one_shard.config(), "r1")

        command.upgrade(one_shard.config(), "head")

        assert ask(url_of(one_shard), INDEX) == before

    @pytest.mark.parametrize(
        "existing",
        [
            "CREATE INDEX users_name ON users (name DESC)",
            "CREATE INDEX users_name ON users (name) WHERE age > 3",
            "CREATE UNIQUE INDEX users_name ON users (name)",
            "CREATE INDEX users_name ON alembic_version (version_num)",
        ],
    )
    def test_another_index_of_the_name_is_refused(self, one_shard: Project, existing: str) -> None:
        ask(url_of(one_shard), existing)
        one_shard.revise("r2", "r1", CREATE.format(options=""))

        with pytest.raises(ConfigurationError, match="'users_name' already, and it is another one"):
            command.upgrade(one_shard.config(), "head")

        assert ask(url_of(one_shard), REVISIONS) == [("r1",)]

    def test_one_that_a_failure_left_invalid_is_built_anew(self, one_shard: Project) -> None:
        leave_invalid_index(url_of(one_shard))
        one_shard.revise("r2", "r1", CREATE.format(options=", unique=True"))

        command.upgrade(one_shard.config(), "head")

        assert ask(url_of(one_shard), INDEX)[0][0]

    def test_an_invalid_index_of_another_table_is_not_touched(self, one_shard: Project) -> None:
        url = url_of(one_shard)
        leave_invalid_index(url)
        ask(url, "ALTER TABLE users RENAME TO people; CREATE TABLE users (name text)")
        one_shard.revise("r2", "r1", CREATE.format(options=""))

        with pytest.raises(ConfigurationError, match="it is another one"):
            command.upgrade(one_shard.config(), "head")

        assert not ask(url, INDEX)[0][0]

    def test_its_waits_are_bounded(self, one_shard: Project) -> None:
        one_shard.revise("r2", "r1", CREATE.format(options=", lock_timeout=0.1"))

        with (
            writing(url_of(one_shard)),
            pytest.raises(OperationalError, match="lock timeout"),
        ):
            command.upgrade(one_shard.config(), "head")
        command.upgrade(one_shard.config(), "head")

        assert ask(url_of(one_shard), INDEX)[0][0]

    def test_a_build_that_outlives_its_client_is_waited_for(self, one_shard: Project) -> None:
        url = url_of(one_shard)
        one_shard.revise("r2", "r1", CREATE.format(options=""))
        go_without_us(one_shard, "s0")  # with us, the second has to wait for its turn
        with writing(url):
            killed = one_shard.start("alembic", "upgrade", "head")
            eventually(lambda: ask(url, INDEX), "the index is begun")
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            rerun = threading.Thread(target=command.upgrade, args=(one_shard.config(), "head"))
            rerun.start()
            eventually(lambda: ask(url, WAITING), "the second waits for the first")
            left = ask(url, INDEX)
        rerun.join()

        assert ask(url, INDEX) == [(True, left[0][1])]
        assert ask(url, REVISIONS) == [("r2",)]

    def test_a_build_whose_end_is_not_committed_yet_is_waited_for(self, one_shard: Project) -> None:
        url = url_of(one_shard)
        with writing(url), connect(url) as builder:
            builder.execute("SET lock_timeout = 100")
            with pytest.raises(LockNotAvailable):
                builder.execute("CREATE INDEX CONCURRENTLY users_name ON users (name)")
        left = ask(url, INDEX)
        one_shard.revise("r2", "r1", CREATE.format(options=""))
        go_without_us(one_shard, "s0")
        with connect(url) as builder:  # which no longer has its lock on the table
            builder.execute("BEGIN")
            builder.execute(f"UPDATE pg_index SET indisvalid = true WHERE {IS_THE_INDEX}")
            rerun = threading.Thread(target=command.upgrade, args=(one_shard.config(), "head"))
            rerun.start()
            eventually(lambda: ask(url, LOOKING), "the second looks at the index")
            builder.execute("COMMIT")
        rerun.join()

        assert left[0][0] is False
        assert ask(url, INDEX) == [(True, left[0][1])]
        assert ask(url, REVISIONS) == [("r2",)]

    def test_a_build_that_is_killed_is_done_again(self, one_shard: Project) -> None:
        url = url_of(one_shard)
        one_shard.revise("r2", "r1", CREATE.format(options=""))
        with writing(url):
            killed = one_shard.start("alembic", "upgrade", "head")
            eventually(lambda: ask(url, INDEX), "the index is begun")
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            ((pid,),) = ask(url, BUILDING)
            ask(url, f"SELECT pg_terminate_backend({pid}, 10000)")
        left = ask(url, INDEX)

        command.upgrade(one_shard.config(), "head")

        assert not left[0][0]
        assert ask(url, INDEX)[0][0]

    def test_settings_of_the_session_are_as_before(self, one_shard: Project) -> None:
        one_shard.revise(
            "r2",
            "r1",
            'op.execute("SET lock_timeout = 1234")\n'
            + CREATE.format(options="")
            + "\nop.execute(\"CREATE TABLE seen AS SELECT current_setting('lock_timeout') AS s\")",
        )

        command.upgrade(one_shard.config(), "head")

        assert ask(url_of(one_shard), "SELECT s FROM seen") == [("1234ms",)]

    def test_as_sql_it_stands_outside_of_a_transaction(
        self, one_shard: Project, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one_shard.revise("r2", "r1", CREATE.format(options=""))

        command.upgrade(one_shard.config(), "r1:r2", sql=True)

        sql = capsys.readouterr().out
        assert "COMMIT;\n\nCREATE INDEX CONCURRENTLY users_name ON users (name);\n\nBEGIN;" in sql

    def test_all_shards_or_none_is_refused(self, project: Project) -> None:
        project.revise("r1", None, f"op.bootstrap_shards()\n{TABLE}")
        command.upgrade(project.config(), "head")
        project.revise("r2", "r1", CREATE.format(options=""))
        config = project.config()
        config.cmd_opts = type("Options", (), {"x": ["atomic=1"]})()

        with pytest.raises(UnsupportedStatement):
            command.upgrade(config, "head")

        assert {ask(url, REVISIONS)[0][0] for url in project.urls.values()} == {"r1"}


class TestDroppingAnIndex:
    def test_one_that_is_gone_is_no_error(self, one_shard: Project) -> None:
        one_shard.revise("r2", "r1", 'op.drop_index_concurrently("users_name", "users")')

        command.upgrade(one_shard.config(), "head")

        assert ask(url_of(one_shard), REVISIONS) == [("r2",)]


class TestValidatingAConstraint:
    STEPS = (
        'op.create_check_constraint("grown", "users", "age > 10", postgresql_not_valid=True)',
        'op.validate_constraint("grown", "users")',
    )
    VALID = "SELECT convalidated FROM pg_constraint WHERE conname = 'grown'"

    def test_rows_are_looked_at_in_the_second_step(self, one_shard: Project) -> None:
        url = url_of(one_shard)
        one_shard.revise("r2", "r1", self.STEPS[0])
        one_shard.revise("r3", "r2", self.STEPS[1])
        ask(url, "UPDATE users SET age = 1")

        with pytest.raises(Exception, match="violated by some row"):
            command.upgrade(one_shard.config(), "head")
        between = ask(url, self.VALID)
        ask(url, "UPDATE users SET age = 20")
        command.upgrade(one_shard.config(), "head")
        command.stamp(one_shard.config(), "r2")
        command.upgrade(one_shard.config(), "head")

        assert between == [(False,)]
        assert ask(url, self.VALID) == [(True,)]

    def test_others_write_meanwhile(self, one_shard: Project) -> None:
        url = url_of(one_shard)
        one_shard.revise("r2", "r1", self.STEPS[0])
        command.upgrade(one_shard.config(), "head")
        one_shard.revise("r3", "r2", self.STEPS[1])

        with writing(url):
            command.upgrade(one_shard.config(), "head")
            valid = ask(url, self.VALID)

        assert valid == [(True,)]

    def test_as_sql(self, one_shard: Project, capsys: pytest.CaptureFixture[str]) -> None:
        one_shard.revise("r2", "r1", 'op.validate_constraint("Grown", "users", schema="app")')

        command.upgrade(one_shard.config(), "r1:r2", sql=True)

        sql = capsys.readouterr().out
        assert '\nALTER TABLE app.users VALIDATE CONSTRAINT "Grown";\n' in sql


class TestBootstrapping:
    def test_each_shard_becomes_itself(self, project: Project) -> None:
        project.revise("r1", None, "op.bootstrap_shards()")

        command.upgrade(project.config(), "head")

        who = [
            ask(url, "SELECT shard_name, cluster_uuid FROM shards.identity")[0]
            for url in project.urls.values()
        ]
        assert [name for name, _ in who] == ["s0", "s1", "s2", "s3"]
        assert len({uuid for _, uuid in who}) == 1

    def test_it_cannot_be_written_as_sql(self, project: Project) -> None:
        project.revise("r1", None, "op.bootstrap_shards()")

        with pytest.raises(ConfigurationError, match=r"bootstrap_shards\(\) cannot be written"):
            command.upgrade(project.config(), "head", sql=True)


class TestStockAlembic:
    """One shard alone, over an `env.py` that does not call us."""

    REVISION = 'if op.is_global_shard():\n    op.create_table("plans", sa.Column("id", sa.Integer))'

    def test_it_is_told_which_is_the_global_shard(self, project: Project) -> None:
        project.revise("r1", None, "op.bootstrap_shards()")
        command.upgrade(project.config(), "head")
        project.revise("r2", "r1", self.REVISION)
        for shard in ("s0", "s1"):
            go_without_us(project, shard, ', global_shard="s0"')
            command.upgrade(project.config(), "head")

        assert self.has_plans(project.urls) == [True, False, False, False]

    @pytest.mark.parametrize("options", ["", ', global_shard="s0"'], ids=["not told", "nameless"])
    def test_otherwise_nothing_is_guessed(self, project: Project, options: str) -> None:
        project.revise("r1", None, self.REVISION)
        go_without_us(project, "s0", options)

        with pytest.raises(ConfigurationError, match="cannot be told whether this database is it"):
            command.upgrade(project.config(), "head")

    def test_a_database_that_is_no_shard_is_not_bootstrapped(self, project: Project) -> None:
        project.revise("r1", None, "op.bootstrap_shards()")
        go_without_us(project, "s0")

        with pytest.raises(ConfigurationError, match="which shard of which cluster"):
            command.upgrade(project.config(), "head")

    @staticmethod
    def has_plans(urls: Mapping[str, str]) -> list[bool]:
        query = "SELECT to_regclass('plans') IS NOT NULL"
        return [ask(url, query)[0][0] for url in urls.values()]
