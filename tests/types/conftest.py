"""A table of each type, with the same rows in one database and on three shards."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine

from sqlalchemy_shards import create_cluster, shard_table
from tests.databases import libpq_url, own_urls
from tests.types.kinds import KINDS, SETUP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

SHARDS = 3
COPIES = 3
"""How often each value is there."""


@dataclass
class Typed:
    """The tables, and where they are."""

    cluster: Cluster
    one: Engine
    tables: dict[str, Table]
    missing: dict[str, str] = field(default_factory=dict)

    def table(self, name: str) -> Table:
        """The table of a kind; skips the test where the server lacks the type."""
        if name in self.missing:
            pytest.skip(self.missing[name])
        return self.tables[name]


@pytest.fixture(scope="module")
def typed_world(servers: PostgresServers) -> Iterator[Typed]:
    """Filled once for each module; nobody changes it."""
    with ExitStack() as stack:
        shards = [f"s{number}" for number in range(SHARDS)]
        urls = stack.enter_context(own_urls(servers, "types", shards, spread=True))
        one_url = stack.enter_context(own_urls(servers, "types", ["one"]))["one"]
        missing = _prepare([one_url, *urls.values()])
        one = create_engine(one_url)
        stack.callback(one.dispose)
        cluster = create_cluster(urls, name="types")
        stack.callback(cluster.dispose)
        world = Typed(cluster, one, _tables(), missing)
        _fill(world, one_url, urls)
        yield world


def _prepare(urls: Sequence[str]) -> dict[str, str]:
    """Make types, whose OIDs differ from database to database; say what the servers lack."""
    missing = {}
    for number, url in enumerate(urls):
        with _connect(url) as connection:
            for other in range(number):
                connection.execute(f"CREATE TYPE other_{other} AS ENUM ('x')".encode())
            for statement in SETUP.split(";"):
                connection.execute(statement.encode())
            for name, kind in KINDS.items():
                try:
                    if kind.extension not in (None, "xml"):
                        connection.execute(f"CREATE EXTENSION {kind.extension}".encode())
                    connection.execute(
                        f"SELECT CAST(%s AS {kind.sql.partition(' COLLATE')[0]})".encode(),
                        (kind.values[0],),
                    )
                except psycopg.errors.FeatureNotSupported as error:
                    missing[name] = str(error).splitlines()[0]
    return missing


def _tables() -> dict[str, Table]:
    metadata = MetaData()
    return {
        name: shard_table(
            Table(
                f"kind {number}",
                metadata,
                Column("id", Integer, primary_key=True, autoincrement=False),
                Column("g", Integer),
                Column("v", kind.type_),
            )
        )
        for number, (name, kind) in enumerate(KINDS.items())
    }


def _fill(world: Typed, one: str, urls: dict[str, str]) -> None:
    homes = {
        number: world.cluster.shard_for(world.tables["integer"], number) for number in range(60)
    }
    for shard, url in {None: one, **urls}.items():
        with _connect(url) as connection:
            for name, table in world.tables.items():
                if name in world.missing:
                    continue
                kind = KINDS[name]
                columns = f"id int PRIMARY KEY, g int, v {kind.sql}"
                connection.execute(f'CREATE TABLE "{table.name}" ({columns})'.encode())
                rows = [
                    (number, number % 2, value)
                    for number, value in enumerate([*kind.values] * COPIES)
                    if shard in (None, homes[number])
                ]
                with connection.cursor() as cursor:
                    cursor.executemany(
                        f'INSERT INTO "{table.name}" VALUES (%s, %s, %s)'.encode(), rows
                    )


def _connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(libpq_url(url), autocommit=True)
