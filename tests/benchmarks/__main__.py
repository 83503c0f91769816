"""`python -m tests.benchmarks`: run the measurements and print what came out.

The exit code says whether they ran; goals that are missed are printed, and no failure.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import commit, flush, merging, planning, routing, scatter, single_shard, tpch
from .databases import filled_cluster, shard_urls, start_servers
from .report import missed, surroundings, table, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy_shards.testing.servers import PostgresServers

    from .report import Figure

GROUPS = ("routing", "planning", "single", "flush", "scatter", "merging", "tpch", "commit")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for."""
    options = _options(arguments)
    figures: list[Figure] = []
    with start_servers(options.backend) as servers:
        around = surroundings(servers.version)
        for figure in _figures(servers, options):
            figures.append(figure)
            _tell(f"measured: {figure.name} against {figure.against}: {figure.ratio:.3f}x")
    around["load_average_at_end"] = surroundings(0)["load_average"]
    print(", ".join(f"{name} {value}" for name, value in around.items()))
    print(table(figures))
    if short := missed(figures):
        print(f"\n{short}")
    if options.json is not None:
        write_json(options.json, around, figures)


def _figures(servers: PostgresServers, options: argparse.Namespace) -> Iterator[Figure]:
    factor = 0.2 if options.quick else 1.0

    def rounds(number: int) -> int:
        return max(3, round(number * factor))

    if "routing" in options.groups:
        yield from routing.measure(rounds=rounds(400))
    with shard_urls(servers, 4) as urls, filled_cluster(urls) as cluster:
        if "planning" in options.groups:
            yield from planning.measure(cluster, rounds=rounds(100))
        if "single" in options.groups:
            yield from single_shard.measure(cluster, urls, rounds=rounds(400))
        if "flush" in options.groups:
            yield from flush.measure(cluster, urls, rounds=rounds(12))
        if "commit" in options.groups:
            yield from commit.measure(cluster, urls, rounds=rounds(400))
    if "merging" in options.groups:
        rows = round(merging.ROWS_PER_SHARD * factor)
        with shard_urls(servers, 4) as urls, merging.readings(urls, rows_per_shard=rows) as cluster:
            yield from merging.measure(cluster, urls, rounds=rounds(20))
    if "tpch" in options.groups:
        scale = tpch.SCALE * (0.1 if options.quick else 1)
        with shard_urls(servers, 4) as urls, tpch.filled(servers, urls, scale=scale) as databases:
            yield from tpch.measure(databases, rounds=rounds(5))
    if "scatter" in options.groups:
        for count in scatter.SHARD_COUNTS:
            with shard_urls(servers, count) as urls, filled_cluster(urls) as cluster:
                yield from scatter.measure(cluster, urls, rounds=rounds(40))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds")
    parser.add_argument("--backend", default="auto", choices=("auto", "system", "embedded"))
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    options = parser.parse_args(arguments)
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    options.groups = options.groups or list(GROUPS)
    return options


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
