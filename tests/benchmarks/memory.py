"""Memory of a process that streams an ordered answer of four shards.

`python -m tests.benchmarks.memory`: 5 million rows from servers of its own, within `MEGABYTES`.
The test of the suite streams fewer, by the same `PROGRAM`, within a limit as tight.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from .databases import shard_urls, start_servers

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWS = 5_000_000
MEGABYTES = 150
SHARDS = 4

PROGRAM = """
import json, resource, sys, time
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, func, select
from sqlalchemy_shards import create_cluster, shard_table

urls, kind, rows_at_a_time = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
table = shard_table(
    Table(
        "streamed",
        MetaData(),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("name", Text),
    ),
    key="id",
)
columns = [table.c.id, table.c.name]
if kind == "gathered":
    columns.append(func.rank().over(order_by=table.c.id))
cluster = create_cluster(urls, name="streams")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
count = last = 0
with cluster.engine.connect() as connection:
    statement = select(*columns).order_by(table.c.id)
    options = {"yield_per": rows_at_a_time}
    for row in connection.execute(statement, execution_options=options):
        assert row.id > last
        count, last = count + 1, row.id
seconds = time.perf_counter() - began
cluster.dispose()
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([count, seconds, before / 1024, kilobytes / 1024]))
"""


@dataclass(frozen=True)
class Streamed:
    """What one process has streamed; memory is the most that it ever had resident."""

    rows: int
    seconds: float
    megabytes_before: float
    megabytes: float


def fill(driver: psycopg.Connection, shard: int, rows: int) -> None:
    """Make the table of one shard: every fourth number from the shard's own."""
    driver.execute("CREATE TABLE streamed (id bigint PRIMARY KEY, name text)")
    driver.execute(
        "INSERT INTO streamed SELECT n, 'the name of ' || n FROM generate_series(%s, %s, %s) AS n",
        (shard + 1, rows, SHARDS),
    )


def streamed(urls: Mapping[str, str], *, kind: str = "merged", size: int = 1000) -> Streamed:
    """Stream the table in a process of its own.

    :param kind: ``"merged"`` in the client, or ``"gathered"``: by the workspace.
    :param size: rows at a time, as ``yield_per``.
    """
    arguments = [json.dumps(dict(urls)), kind, str(size)]
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise RuntimeError(ended.stderr)
    return Streamed(*json.loads(ended.stdout))


def main() -> None:
    """Measure, and say whether it is within the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--size", type=int, default=1000, help="rows at a time")
    parser.add_argument("--kind", default="merged", choices=("merged", "gathered"))
    parser.add_argument("--backend", default="auto", choices=("auto", "system", "embedded"))
    options = parser.parse_args()
    with start_servers(options.backend) as servers, shard_urls(servers, SHARDS) as urls:
        _fill_all(urls, options.rows)
        found = streamed(urls, kind=options.kind, size=options.size)
    print(
        f"{found.rows:,} rows in {found.seconds:.1f} s "
        f"({found.rows / found.seconds:,.0f} rows a second), "
        f"{found.megabytes:.0f} MB resident at most, {found.megabytes_before:.0f} MB before"
    )
    sys.exit(0 if found.rows == options.rows and found.megabytes <= MEGABYTES else 1)


def _fill_all(urls: Mapping[str, str], rows: int) -> None:
    for number, url in enumerate(urls.values()):
        with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://")) as driver:
            fill(driver, number, rows)


if __name__ == "__main__":
    main()
