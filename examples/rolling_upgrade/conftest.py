from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture
def fleet(shard_urls: Mapping[str, str]) -> Iterator[Fleet]:
    """Four shards at the first revision, and processes of any version."""
    fleet = Fleet(shard_urls)
    fleet.upgrade("r1")
    yield fleet
    fleet.stop()
