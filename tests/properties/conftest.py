"""Worlds of one to four shards, filled once for each module of properties."""

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
                        ScratchDatabase(servers.url(number), f"world_{count}_s{number}")
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


_TALLY = pytest.StashKey[Counter[str]]()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Counter[str]:
    """Counts answers and refusals of this run; they are printed at its end."""
    return request.config.stash.setdefault(_TALLY, Counter())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    counts = config.stash.get(_TALLY, None)
    if counts:
        whole = counts["answered"] + counts["changed"] + counts["refused"]
        share = 100 * counts["refused"] // max(1, whole)
        terminalreporter.write_line(f"generated statements: {dict(counts)}, {share} % refused")
