"""A module's own tables on a cluster and in one PostgreSQL, and how many of their rows are shipped.

How many rows came is told by the limit: so many are allowed, one less is not.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, func, select

from sqlalchemy_shards import GatherLimit, create_cluster
from sqlalchemy_shards.errors import GatherLimitExceeded
from tests.databases import libpq_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import MetaData

    from sqlalchemy_shards import Cluster

ONE = "one"
"""Name of the database that is no shard and has the rows of all."""

_WITH_ICU = (
    "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
)
_WITHOUT_ICU = 'CREATE COLLATION any_case FROM "C"'


@contextmanager
def filled_cluster(
    databases: Mapping[str, str], name: str, metadata: MetaData, fill: Callable[[Any], None]
) -> Iterator[Cluster]:
    """A cluster of all databases but `ONE`."""
    shards = {shard: url for shard, url in databases.items() if shard != ONE}
    cluster = create_cluster(shards, name=name)
    try:
        cluster.create_all(metadata)
        with cluster.engine.begin() as connection:
            fill(connection)
        yield cluster
    finally:
        cluster.dispose()


@contextmanager
def filled_engine(
    databases: Mapping[str, str], metadata: MetaData, fill: Callable[[Any], None]
) -> Iterator[Engine]:
    """SQLAlchemy's own engine for `ONE`, with the same rows."""
    engine = create_engine(databases[ONE])
    try:
        metadata.create_all(engine)
        with engine.begin() as connection:
            fill(connection)
        yield engine
    finally:
        engine.dispose()


def analyze(databases: Mapping[str, str]) -> None:
    """Let the planner of each shard know its rows."""
    for shard, url in databases.items():
        if shard != ONE:
            with psycopg.connect(libpq_url(url), autocommit=True) as driver:
                driver.execute("ANALYZE")


def create_collations(databases: Mapping[str, str]) -> None:
    """Under `any_case` some texts are equal that differ, where PostgreSQL was built with ICU."""
    for url in databases.values():
        with psycopg.connect(libpq_url(url), autocommit=True) as driver:
            query = "SELECT count(*) FROM pg_collation WHERE collname = 'und-x-icu'"
            (count,) = driver.execute(query).fetchone() or (0,)
            driver.execute(_WITH_ICU if count else _WITHOUT_ICU)


def answers(bind: Any, statement: Any, *given: Any, **options: Any) -> list[Any]:
    """The rows of a statement, in an order that says nothing."""
    with bind.connect() as connection:
        rows = connection.execute(statement, *given, execution_options=options).all()
    return sorted(map(tuple, rows), key=repr)


def check_ships(cluster: Cluster, one: Engine, statement: Any, rows: int) -> None:
    """Compare the answer with that of one database, and see that so many rows were shipped."""
    expected = answers(one, statement)
    assert answers(cluster.engine, statement, gather_limit=GatherLimit(rows=rows)) == expected
    if rows > 1:
        with pytest.raises(GatherLimitExceeded):
            answers(cluster.engine, statement, gather_limit=GatherLimit(rows=rows - 1))


def count(one: Engine, condition: Any, *tables: Any) -> int:
    """How many rows meet a condition."""
    with one.connect() as connection:
        statement = select(func.count()).select_from(*tables).where(condition)
        return connection.scalar(statement) or 0
