"""What `ShardedSession` adds to a session, its asyncio twin has as coroutines."""

from __future__ import annotations

import inspect

import pytest
from sqlalchemy.orm import Session

from sqlalchemy_shards import AsyncShardedSession, ShardedSession, create_cluster
from sqlalchemy_shards.errors import ConfigurationError

BEGUN_BY_START = {"begin_consistent", "take_snapshots"}
ADDED = {
    name
    for name, _ in inspect.getmembers(ShardedSession, inspect.isfunction)
    if not name.startswith("_") and not hasattr(Session, name)
}


@pytest.mark.parametrize("name", sorted(ADDED - BEGUN_BY_START))
def test_a_method_is_a_coroutine_with_the_same_parameters(name: str) -> None:
    sync, twin = getattr(ShardedSession, name), getattr(AsyncShardedSession, name)

    assert inspect.iscoroutinefunction(twin)
    assert inspect.signature(twin).parameters.keys() == inspect.signature(sync).parameters.keys()


def test_a_cluster_that_would_block_the_event_loop_is_refused() -> None:
    cluster = create_cluster({"s0": "postgresql+psycopg://nobody@localhost/none"})

    with pytest.raises(ConfigurationError, match="was given a Cluster"):
        AsyncShardedSession(cluster)  # type: ignore[arg-type]


def test_a_session_without_a_cluster_is_told_its_own_name() -> None:
    told = r"an AsyncShardedSession needs a cluster; .* AsyncShardedSession\(cluster\)"
    with pytest.raises(ConfigurationError, match=told):
        AsyncShardedSession()
