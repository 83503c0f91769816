"""The 22 queries of TPC-H: four shards against one PostgreSQL, and the rows that are shipped.

The one database is on the first server, which also is the workspace and has one of the shards.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import create_engine

from sqlalchemy_shards import GatherLimit, create_cluster
from sqlalchemy_shards.testing.databases import ScratchDatabase
from tests.tpch.data import fill_cluster, fill_database, generated
from tests.tpch.inputs import INPUTS, size_of
from tests.tpch.queries import statements

from .report import compared
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Connection, Engine, Select

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

    from .report import Figure

SCALE = 0.1
SHIPPING = ("keys", "ship", "ship again")
# What is measured is the work, not where it is refused.
LIMIT = GatherLimit(rows=10_000_000, bytes=2**31)


@dataclass(frozen=True)
class Databases:
    """The same rows twice."""

    cluster: Cluster
    one: Engine


@contextmanager
def filled(
    servers: PostgresServers, urls: Mapping[str, str], *, scale: float
) -> Iterator[Databases]:
    """A cluster and one database with the tables of a scale."""
    with ScratchDatabase(servers.url(0), "tpch_one") as database, generated(scale) as directory:
        one = create_engine(database.url)
        cluster = create_cluster(urls, name="tpch", gather_limit=LIMIT)
        try:
            fill_database(one, directory)
            fill_cluster(cluster, directory)
            yield Databases(cluster, one)
        finally:
            cluster.dispose()
            one.dispose()


def measure(databases: Databases, *, rounds: int) -> Iterator[Figure]:
    """Each query; the details tell the rows that are shipped, and those that its inputs have."""
    with databases.cluster.engine.connect() as own, databases.one.connect() as one:
        for name, statement in statements():
            shipped = _shipped(databases.cluster, statement)
            wanted = size_of(one, INPUTS[name]).rows
            times = take_turns(
                [
                    Contender("ours", _reading(own, statement)),
                    Contender("one", _reading(one, statement)),
                ],
                rounds=rounds,
                calls=1,
            )
            figure = compared(
                f"TPC-H {name}, ships {shipped:,} rows of {wanted:,}",
                times["ours"],
                times["one"],
                against="one PostgreSQL",
            )
            details = {"shipped_rows": shipped, "rows_of_inputs": wanted}
            yield replace(
                figure, goal=f"ships <= {wanted:,}", is_met=shipped <= wanted, details=details
            )


def _reading(connection: Connection, statement: Select[tuple[object, ...]]) -> Callable[[], object]:
    return lambda: connection.execute(statement).all()


def _shipped(cluster: Cluster, statement: Select[tuple[object, ...]]) -> int:
    measured = cluster.explain(statement, analyze=True).measured
    assert measured is not None
    return sum(step.rows or 0 for step in measured.steps if step.name in SHIPPING)
