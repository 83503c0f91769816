"""Many rows at once: through the session, Core and the ORM, against psycopg by hand and plain.

Rows of all contenders go to the same four databases or to the first of them; commits are not timed.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from sqlalchemy_shards import ShardedSession

from .databases import driver_connections, plain_engine, reached_cluster
from .delay import delayed
from .flush import empty, flushing
from .report import compared
from .tables import Entry, StampedEntry
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import psycopg
    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster

    from .report import Figure

OBJECTS = 20_000
ROWS = 200_000
FLUSH_MAX, CORE_MAX, ORM_MAX = 1.1, 1.25, 0.9
DELAY_SECONDS = 0.001


def measure(
    cluster: Cluster, urls: Mapping[str, str], *, factor: float, rounds: int
) -> Iterator[Figure]:
    """Inserts into four shards.

    :param factor: this part of the rows, where there is less time.
    """
    rows = [
        {"id": key, "name": f"name {key}", "amount": key} for key in range(round(ROWS * factor))
    ]
    objects = round(OBJECTS * factor)
    first = urls[next(iter(urls))]
    with plain_engine(first) as engine:
        yield from _flushes(cluster, engine, objects, rounds)
        yield _orm(cluster, engine, rows, rounds)
    yield _core(cluster, urls, rows, rounds)
    with (
        delayed(urls, seconds=DELAY_SECONDS) as late,
        reached_cluster(late) as away,
        plain_engine(late[next(iter(late))]) as engine,
    ):
        yield from _flushes(away, engine, objects, rounds, how=", servers 1 ms away")


def _flushes(
    cluster: Cluster, engine: Engine, objects: int, rounds: int, how: str = ""
) -> Iterator[Figure]:
    ratio_max = 1.0 if how else FLUSH_MAX
    for what, make in (("", _entry), (", value fetched", _stamped)):

        def prepare(session: Session, make: Callable[[int], Any] = make) -> None:
            session.add_all([make(key) for key in range(objects)])
            session.connection()

        times = take_turns(
            [
                flushing("plain", cluster, lambda: Session(engine), prepare),
                flushing("ours", cluster, lambda: ShardedSession(cluster), prepare),
            ],
            rounds=rounds,
            calls=1,
        )
        yield compared(
            f"flush of {objects:,} inserts{what}{how}",
            times["ours"],
            times["plain"],
            against="plain Session, one database",
            ratio_max=ratio_max,
        )


def _entry(key: int) -> Entry:
    return Entry(id=key, name=f"name {key}", amount=key)


def _stamped(key: int) -> StampedEntry:
    return StampedEntry(id=key, name=f"name {key}")


def _orm(cluster: Cluster, engine: Engine, rows: Sequence[dict[str, Any]], rounds: int) -> Figure:
    def contender(name: str, make: Callable[[], Session]) -> Contender:
        return _emptied(cluster, name, make, lambda session: session.execute(insert(Entry), rows))

    times = take_turns(
        [
            contender("plain", lambda: Session(engine)),
            contender("ours", lambda: ShardedSession(cluster)),
        ],
        rounds=rounds,
        calls=1,
    )
    return compared(
        f"ORM insert(Model) of {len(rows):,} rows",
        times["ours"],
        times["plain"],
        against="plain Session, one database",
        ratio_max=ORM_MAX,
    )


def _core(
    cluster: Cluster, urls: Mapping[str, str], rows: Sequence[dict[str, Any]], rounds: int
) -> Figure:
    statement = insert(Entry.__table__)
    with _by_hand(cluster, urls, rows) as by_hand:
        ours = _emptied(
            cluster, "ours", cluster.engine.connect, lambda each: each.execute(statement, rows)
        )
        times = take_turns([by_hand, ours], rounds=rounds, calls=1)
    return compared(
        f"Core insert(table) of {len(rows):,} rows",
        times["ours"],
        times["by hand"],
        against="4 concurrent executemany of psycopg by hand",
        ratio_max=CORE_MAX,
    )


@contextmanager
def _by_hand(
    cluster: Cluster, urls: Mapping[str, str], rows: Sequence[dict[str, Any]]
) -> Iterator[Contender]:
    """Split by the cluster's hash, then `executemany` of psycopg in a thread for each shard."""
    sql = b"INSERT INTO entries (id, name, amount) VALUES (%(id)s, %(name)s, %(amount)s)"

    def execute(connection: psycopg.Connection[Any], own: Sequence[dict[str, Any]]) -> None:
        with connection.cursor() as cursor:
            cursor.executemany(sql, own)

    with driver_connections(urls) as connections, ThreadPoolExecutor(len(urls)) as threads:

        def call() -> None:
            split: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
            for row in rows:
                split[cluster.shard_for(Entry, row["id"])].append(row)
            begun = [
                threads.submit(execute, connections[shard], own) for shard, own in split.items()
            ]
            for each in begun:
                each.result()

        def after() -> None:
            for connection in connections.values():
                connection.rollback()

        yield Contender("by hand", call, lambda: empty(cluster), after)


def _emptied(
    cluster: Cluster, name: str, make: Callable[[], Any], call: Callable[[Any], Any]
) -> Contender:
    """A contender that runs in a session or connection, which is rolled back."""
    held: list[Any] = []

    def before() -> None:
        empty(cluster)
        held.append(make())

    def after() -> None:
        with held.pop() as session:
            session.rollback()

    return Contender(name, lambda: call(held[0]), before, after)
