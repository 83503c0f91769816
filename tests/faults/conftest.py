"""Shards behind proxies, made once for a run and as new for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.world import World, new_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers


@pytest.fixture(scope="session")
def _world(servers: PostgresServers) -> Iterator[World]:
    with new_world(servers) as world:
        yield world


@pytest.fixture
def world(_world: World) -> Iterator[World]:
    """Three shards with 100 on each account, nothing prepared and no fault; so they are left."""
    _world.reset()
    yield _world
    _world.reset()
