"""What tests of asyncio look at the servers with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.shards.asyncio.opened import Servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.shards.shop import World


HERE = Path(__file__).parent


@pytest.fixture
def looking(spread_shop: World) -> Iterator[Servers]:
    """Looks at the servers of the shop's four databases."""
    servers = Servers(spread_shop.urls)
    yield servers
    servers.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave these tests to the ordinary run: each has an event loop of its own."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.sync_only("it has an event loop of its own"))
