"""Text is merged by code point only where every server sorts it so; else PostgreSQL orders it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, collate, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards import create_cluster, shard_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

WORDS = shard_table(
    Table(
        "words",
        MetaData(),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("word", Text(collation="C")),
    )
)


@pytest.fixture
def windows_cluster(servers: PostgresServers) -> Iterator[Cluster]:
    """Two shards that keep text as Windows-1252, where the euro sign comes before all accents."""
    with ExitStack() as stack:
        urls = {}
        for number in range(2):
            servers.start(number)
            name = f"windows_{number}"
            server = make_url(servers.url(number))
            admin: Any = stack.enter_context(
                psycopg.connect(
                    server.set(drivername="postgresql").render_as_string(hide_password=False),
                    autocommit=True,
                )
            )
            admin.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'WIN1252' "
                "LC_COLLATE 'C' LC_CTYPE 'C'"
            )
            stack.callback(admin.execute, f"DROP DATABASE {name} WITH (FORCE)")
            urls[f"s{number}"] = server.set(database=name).render_as_string(hide_password=False)
        cluster = create_cluster(urls)
        stack.callback(cluster.dispose)
        cluster.create_all(WORDS.metadata)
        yield cluster


@pytest.mark.parametrize(
    "key", [WORDS.c.word, collate(WORDS.c.word, "C")], ids=["column", "clause"]
)
def test_bytes_of_another_encoding_are_not_code_points(windows_cluster: Cluster, key: Any) -> None:
    words = ["a", "\u20ac", "\u00e4", "\u00ff"]
    with windows_cluster.engine.begin() as connection:
        connection.execute(
            insert(WORDS), [{"id": number, "word": words[number % 4]} for number in range(16)]
        )
        ordered = connection.scalars(select(WORDS.c.word).order_by(key)).all()

    assert ordered == [word for word in words for _ in range(4)]


def test_a_collation_of_our_own_may_only_be_called_c(clean_shards: dict[str, str]) -> None:
    cluster = create_cluster(clean_shards)
    try:
        cluster.create_all(WORDS.metadata)
        for shard in cluster.shards.values():
            with shard.engine.begin() as connection:
                run = connection.exec_driver_sql
                try:
                    run("CREATE COLLATION public.\"C\" (provider = icu, locale = 'und')")
                except DBAPIError:
                    pytest.skip("this PostgreSQL has no ICU")
                run('ALTER TABLE words ALTER word TYPE text COLLATE public."C"')
        with cluster.engine.begin() as connection:
            connection.execute(
                insert(WORDS), [{"id": number, "word": "aBcD"[number % 4]} for number in range(9)]
            )
            ordered = connection.scalars(select(WORDS.c.word).order_by(WORDS.c.word)).all()
    finally:
        cluster.dispose()

    assert "".join(ordered) == "aaaBBccDD"
