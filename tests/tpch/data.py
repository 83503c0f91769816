"""The rows of TPC-H at any scale, in one database and on a cluster.

`generated` writes them as CSV files; `fill_database` and `fill_cluster` copy those into tables, to
each shard the lines of its own keys.
"""

from __future__ import annotations

import subprocess
import sysconfig
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.models.distribution import Sharded, distribution_of
from tests.tpch.models import Base, Order

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg
    from sqlalchemy import Engine, Table

    from sqlalchemy_shards import Cluster

LINES_AT_ONCE = 2_000


@contextmanager
def generated(scale: float) -> Iterator[Path]:
    """A directory with a CSV file of each table; removed at the end."""
    program = Path(sysconfig.get_path("scripts"), "tpchgen-cli")
    with TemporaryDirectory() as directory:
        options = ["-s", str(scale), "--num-threads", "1", "--quiet"]
        subprocess.run([program, "csv", *options, "--output-dir", directory], check=True)
        yield Path(directory)


def fill_database(engine: Engine, directory: Path) -> None:
    """Make the tables in one database, and fill them."""
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        for table in Base.metadata.sorted_tables:
            with _lines(table, directory) as lines:
                _copy({"": driver}, table, ((("",), line) for line in lines))
        driver.execute("ANALYZE")


def fill_cluster(cluster: Cluster, directory: Path) -> None:
    """Make the tables on all shards, and copy to each the lines that belong there."""
    cluster.create_all(Base.metadata)
    home = _Homes(cluster)
    everywhere = tuple(cluster.shards)
    with ExitStack() as stack:
        drivers = {name: stack.enter_context(cluster.connect(name)) for name in cluster.shards}
        for table in Base.metadata.sorted_tables:
            is_sharded = isinstance(distribution_of(table), Sharded)
            with _lines(table, directory) as lines:
                placed = (
                    ((home[int(line[: line.index(b",")])],) if is_sharded else everywhere, line)
                    for line in lines
                )
                _copy(drivers, table, placed)
        for driver in drivers.values():
            driver.execute("ANALYZE")


class _Homes(dict[int, str]):
    """Shard key -> shard. The first column of each table is its key, and all hash alike."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __missing__(self, key: int) -> str:
        self[key] = home = self._cluster.shard_for(Order, key)
        return home


@contextmanager
def _lines(table: Table, directory: Path) -> Iterator[Iterator[bytes]]:
    with (directory / f"{table.name}.csv").open("rb") as lines:
        next(lines)  # the names of the columns
        yield lines


def _copy(
    drivers: Mapping[str, psycopg.Connection[Any]],
    table: Table,
    placed: Iterator[tuple[tuple[str, ...], bytes]],
) -> None:
    with ExitStack() as stack:
        copies = {
            name: stack.enter_context(
                stack.enter_context(driver.cursor()).copy(
                    f"COPY {table.name} FROM STDIN (FORMAT csv)".encode()
                )
            )
            for name, driver in drivers.items()
        }
        waiting: defaultdict[str, list[bytes]] = defaultdict(list)
        for names, line in placed:
            for name in names:
                mine = waiting[name]
                mine.append(line)
                if len(mine) == LINES_AT_ONCE:
                    copies[name].write(b"".join(mine))
                    mine.clear()
        for name, mine in waiting.items():
            copies[name].write(b"".join(mine))
