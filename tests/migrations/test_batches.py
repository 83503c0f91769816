"""Changing the rows of a table in many small transactions, each of them once."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from alembic import command
from sqlalchemy.exc import OperationalError

from sqlalchemy_shards.errors import ConfigurationError
from tests.databases import ask, connect
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.migrations.project import Project

TABLE = (
    'op.create_table("users", sa.Column("id", {type}, primary_key=True, autoincrement=False),'
    ' sa.Column("times", sa.Integer, nullable=False, server_default="0"))'
)
RUN = """\
changed = op.run_batches(
    "count", {statement!r}, table={table!r}, key={key!r}, rows=10{options}
)
op.execute(f"CREATE TABLE told AS SELECT {{changed}} AS rows")"""
COUNT = "UPDATE users SET times = times + 1 WHERE id BETWEEN :first AND :last"
SLOWLY = COUNT + " AND pg_sleep(0.02) IS NOT NULL"
TIMES = "SELECT times, count(*) FROM users GROUP BY 1 ORDER BY 1"
UNDER_WAY = "SELECT batches, rows, done_to, ends_at, finished FROM shards.batches"
REVISIONS = "SELECT version_num FROM alembic_version"


def url_of(project: Project) -> str:
    return next(iter(project.urls.values()))


def begin(
    project: Project,
    statement: str = COUNT,
    *,
    table: str = "users",
    key: str = "id",
    options: str = "",
    kind: str = "sa.BigInteger",
    rows: str | None = "SELECT generate_series(1, 95)",
) -> None:
    """A table with rows on each shard, and a revision that counts them."""
    project.revise("r1", None, TABLE.format(type=kind))
    command.upgrade(project.config(), "head")
    if rows is not None:
        for url in project.urls.values():
            ask(url, f"INSERT INTO users (id) {rows}")
    run = RUN.format(statement=statement, table=table, key=key, options=options)
    project.revise("r2", "r1", run, 'op.drop_table("told")')


@pytest.fixture
def one_shard(project: Project) -> Project:
    """The project on its first shard alone."""
    project.urls = dict(list(project.urls.items())[:1])
    project.write()
    return project


class TestAllOfThem:
    def test_every_row_of_every_shard_is_visited_once(
        self, project: Project, caplog: pytest.LogCaptureFixture
    ) -> None:
        begin(project)
        caplog.set_level("INFO", logger="alembic.shards")

        command.upgrade(project.config(), "head")

        urls = project.urls.values()
        assert [ask(url, TIMES) for url in urls] == [[(1, 95)]] * 4
        assert [ask(url, "SELECT rows FROM told") for url in urls] == [[(95,)]] * 4
        assert [ask(url, UNDER_WAY) for url in urls] == [[]] * 4
        assert "batches count on shard s3: 10 done, 95 rows" in caplog.messages

    @pytest.mark.parametrize(
        ("kind", "rows"),
        [
            ("sa.Uuid", "SELECT gen_random_uuid() FROM generate_series(1, 95)"),
            ("sa.Text", "SELECT 'K:' || n || chr(96 + n % 26) FROM generate_series(1, 95) n"),
            ("sa.Numeric", "SELECT n / 7.0 FROM generate_series(1, 95) n"),
            (
                "sa.DateTime(timezone=True)",
                "SELECT '-infinity'::timestamptz UNION"
                " SELECT '2026-10-24 12:00Z'::timestamptz + n * '20min'::interval"
                " FROM generate_series(1, 94) n",
            ),
        ],
    )
    def test_keys_of_any_type(self, one_shard: Project, kind: str, rows: str) -> None:
        url = url_of(one_shard)
        begin(one_shard, kind=kind, rows=rows)
        ask(url, f"ALTER DATABASE {url.split('/')[3].split('?')[0]} SET datestyle = 'SQL, DMY'")

        try:
            command.upgrade(one_shard.config(), "head")
        finally:
            ask(url, f"ALTER DATABASE {url.split('/')[3].split('?')[0]} RESET datestyle")

        assert ask(url, TIMES) == [(1, 95)]

    def test_rows_with_equal_keys_stay_together(self, one_shard: Project) -> None:
        begin(one_shard)
        url = url_of(one_shard)
        ask(
            url,
            "ALTER TABLE users DROP CONSTRAINT users_pkey; INSERT INTO users SELECT 7, 0"
            " FROM generate_series(1, 50)",
        )

        command.upgrade(one_shard.config(), "head")

        assert ask(url, TIMES) == [(1, 145)]

    def test_an_empty_table(self, one_shard: Project) -> None:
        begin(one_shard, rows=None)

        command.upgrade(one_shard.config(), "head")

        assert ask(url_of(one_shard), "SELECT rows FROM told") == [(0,)]

    def test_again_after_a_downgrade(self, one_shard: Project) -> None:
        begin(one_shard)
        command.upgrade(one_shard.config(), "head")
        command.downgrade(one_shard.config(), "r1")

        command.upgrade(one_shard.config(), "head")

        assert ask(url_of(one_shard), TIMES) == [(2, 95)]


class TestAfterAFailure:
    def test_a_killed_process(self, one_shard: Project) -> None:
        url = url_of(one_shard)
        begin(one_shard, SLOWLY)
        killed = one_shard.start("alembic", "upgrade", "head")
        table = "SELECT to_regclass('shards.batches')"
        eventually(lambda: ask(url, table)[0][0], "the table is there", seconds=60)
        eventually(lambda: any(row[0] > 1 for row in ask(url, UNDER_WAY)), "two are done")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        eventually(
            lambda: (
                not ask(
                    url,
                    "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'UPDATE%'"
                    " AND pid <> pg_backend_pid() AND datname = current_database()",
                )
            ),
            "it ends on the server",
        )
        ((batches, rows, *_),) = ask(url, UNDER_WAY)
        done = ask(url, TIMES)

        command.upgrade(one_shard.config(), "head")

        assert 2 <= batches < 10
        assert done == [(0, 95 - rows), (1, rows)]
        assert ask(url, TIMES) == [(1, 95)]
        assert ask(url, "SELECT rows FROM told") == [(95,)]

    def test_an_error_in_the_midst(self, one_shard: Project) -> None:
        url = url_of(one_shard)
        begin(one_shard)
        ask(url, "ALTER TABLE users ADD CONSTRAINT fails CHECK (id <> 42 OR times = 0)")
        with pytest.raises(Exception, match="fails"):
            command.upgrade(one_shard.config(), "head")
        under_way, done = ask(url, UNDER_WAY), ask(url, TIMES)
        ask(url, "ALTER TABLE users DROP CONSTRAINT fails")

        command.upgrade(one_shard.config(), "head")

        assert under_way == [(4, 40, "40", "95", False)]
        assert done == [(0, 55), (1, 40)]
        assert ask(url, TIMES) == [(1, 95)]

    def test_a_failure_behind_them_does_not_repeat_them(self, one_shard: Project) -> None:
        url = url_of(one_shard)
        begin(one_shard)
        one_shard.revise("r3", "r2", 'op.execute("SELECT 1 / (SELECT count(*) FROM ready)")')
        ask(url, "CREATE TABLE ready ()")
        with pytest.raises(Exception, match="division by zero"):
            command.upgrade(one_shard.config(), "head")
        revision = ask(url, "SELECT count(*) FROM alembic_version WHERE version_num <> 'r1'")
        ask(url, "INSERT INTO ready DEFAULT VALUES")

        command.upgrade(one_shard.config(), "head")

        assert revision == [(0,)]
        assert ask(url, TIMES) == [(1, 95)]
        assert ask(url, UNDER_WAY) == []

    def test_rows_that_come_later_are_not_visited(self, one_shard: Project) -> None:
        url = url_of(one_shard)
        begin(one_shard)
        ask(url, "ALTER TABLE users ADD CONSTRAINT fails CHECK (id <> 42 OR times = 0)")
        with pytest.raises(Exception, match="fails"):
            command.upgrade(one_shard.config(), "head")
        ask(url, "ALTER TABLE users DROP CONSTRAINT fails; INSERT INTO users (id) VALUES (1000)")

        command.upgrade(one_shard.config(), "head")

        assert ask(url, TIMES) == [(0, 1), (1, 95)]

    def test_a_lock_that_goes_away_is_tried_again(self, one_shard: Project) -> None:
        url = url_of(one_shard)
        begin(one_shard, options=", lock_timeout=0.2, attempts=50")
        with connect(url) as other:
            other.execute("BEGIN")
            other.execute("UPDATE users SET times = 0 WHERE id = 42")
            upgrading = one_shard.start("alembic", "upgrade", "head")
            failed = "SELECT 1 FROM shards.batches WHERE batches = 4"
            table = "SELECT to_regclass('shards.batches')"
            eventually(lambda: ask(url, table)[0][0], "the table is there", seconds=60)
            eventually(lambda: ask(url, failed), "the fifth is tried")
            other.execute("COMMIT")

        assert upgrading.wait(60) == 0
        assert ask(url, TIMES) == [(1, 95)]

    def test_a_lock_that_stays_is_an_error(self, one_shard: Project) -> None:
        url = url_of(one_shard)
        begin(one_shard, options=", lock_timeout=0.05, attempts=2")
        with connect(url) as other:
            other.execute("BEGIN")
            other.execute("UPDATE users SET times = 0 WHERE id = 42")

            with pytest.raises(OperationalError, match="lock timeout"):
                command.upgrade(one_shard.config(), "head")

        assert ask(url, UNDER_WAY)[0][:2] == (4, 40)

    def test_a_batch_that_takes_too_long_is_an_error(self, one_shard: Project) -> None:
        begin(one_shard, SLOWLY, options=", statement_timeout=0.05")

        with pytest.raises(OperationalError, match="statement timeout"):
            command.upgrade(one_shard.config(), "head")

        assert ask(url_of(one_shard), TIMES) == [(0, 95)]

    def test_another_statement_under_the_name_is_refused(self, one_shard: Project) -> None:
        begin(one_shard, SLOWLY, options=", statement_timeout=0.05")
        with pytest.raises(OperationalError):
            command.upgrade(one_shard.config(), "head")
        run = RUN.format(statement=COUNT, table="users", key="id", options="")
        one_shard.revise("r2", "r1", run)

        with pytest.raises(ConfigurationError, match="'count' are under way here with another"):
            command.upgrade(one_shard.config(), "head")


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("statement", "key", "sentence"),
        [
            ("UPDATE users SET times = 1", "id", "must have the parameters :first and :last"),
            (COUNT + " LIMIT :batch", "id", "must have the parameters :first and :last"),
            (COUNT, "name", "'users' has no column 'name'"),
        ],
    )
    def test_what_cannot_be_divided(
        self, one_shard: Project, statement: str, key: str, sentence: str
    ) -> None:
        begin(one_shard, statement, key=key, rows=None)

        with pytest.raises(ConfigurationError, match=sentence):
            command.upgrade(one_shard.config(), "head")

    def test_a_key_that_may_be_null(self, one_shard: Project) -> None:
        begin(one_shard, key="times", rows=None)
        ask(url_of(one_shard), "ALTER TABLE users ALTER times DROP NOT NULL")

        with pytest.raises(ConfigurationError, match="may be null"):
            command.upgrade(one_shard.config(), "head")

    def test_sql(self, one_shard: Project) -> None:
        begin(one_shard, rows=None)

        with pytest.raises(ConfigurationError, match=r"run_batches\(\) cannot be written as SQL"):
            command.upgrade(one_shard.config(), "r1:r2", sql=True)
