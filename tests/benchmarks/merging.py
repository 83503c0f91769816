"""Many rows on four shards: the first ten of an order, and a thousand groups.

Against the same work by hand: psycopg sends to all shards before it reads the first answer, and
merges what comes. On few cores the shards get in each other's way, by hand as well.
"""

from __future__ import annotations

import heapq
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from psycopg.pq import ExecStatus
from sqlalchemy import BigInteger, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqlalchemy_shards import (
    GatherLimit,
    Keyspace,
    RangePartitioner,
    ShardKeyMixin,
    create_cluster,
)

from .databases import driver_connections, plain_engine
from .report import compared
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import psycopg
    from sqlalchemy import Connection

    from sqlalchemy_shards import Cluster

    from .report import Figure

ROWS_PER_SHARD = 1_000_000
GROUPS = 1_000
TOP = 10
# What is measured is the work, not where it is refused.
LIMIT = GatherLimit(rows=10_000_000, bytes=2**31)
TOP_RATIO_MAX = 1.3
GROUPS_RATIO_MAX = 1.2


class Base(DeclarativeBase):
    pass


class Reading(ShardKeyMixin, Base):
    """Ranges of ids, so that each server makes its own rows."""

    __tablename__ = "readings"
    __shard_key__ = "id"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[int]
    value: Mapped[int]


BY_KEY = select(Reading.id, Reading.value).order_by(Reading.id.desc()).limit(TOP)
BY_VALUE = select(Reading.id, Reading.value).order_by(Reading.value, Reading.id).limit(TOP)
GROUPED = select(Reading.kind, func.count(), func.sum(Reading.value)).group_by(Reading.kind)

BY_KEY_SQL = b"SELECT id, value FROM readings ORDER BY id DESC LIMIT 10"
BY_VALUE_SQL = b"SELECT id, value FROM readings ORDER BY value, id LIMIT 10"
GROUPED_SQL = b"SELECT kind, count(*), sum(value) FROM readings GROUP BY kind"


_FILL = b"""
INSERT INTO readings (id, kind, value)
SELECT id, mod(id, %(groups)s), mod(id * 7919, 1000003)
FROM generate_series(%(first)s::bigint, %(last)s) AS id
"""


@contextmanager
def readings(urls: Mapping[str, str], *, rows_per_shard: int) -> Iterator[Cluster]:
    """A cluster with that many rows on each of its shards."""
    firsts = [rows_per_shard * number for number in range(len(urls))]
    keyspaces = {"default": Keyspace(RangePartitioner(firsts[1:]))}
    cluster = create_cluster(urls, name="bench", keyspaces=keyspaces, gather_limit=LIMIT)
    try:
        cluster.create_all(Base.metadata)
        for first in firsts:
            numbers = {"groups": GROUPS, "first": first, "last": first + rows_per_shard - 1}
            with cluster.connect(cluster.shard_for(Reading, first)) as driver:
                driver.execute(_FILL, numbers)
                driver.commit()
                driver.autocommit = True
                driver.execute("VACUUM (ANALYZE) readings")
        yield cluster
    finally:
        cluster.dispose()


def measure(cluster: Cluster, urls: Mapping[str, str], *, rounds: int) -> Iterator[Figure]:
    """The first rows of two orders, one of them with an index; groups."""
    with cluster.engine.connect() as own, driver_connections(urls) as drivers:
        for name, statement, sql, calls in (
            (f"top {TOP}, by the primary key", BY_KEY, BY_KEY_SQL, 5),
            (f"top {TOP}, sorted by each shard", BY_VALUE, BY_VALUE_SQL, 1),
        ):
            _check_fetched(cluster, statement)
            _check_answer(own, statement, _top_by_hand(drivers, sql))
            times = take_turns(
                [
                    Contender("ours", _reading(own, statement)),
                    Contender("by hand", lambda sql=sql: _top_by_hand(drivers, sql)),  # type: ignore[misc]
                ],
                rounds=rounds,
                calls=calls,
            )
            yield compared(
                name,
                times["ours"],
                times["by hand"],
                against="psycopg by hand",
                ratio_max=TOP_RATIO_MAX,
            )
        yield from _groups(own, urls, drivers, rounds=max(3, rounds // 2))


def _groups(
    own: Connection,
    urls: Mapping[str, str],
    drivers: Mapping[str, psycopg.Connection],
    *,
    rounds: int,
) -> Iterator[Figure]:
    name = f"GROUP BY, {GROUPS:,} groups"
    first = next(iter(urls))
    with plain_engine(urls[first]) as engine, engine.connect() as plain:
        contenders = [
            Contender("ours", _reading(own, GROUPED)),
            Contender("at once", lambda: _at_once(drivers, GROUPED_SQL)),
            Contender("alone", _reading(plain, GROUPED)),
        ]
        times = take_turns(contenders, rounds=rounds, calls=1)
    yield compared(
        name,
        times["ours"],
        times["at once"],
        against="the shards' partial queries at once",
        ratio_max=GROUPS_RATIO_MAX,
    )
    yield compared(
        name, times["ours"], times["alone"], against="one shard's partial query, others idle"
    )


def _check_fetched(cluster: Cluster, statement: Any) -> None:
    measured = cluster.explain(statement, analyze=True).measured
    assert measured is not None
    fetched = [step.rows for step in measured.steps if step.name == "run"]
    assert fetched == [TOP] * len(cluster.shards), fetched


def _check_answer(own: Connection, statement: Any, by_hand: list[tuple[int, ...]]) -> None:
    assert [tuple(row) for row in own.execute(statement)] == by_hand


def _reading(connection: Connection, statement: Any) -> Callable[[], Any]:
    return lambda: connection.execute(statement).all()


def _top_by_hand(drivers: Mapping[str, psycopg.Connection], sql: bytes) -> list[tuple[int, ...]]:
    answers = _at_once(drivers, sql)
    if sql is BY_KEY_SQL:
        merged = heapq.merge(*answers, key=lambda row: -row[0])
    else:
        merged = heapq.merge(*answers, key=lambda row: (row[1], row[0]))
    return list(islice(merged, TOP))


def _at_once(drivers: Mapping[str, psycopg.Connection], sql: bytes) -> list[list[tuple[int, ...]]]:
    """Send to all before the first answer is read; numbers are all that is understood."""
    for driver in drivers.values():
        driver.pgconn.send_query(sql)
    return [_rows(driver) for driver in drivers.values()]


def _rows(driver: psycopg.Connection) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    while (result := driver.pgconn.get_result()) is not None:
        assert result.status == ExecStatus.TUPLES_OK, result.error_message
        columns = range(result.nfields)
        found += (
            tuple(int(result.get_value(row, column) or b"") for column in columns)
            for row in range(result.ntuples)
        )
    return found
