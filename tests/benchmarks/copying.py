"""Rows in bulk: `copy_from` against psycopg's COPYs, fed by hand and split by the same hash."""

from __future__ import annotations

from contextlib import ExitStack
from struct import Struct
from typing import TYPE_CHECKING, Any

from mmh3 import mmh3_32_uintdigest
from sqlalchemy import text

from sqlalchemy_shards import ShardedSession

from .databases import driver_connections
from .report import compared
from .tables import Entry
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import psycopg

    from sqlalchemy_shards import Cluster

    from .report import Figure

ROWS = 200_000
ROWS_LARGE = 2_000_000
RATIO_MAX = 1.15

COLUMNS = ("id", "name", "amount")
_COPY = b"COPY entries (id, name, amount) FROM STDIN (FORMAT binary)"
_pack = Struct(">q").pack


def measure(
    cluster: Cluster, urls: Mapping[str, str], *, rounds: int, rows: int = ROWS
) -> Iterator[Figure]:
    """Copies of tuples and of mappings; commits are not timed."""
    kinds: tuple[tuple[str, Callable[[], Iterator[Any]]], ...] = (
        ("tuples", lambda: ((key, f"name {key}", key) for key in range(rows))),
        (
            "mappings",
            lambda: ({"id": key, "name": f"name {key}", "amount": key} for key in range(rows)),
        ),
    )
    with driver_connections(urls) as drivers:
        for kind, make in kinds:
            contenders = [
                _by_hand(cluster, drivers, make, are_mappings=kind == "mappings"),
                _ours(cluster, make, columns=COLUMNS if kind == "tuples" else None),
            ]
            times = take_turns(contenders, rounds=rounds, calls=1)
            yield compared(
                f"copy_from of {rows:,} {kind}, 4 shards",
                times["ours"],
                times["by hand"],
                against="4 COPYs of psycopg by hand",
                ratio_max=RATIO_MAX,
            )


def _by_hand(
    cluster: Cluster,
    drivers: Mapping[str, psycopg.Connection[Any]],
    make: Callable[[], Iterator[Any]],
    *,
    are_mappings: bool,
) -> Contender:
    placement = cluster.territory.shard_map.keyspaces["default"].placement

    def copy() -> None:
        with ExitStack() as stack:
            copies = {}
            for name, driver in drivers.items():
                copies[name] = stack.enter_context(driver.cursor().copy(_COPY))
                copies[name].set_types(["int8", "varchar", "int4"])
            by_bucket = [copies[shard] for shard in placement]
            buckets = len(by_bucket)
            for row in make():
                values = (row["id"], row["name"], row["amount"]) if are_mappings else row
                bucket = mmh3_32_uintdigest(_pack(values[0])) % buckets
                by_bucket[bucket].write_row(values)

    def after() -> None:
        for driver in drivers.values():
            driver.rollback()

    return Contender("by hand", copy, lambda: _empty(cluster), after)


def _ours(
    cluster: Cluster, make: Callable[[], Iterator[Any]], *, columns: tuple[str, ...] | None
) -> Contender:
    held: list[ShardedSession] = []

    def before() -> None:
        _empty(cluster)
        held.append(ShardedSession(cluster))

    def after() -> None:
        with held.pop() as session:
            session.rollback()

    return Contender(
        "ours", lambda: held[0].copy_from(Entry, make(), columns=columns), before, after
    )


def _empty(cluster: Cluster) -> None:
    """Leave no dead rows of earlier rounds."""
    with cluster.engine.begin() as connection:
        connection.execute(text("TRUNCATE entries"), execution_options={"shard": "*"})
