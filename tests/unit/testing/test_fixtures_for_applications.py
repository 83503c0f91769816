"""The pytest plugin, as the test suite of an application uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy.engine import make_url

from sqlalchemy_shards.testing.servers import PostgresServers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Each test starts a process of pytest, and most of them servers.
pytestmark = pytest.mark.slow

# Named here and not found through the entry point, so that it works without an installation.
PYTEST = ("-m", "pytest", "-q", "-p", "sqlalchemy_shards.testing.plugin", "-p", "no:cacheprovider")

MODELS = """
import pytest
from sqlalchemy import BigInteger
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqlalchemy_shards import ShardKeyMixin


class Base(DeclarativeBase):
    pass


class User(ShardKeyMixin, Base):
    __tablename__ = "users"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    email: Mapped[str]


@pytest.fixture(scope="session")
def shard_metadata():
    return Base.metadata
"""


@pytest.fixture
def run_application_tests(run_python, monkeypatch, tmp_path: Path, temporary_root: Path):
    """Run a test module of an application; return its output once it passed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(source: str) -> str:
        (tmp_path / "test_application.py").write_text(source)
        process = run_python(*PYTEST, "-W", "error", "test_application.py")
        output = process.communicate()[0]
        assert process.returncode == 0, output
        return output

    return run


def test_shard_urls_are_four_databases_that_take_tables(
    run_application_tests: Callable[[str], str], temporary_root
):
    output = run_application_tests("""
import sqlalchemy as sa

def test_urls(shard_urls):
    assert list(shard_urls) == ["s0", "s1", "s2", "s3"]
    for url in shard_urls.values():
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE t (i int)")
        engine.dispose()
""")

    assert "1 passed" in output
    assert list(temporary_root.glob("pg-shards-*")) == []


def test_one_server_can_hold_all_shards_and_keeps_nothing(
    run_application_tests: Callable[[str], str], monkeypatch
):
    with PostgresServers(1) as servers:
        monkeypatch.setenv("SHARDS_TEST_BACKEND", "urls")
        monkeypatch.setenv("SHARDS_TEST_URLS", ",".join([servers.url(0)] * 4))
        run_application_tests("""
def test_urls(shard_urls):
    assert len(set(shard_urls.values())) == 4
""")

        libpq_url = make_url(servers.url(0)).set(drivername="postgresql")
        with psycopg.connect(libpq_url.render_as_string(hide_password=False)) as connection:
            names = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
    assert names == {"postgres", "template0", "template1"}


def test_a_cluster_is_empty_in_each_test(run_application_tests: Callable[[str], str]):
    output = run_application_tests(
        MODELS
        + """
@pytest.mark.parametrize("round", [1, 2])
def test_cluster(shard_cluster, shard_session, round):
    assert shard_session.query(User).count() == 0
    shard_session.add_all([User(id=i, email=f"{i}@example.com") for i in range(20)])
    shard_session.commit()
    assert shard_session.get(User, 7).email == "7@example.com"
    assert len({shard_cluster.shard_for(User, i) for i in range(20)}) > 1
"""
    )

    assert "2 passed" in output


def test_the_arguments_of_the_cluster_can_be_given(run_application_tests: Callable[[str], str]):
    output = run_application_tests(
        MODELS
        + """
from sqlalchemy_shards import HashPartitioner, Keyspace

@pytest.fixture(scope="session")
def shard_cluster_arguments():
    return {"keyspaces": {"default": Keyspace(HashPartitioner(buckets=16))}}

def test_cluster(shard_cluster):
    assert {shard_cluster.bucket_for(User, i) for i in range(200)} == set(range(16))
"""
    )

    assert "1 passed" in output


def test_a_cluster_without_tables_works(run_application_tests: Callable[[str], str]):
    output = run_application_tests("""
def test_cluster(shard_cluster):
    assert list(shard_cluster.shards) == ["s0", "s1", "s2", "s3"]
""")

    assert "1 passed" in output


def test_tables_are_made_once_and_emptied(run_application_tests: Callable[[str], str]):
    """A cycle of foreign keys, an identity and a session that was left open are no hindrance."""
    output = run_application_tests(
        MODELS
        + """
from sqlalchemy import Column, ForeignKey, Integer, Table, text

from sqlalchemy_shards import ShardedSession

Table(
    "numbers",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("after", ForeignKey("numbers.id")),
)
seen = []
left = []

@pytest.fixture(scope="session")
def shard_cluster_arguments():
    return {"undeclared": "global"}

@pytest.mark.parametrize("round", range(3))
def test_cluster(shard_cluster, shard_urls, round):
    with shard_cluster.engine.begin() as connection:
        made = text("INSERT INTO numbers (after) VALUES (1) RETURNING id, tableoid")
        seen.append(tuple(connection.execute(made, execution_options={"shard": "s0"}).one()))
    if round == 0:  # each database waits for its lock before it ends the session
        left.append(ShardedSession(shard_cluster))
        left[-1].add_all([User(id=i, email="x") for i in range(8)])
        left[-1].flush()

def test_the_same_tables():
    assert {number for number, _ in seen} == {1}
    assert len({table for _, table in seen}) == 1
    for session in left:
        session.invalidate()
"""
    )

    assert "4 passed" in output


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE users ADD COLUMN more int",
        "DROP TABLE users",
        "CREATE TABLE another (id int)",
        "CREATE VIEW another AS SELECT 1 AS one",
        "CREATE FUNCTION another() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA another",
        "INSERT INTO users VALUES (1, 'x');"
        " CREATE RULE kept AS ON DELETE TO users DO INSTEAD NOTHING",
        "DROP SCHEMA shards CASCADE",
    ],
)
def test_what_a_test_changes_of_the_tables_is_undone(
    run_application_tests: Callable[[str], str], change: str, monkeypatch, servers
):
    for number in range(servers.count):
        servers.start(number)
    monkeypatch.setenv("SHARDS_TEST_BACKEND", "urls")
    monkeypatch.setenv("SHARDS_TEST_URLS", ",".join(map(servers.url, range(servers.count))))
    output = run_application_tests(
        MODELS
        + f"""
import psycopg

LOOK = '''
SELECT n.nspname, c.relname, a.attname
FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
UNION SELECT 'p', proname, '' FROM pg_proc WHERE oid >= 16384
UNION SELECT 'r', rulename, '' FROM pg_rewrite WHERE oid >= 16384
'''
seen = []

@pytest.mark.parametrize("round", range(2))
def test_cluster(shard_cluster, shard_session, shard_urls, round):
    url = shard_urls["s2"].replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        seen.append(sorted(map(str, connection.execute(LOOK))))
        assert seen[-1] == seen[0]
        assert shard_session.query(User).count() == 0
        shard_session.rollback()
        connection.execute({change!r})
"""
    )

    assert "2 passed" in output


def test_rows_that_are_made_with_the_tables_are_there_in_each_test(
    run_application_tests: Callable[[str], str],
):
    output = run_application_tests(
        MODELS
        + """
from sqlalchemy import DDL, event

event.listen(Base.metadata, "after_create", DDL("INSERT INTO users VALUES (1, 'first')"))

@pytest.mark.parametrize("round", range(2))
def test_cluster(shard_cluster, shard_urls, round):
    import psycopg
    with psycopg.connect(shard_urls["s1"].replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT email FROM users").fetchall() == [("first",)]
        connection.execute("DELETE FROM users")
"""
    )

    assert "2 passed" in output
