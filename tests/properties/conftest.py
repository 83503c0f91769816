"""Worlds of one to five shards, filled once for each module of properties."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from sqlalchemy_shards.testing.databases import ScratchDatabase
from tests.properties.world import World, filled_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers


@pytest.fixture(scope="module")
def world_of(servers: PostgresServers) -> Iterator[Callable[[int], World]]:
    """A function: number of shards -> a world of so many, the same one at each call."""
    worlds: dict[int, World] = {}
    with ExitStack() as stack:

        def world_of(count: int) -> World:
            if count not in worlds:
                urls = {
                    f"s{number}": stack.enter_context(
                        ScratchDatabase(
                            servers.url(number % servers.count), f"world_{count}_s{number}"
                        )
                    ).url
                    for number in range(count)
                }
                one = stack.enter_context(ScratchDatabase(servers.url(0), f"world_{count}_one"))
                worlds[count] = stack.enter_context(filled_world(urls, one.url))
            return worlds[count]

        for number in range(servers.count):
            servers.start(number)
        yield world_of


@pytest.fixture(scope="module")
def world(world_of: Callable[[int], World]) -> World:
    """A world of four shards."""
    return world_of(4)


class Tally:
    """Counts answers, refusals with their reasons, and seeds of this run, over all workers."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.seeds: set[str] = set()

    def refused(self, reason: str) -> None:
        """Count a statement that was refused."""
        self.counts["refused"] += 1
        self.reasons[reason] += 1

    def add(self, counts: dict[str, int], reasons: dict[str, int], seeds: list[str]) -> None:
        """Add what another worker has counted."""
        self.counts.update(counts)
        self.reasons.update(reasons)
        self.seeds.update(seeds)


_TALLY = pytest.StashKey[Tally]()


def _tally(config: pytest.Config) -> Tally:
    return config.stash.setdefault(_TALLY, Tally())


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Counts answers and refusals of this run; they are printed at its end."""
    return _tally(request.config)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: Any = getattr(session.config, "workeroutput", None)
    if output is not None:
        tally = _tally(session.config)
        output["tally"] = (dict(tally.counts), dict(tally.reasons), sorted(tally.seeds))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})
    if "tally" in output:
        _tally(node.config).add(*output["tally"])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    tally = _tally(config)
    if not tally.counts:
        return
    whole = sum(tally.counts[each] for each in ("answered", "changed", "failed alike", "refused"))
    share = 100 * tally.counts["refused"] / max(1, whole)
    terminalreporter.section("generated statements")
    terminalreporter.write_line(f"{dict(tally.counts)}, {share:.1f} % refused")
    for reason, count in tally.reasons.most_common():
        terminalreporter.write_line(f"{count:6} refused: {reason}")
    for seed in sorted(tally.seeds):
        terminalreporter.write_line(f"seed: SHARDS_PROPERTY_SEED={seed}")
