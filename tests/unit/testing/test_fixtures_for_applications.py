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
