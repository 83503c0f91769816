"""SQL that does not name its columns gives the same ones from every shard, or is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, literal_column, select, text

from sqlalchemy_shards import Cluster, create_cluster, shard_table
from sqlalchemy_shards.errors import UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import Iterator

METADATA = MetaData()
ITEMS = shard_table(
    Table("items", METADATA, Column("id", Integer, primary_key=True, autoincrement=False)),
    key="id",
)
EVERYWHERE = {"shard": "*"}


@pytest.fixture
def shards(clean_shards: dict[str, str]) -> dict[str, str]:
    return {name: clean_shards[name] for name in ("s0", "s1")}


@pytest.fixture
def cluster(shards: dict[str, str]) -> Iterator[Cluster]:
    cluster = create_cluster(shards)
    yield cluster
    cluster.dispose()


def define(cluster: Cluster, *definitions: str) -> None:
    for shard, definition in zip(cluster.shards.values(), definitions, strict=True):
        with shard.engine.begin() as connection:
            connection.execute(text(definition))
            connection.execute(text("INSERT INTO items (id) VALUES (1)"))


STAR = {
    "driver SQL": text("SELECT * FROM items"),
    "without a star": text("TABLE items"),
    "a star of Core": select(literal_column("*")).select_from(ITEMS),
    "rows that are returned": text("UPDATE items SET id = id RETURNING *"),
}


@pytest.mark.parametrize("name", STAR)
@pytest.mark.parametrize(
    ("second", "told"),
    [
        ("(b text, a text, id int)", "'id' as column 1 on 's0', 'b' as column 1 on 's1'"),
        ("(id int, a text)", "'b' as column 3 on 's0', 2 columns on 's1'"),
        ("(id int, a text, b text, c text)", "3 columns on 's0', 'c' as column 4 on 's1'"),
        ("(id numeric, a text, b text)", "'id' of type int4 on 's0', 'id' of type numeric on 's1'"),
    ],
)
def test_other_columns_are_refused(cluster: Cluster, name: str, second: str, told: str) -> None:
    define(cluster, "CREATE TABLE items (id int, a text, b text)", f"CREATE TABLE items {second}")

    with cluster.engine.connect() as connection, pytest.raises(UnsupportedStatement) as refused:
        connection.execute(STAR[name], execution_options=EVERYWHERE)

    assert f"the shards give other columns: {told}; name the columns" in str(refused.value)


@pytest.mark.parametrize("name", STAR)
def test_columns_that_python_reads_alike_are_put_together(cluster: Cluster, name: str) -> None:
    define(
        cluster,
        "CREATE TYPE gap AS ENUM ('x'); CREATE TYPE mood AS ENUM ('a'); "
        "CREATE TABLE items (id int, a text, b mood)",
        "CREATE TYPE mood AS ENUM ('a'); CREATE TABLE items (id bigint, a varchar(3), b mood)",
    )

    with cluster.engine.connect() as connection:
        rows = connection.execute(STAR[name], execution_options=EVERYWHERE).all()

    assert [tuple(row) for row in rows] == [(1, None, None)] * 2


def test_columns_that_are_named_may_stand_in_any_order(cluster: Cluster) -> None:
    define(cluster, "CREATE TABLE items (id int, a text)", "CREATE TABLE items (a text, id int)")

    with cluster.engine.connect() as connection:
        rows = connection.execute(select(ITEMS.c.id), execution_options=EVERYWHERE).all()

    assert [tuple(row) for row in rows] == [(1,), (1,)]
