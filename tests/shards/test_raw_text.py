"""Raw SQL beside a shard key: it must not reach beyond its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    and_,
    delete,
    insert,
    literal_column,
    or_,
    select,
    text,
    update,
)

from sqlalchemy_shards import Cluster, create_cluster, shard_table
from sqlalchemy_shards.errors import UnsupportedStatement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

METADATA = MetaData()
ITEMS = shard_table(
    Table(
        "items",
        METADATA,
        Column("k", Integer, primary_key=True, autoincrement=False),
        Column("x", Integer),
    ),
    key="k",
)


@pytest.fixture
def cluster(clean_shards: Mapping[str, str]) -> Iterator[Cluster]:
    cluster = create_cluster(clean_shards)
    cluster.create_all(METADATA)
    with cluster.engine.begin() as connection:
        connection.execute(insert(ITEMS), [{"k": k, "x": k % 3} for k in range(30)])
    yield cluster
    cluster.dispose()


ONE_KEY = ITEMS.c.k == 5

OPEN: Mapping[str, Callable[[], Any]] = {
    "text with OR": lambda: select(ITEMS).where(ONE_KEY, text("x = 1 or x > 0")),
    "a literal column with OR": lambda: select(ITEMS).where(ONE_KEY, literal_column("x=1 OR x=2")),
    "an open parenthesis": lambda: select(ITEMS).where(ONE_KEY, text("x = 1) or (x = 2")),
    "a comment": lambda: select(ITEMS).where(text("x = 1 --"), ONE_KEY),
    "an operator": lambda: select(ITEMS).where(
        ONE_KEY, (ITEMS.c.x == 1).op("OR", precedence=10)(ITEMS.c.x == 2)
    ),
    "a suffix": lambda: select(ITEMS).where(ONE_KEY).suffix_with("OR true"),
    "a subquery's text": lambda: select(ITEMS).where(
        ITEMS.c.k.in_(select(ITEMS.c.k).where(ONE_KEY, text("1=0 or true"))), ONE_KEY
    ),
    "a join": lambda: select(ITEMS).join(ITEMS.alias("other"), and_(text("1=0 or true"), ONE_KEY)),
    "an update": lambda: update(ITEMS).where(ONE_KEY, text("x = 1 or x > 0")).values(x=9),
    "a delete": lambda: delete(ITEMS).where(ONE_KEY, text("x = 1 or x > 0")),
}


@pytest.mark.parametrize("name", OPEN)
def test_text_that_may_reach_beyond_its_place_is_refused(cluster: Cluster, name: str) -> None:
    with cluster.engine.begin() as connection, pytest.raises(UnsupportedStatement) as refused:
        connection.execute(OPEN[name]())

    assert "raw SQL text" in str(refused.value) or "operator" in str(refused.value)
    with cluster.engine.connect() as connection:
        assert len(connection.execute(select(ITEMS).where(ITEMS.c.x < 9)).all()) == 30


CLOSED: Mapping[str, Callable[[], Any]] = {
    "a comparison": lambda: select(ITEMS.c.k).where(ONE_KEY, text("x = 2")),
    "OR in parentheses": lambda: select(ITEMS.c.k).where(ONE_KEY, text("(x = 1 or x = 2)")),
    "OR in quotes": lambda: select(ITEMS.c.k).where(ONE_KEY, text("'a or b' > ''")),
    "or_() around it": lambda: select(ITEMS.c.k).where(ONE_KEY, or_(text("x = 1"), text("x = 2"))),
    "a word with or in it": lambda: select(ITEMS.c.k).where(ONE_KEY, text("floor(x) = 2")),
    "an operator": lambda: select(ITEMS.c.k).where(ONE_KEY, ITEMS.c.x.op("%")(3) == 2),
}


@pytest.mark.parametrize("name", CLOSED)
def test_text_that_stays_in_its_place_is_answered_by_the_shard_of_the_key(
    cluster: Cluster, name: str
) -> None:
    statement = CLOSED[name]()

    with cluster.engine.connect() as connection:
        assert connection.execute(statement).scalars().all() == [5]
    assert cluster.explain(statement).shards == (cluster.shard_for(ITEMS, 5),)
