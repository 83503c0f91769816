"""The groups of measurements, by name: what `python -m tests.benchmarks GROUP` runs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import (
    async_single,
    commit,
    consistent,
    copying,
    flush,
    inserts,
    keys,
    merging,
    migrations,
    planning,
    recovering,
    routing,
    scatter,
    single_shard,
    throughput,
    tpch,
    work,
)
from .databases import filled_cluster, reached_cluster, shard_urls, start_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.testing.servers import PostgresServers

    from .report import Figure


@dataclass(frozen=True, slots=True)
class Bench:
    """What the groups are measured on.

    :param factor: which part of the rounds, and of what takes long to fill, is done.
    """

    servers: PostgresServers
    backend: str
    factor: float

    def rounds(self, number: int) -> int:
        """How many of so many rounds."""
        return max(3, round(number * self.factor))

    def filled(self, stack: ExitStack, count: int = 4) -> tuple[Cluster, Mapping[str, str]]:
        """A filled cluster of so many shards, and their URLs, until the stack is unwound."""
        urls = stack.enter_context(shard_urls(self.servers, count))
        return stack.enter_context(filled_cluster(urls)), urls


def _routing(bench: Bench) -> Iterator[Figure]:
    yield from routing.measure(rounds=bench.rounds(400))


def _planning(bench: Bench) -> Iterator[Figure]:
    with ExitStack() as stack:
        cluster, _ = bench.filled(stack)
        yield from planning.measure(cluster, rounds=bench.rounds(100))


def _single(bench: Bench) -> Iterator[Figure]:
    with ExitStack() as stack:
        yield from single_shard.measure(*bench.filled(stack), rounds=bench.rounds(400))


def _async(bench: Bench) -> Iterator[Figure]:
    with ExitStack() as stack:
        yield from async_single.measure(*bench.filled(stack), rounds=bench.rounds(400))


def _work(bench: Bench) -> Iterator[Figure]:
    with ExitStack() as stack:
        yield from work.measure(*bench.filled(stack))


def _throughput(bench: Bench) -> Iterator[Figure]:
    with ExitStack() as stack:
        yield from throughput.measure(*bench.filled(stack), rounds=bench.rounds(40))


def _flush(bench: Bench) -> Iterator[Figure]:
    with ExitStack() as stack:
        yield from flush.measure(*bench.filled(stack), rounds=bench.rounds(12))


def _inserts(bench: Bench) -> Iterator[Figure]:
    with ExitStack() as stack:
        cluster, urls = bench.filled(stack)
        yield from inserts.measure(cluster, urls, factor=bench.factor, rounds=bench.rounds(7))


def _copying(bench: Bench) -> Iterator[Figure]:
    rows = max(copying.ROWS // 4, round(copying.ROWS * bench.factor))
    with ExitStack() as stack:
        yield from copying.measure(*bench.filled(stack), rounds=bench.rounds(10), rows=rows)


def _copying_millions(bench: Bench) -> Iterator[Figure]:
    with ExitStack() as stack:
        cluster, urls = bench.filled(stack)
        yield from copying.measure(cluster, urls, rounds=bench.rounds(5), rows=copying.ROWS_LARGE)


def _keys(bench: Bench) -> Iterator[Figure]:
    with ExitStack() as stack:
        cluster, urls = bench.filled(stack)
        one = stack.enter_context(shard_urls(bench.servers, 1, prefix="one"))
        yield from keys.measure(cluster, urls, one["s0"], rounds=bench.rounds(100))


def _scatter(bench: Bench) -> Iterator[Figure]:
    counts = scatter.SHARD_COUNTS
    for count in counts if bench.factor == 1 else counts[:-1]:  # 64 databases take their time
        with ExitStack() as stack:
            cluster, urls = bench.filled(stack, count)
            yield from scatter.measure(cluster, urls, rounds=bench.rounds(40))
            yield from scatter.measure_away(urls, rounds=bench.rounds(40))


def _merging(bench: Bench) -> Iterator[Figure]:
    rows = round(merging.ROWS_PER_SHARD * bench.factor)
    with (
        shard_urls(bench.servers, 4) as urls,
        merging.readings(urls, rows_per_shard=rows) as cluster,
    ):
        yield from merging.measure(cluster, urls, rounds=bench.rounds(20))


def _tpch(bench: Bench) -> Iterator[Figure]:
    scale = tpch.SCALE * (1 if bench.factor == 1 else 0.1)
    with (
        shard_urls(bench.servers, 4) as urls,
        tpch.filled(bench.servers, urls, scale=scale) as databases,
    ):
        yield from tpch.measure(databases, rounds=bench.rounds(5))


def _commit(bench: Bench) -> Iterator[Figure]:
    count, rounds = max(commit.PARTICIPANTS), bench.rounds(300)
    with shard_urls(bench.servers, count) as urls:
        with filled_cluster(urls) as cluster:
            yield from commit.measure_work(cluster, urls, rounds=rounds)
            yield from commit.measure(cluster, urls, rounds=rounds)
        with commit.away(urls) as late, reached_cluster(late) as cluster:
            yield from commit.measure_away(cluster, late, rounds=rounds)
    with (
        start_servers(bench.backend, fsync="off") as careless,
        shard_urls(careless, count) as urls,
        filled_cluster(urls) as cluster,
    ):
        yield from commit.measure(cluster, urls, rounds=rounds, how=", fsync off")


def _consistent(bench: Bench) -> Iterator[Figure]:
    yield from consistent.measure(bench.servers, rounds=bench.rounds(300))


def _recovery(bench: Bench) -> Iterator[Figure]:
    allowed = str(recovering.MANY + 100)
    with start_servers(bench.backend, max_prepared_transactions=allowed) as many:
        yield from recovering.measure(many, rounds=bench.rounds(50))


def _migrations(bench: Bench) -> Iterator[Figure]:
    databases = round(migrations.DATABASES * bench.factor)
    loop = round(migrations.LOOP * bench.factor)
    yield from migrations.measure(bench.servers, databases=databases, loop=loop)


GROUPS: Final[Mapping[str, Callable[[Bench], Iterator[Figure]]]] = {
    "routing": _routing,
    "planning": _planning,
    "single": _single,
    "async": _async,
    "work": _work,
    "throughput": _throughput,
    "flush": _flush,
    "inserts": _inserts,
    "copying": _copying,
    "copying-millions": _copying_millions,
    "keys": _keys,
    "scatter": _scatter,
    "merging": _merging,
    "tpch": _tpch,
    "commit": _commit,
    "consistent": _consistent,
    "recovery": _recovery,
    "migrations": _migrations,
}
