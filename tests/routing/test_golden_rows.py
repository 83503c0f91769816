"""No shard beside the golden list's holds a row that matches: each is asked on its own."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sqlalchemy_shards import create_cluster
from sqlalchemy_shards.topology.generated_id import FIRST_MILLISECOND, IdParts, id_of
from tests.databases import own_urls
from tests.routing import world
from tests.routing.golden import cases
from tests.routing.test_golden_routes import FILES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

# A row comes of no row (count(*), 1), or is the same on every shard.
ANYWHERE = ("select(func.count())", "select(Country)", "select(literal(1))", "select(NUMBERS)")
YEARS = (1, 1899, 1900, 1901, 1920, 1949, 1950, 1970, 1971, 1999, 2000, 2001, 2019, 2020, 2021)


@pytest.fixture(scope="module")
def filled(servers: PostgresServers) -> Iterator[Cluster]:
    with ExitStack() as stack:
        urls = stack.enter_context(own_urls(servers, "golden_rows", world.SHARDS, spread=True))
        cluster = create_cluster(urls, keyspaces=world.keyspaces(), global_shard=world.GLOBAL_SHARD)
        stack.callback(cluster.dispose)
        cluster.create_all(world.Base.metadata)
        with Session(cluster.engine) as session, session.begin():
            session.add_all(rows(cluster))
        yield cluster


def rows(cluster: Cluster) -> Iterator[Any]:
    names = ("a", "b", None)
    countries = [
        world.Country(code=code, rank=rank, name=f"country {code}")
        for code, rank in ((1, 2), (2, 1), (3, None), (6, 9))
    ]
    labels = [world.Label(id=number) for number in (1, 2)]
    yield from (*countries, *labels, world.Setting(id=1), world.Setting(id=2))
    for key in (1, 2, 3, 5, 6, 9, 77, 1970):
        orders = [
            world.Order(id=number, amount=(1, 2, None, 6, 5)[(key + number) % 5])
            for number in (1, 5, key + 100)
        ]
        orders[1].items.append(world.Item(line=1))
        yield world.User(
            id=key,
            name=names[key % 3],
            score=(1, 2, key, None)[key % 4],
            country=countries[key % 3],
            labels=labels[: key % 3],
            orders=orders,
        )
    for year in YEARS:
        id_ = id_of(IdParts(FIRST_MILLISECOND + year, cluster.bucket_for(world.Event, year), 0, 0))
        yield world.Ticket(id=id_, year=year, seat=1)
        yield from (world.Event(year=year, id=each, title="a") for each in (1, 5, 2100))
    for bucket, year in enumerate((1800, 1910, 1970, 2020)):
        yield world.Ticket(id=world.id_in(bucket), year=year, seat=1)
    for region in ("north", "arctic", "south", "west", "North", "north ", "elsewhere"):
        yield world.Store(region=region, id=1, size=1)
    for region in ("north", "south"):
        for number in (5, 9, 10, 12, 15, 20, 25):
            yield world.Plot(region=region, number=number, size=5, visits=[world.Visit(id=1)])
    yield from (world.Pair(left=left, right=right) for left in (1, 2, 3) for right in (1, 2, 3))
    yield from (world.Invoice(code=f"{name}-1", total=1) for name in ("acme", "fern", "bolt"))
    yield from (world.Parcel(number=number, weight=5) for number in (3, 4, 5, 6))
    yield from (world.Word(text=text, count=1) for text in ("a", "hare", "h", "p", "zebra", "H"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
@pytest.mark.parametrize("name", FILES)
def test_no_other_shard_holds_a_matching_row(filled: Cluster, name: str) -> None:
    missed = {}
    for case in cases(name):
        statement, parameters = case.made()
        if isinstance(statement, Select) and not case.statement.startswith(ANYWHERE):
            holders = shards_with(filled, statement, parameters)
            if not holders <= set(case.expected.split()):
                missed[case.statement] = holders

    assert missed == {}


def shards_with(cluster: Cluster, statement: Any, parameters: Any) -> set[str]:
    """The shards whose own rows match; none where PostgreSQL does not compare such types."""
    found = set()
    for name, shard in cluster.shards.items():
        with shard.engine.connect() as connection:
            try:
                if connection.execute(statement, parameters).first() is not None:
                    found.add(name)
            except DBAPIError:
                return set()
    return found
