"""Many keys at once: objects and rows of four shards, against one database and psycopg by hand.

One database holds the same rows as the four together. By hand, a thread for each shard asks for the
keys that the same hash gives it, as an array, and fetches rows: no objects are made of them.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mmh3 import mmh3_32_uintdigest
from sqlalchemy import create_engine, insert, select
from sqlalchemy.orm import Session

from sqlalchemy_shards import ShardedSession

from .databases import ACCOUNTS, driver_connections
from .report import compared
from .tables import Account, Base
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import psycopg
    from sqlalchemy import Connection

    from sqlalchemy_shards import Cluster

    from .report import Figure

KEYS = 1_000
NUMBERS_OF_KEYS = (1_000, 10_000)
RATIO_MAX = 1.0
"""Against plain SQLAlchemy on one database."""

BY_HAND = "SELECT id, name, balance FROM accounts WHERE id = ANY (%s::bigint[])"


def measure(
    cluster: Cluster, urls: Mapping[str, str], one: str, *, rounds: int
) -> Iterator[Figure]:
    """`get_many()`, and `IN`.

    :param one: URL of an empty database.
    """
    engine = create_engine(one)
    Base.metadata.create_all(engine)
    more = [
        {"id": key, "name": f"name {key}", "balance": key}
        for key in range(ACCOUNTS, NUMBERS_OF_KEYS[-1])
    ]
    all_rows = [{"id": key, "name": f"name {key}", "balance": key} for key in range(ACCOUNTS)]
    with engine.begin() as plain, cluster.engine.begin() as own:
        plain.execute(insert(Account), all_rows + more)
        own.execute(insert(Account), more)
    yield from _get_many(cluster, urls, engine, rounds)
    with engine.connect() as plain, cluster.engine.connect() as own:
        for count in NUMBERS_OF_KEYS:
            yield _in(own, plain, count, max(3, rounds * KEYS // count))
    engine.dispose()


def _get_many(
    cluster: Cluster, urls: Mapping[str, str], engine: Any, rounds: int
) -> Iterator[Figure]:
    keys = list(range(KEYS))
    with (
        ShardedSession(cluster) as session,
        Session(engine) as plain,
        driver_connections(urls) as drivers,
        ThreadPoolExecutor(len(urls)) as threads,
    ):

        def ours() -> None:
            assert len(session.get_many(Account, keys)) == KEYS

        def of_one() -> None:
            found = plain.scalars(select(Account).where(Account.id.in_(keys))).all()
            by_key = {each.id: each for each in found}
            assert len([by_key.get(key) for key in keys]) == KEYS

        times = take_turns(
            [
                Contender("ours", ours, after=session.expunge_all),
                Contender("plain", of_one, after=plain.expunge_all),
                Contender("by hand", _by_hand(cluster, drivers, threads, keys)),
            ],
            rounds=rounds,
            calls=1,
        )
    name = f"get_many() of {KEYS:,} keys"
    yield compared(
        name, times["ours"], times["plain"], against="plain Session", ratio_max=RATIO_MAX
    )
    yield compared(name, times["ours"], times["by hand"], against="psycopg by hand, no objects")


def _by_hand(
    cluster: Cluster,
    drivers: Mapping[str, psycopg.Connection[Any]],
    threads: ThreadPoolExecutor,
    keys: list[int],
) -> Callable[[], None]:
    placement = cluster.shard_map.keyspaces["default"].placement

    def ask(shard: str, own: list[int]) -> list[Any]:
        return drivers[shard].execute(BY_HAND, [own]).fetchall()

    def call() -> None:
        of_shards = defaultdict(list)
        for key in keys:
            bucket = mmh3_32_uintdigest(key.to_bytes(8, "big", signed=True)) % len(placement)
            of_shards[placement[bucket]].append(key)
        answers = [threads.submit(ask, *each) for each in of_shards.items()]
        by_key = {row[0]: row for answer in answers for row in answer.result()}
        assert len([by_key[key] for key in keys]) == len(keys)

    return call


def _in(own: Connection, plain: Connection, count: int, rounds: int) -> Figure:
    table: Any = Account.__table__
    keys = list(range(count))

    def reading(connection: Connection) -> Callable[[], None]:
        def read() -> None:
            statement = select(table.c.id, table.c.balance).where(table.c.id.in_(keys))
            assert len(connection.execute(statement).all()) == count

        return read

    times = take_turns(
        [Contender("ours", reading(own)), Contender("plain", reading(plain))],
        rounds=rounds,
        calls=1,
    )
    return compared(
        f"IN of {count:,} keys",
        times["ours"],
        times["plain"],
        against="plain Connection",
        ratio_max=RATIO_MAX,
    )
