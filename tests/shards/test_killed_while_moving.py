"""A process is killed while it moves an object: all rows are at one place, or at the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url

from sqlalchemy_shards.transactions import fail_points
from tests.databases import ask
from tests.shards.rehoming import DELETED, MOVED
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.shards.shop import World

MOVING = "shards-test-moving"


@pytest.mark.parametrize("place", [DELETED, MOVED])
def test_a_kill_before_the_commit_leaves_all_at_the_old_place(
    spread_shop: World, place: str
) -> None:
    source, _, key = places(spread_shop)
    before = rows(spread_shop, key)

    kill_at(spread_shop, key, place)
    spread_shop.cluster.recover()  # type: ignore[union-attr]

    assert rows(spread_shop, key) == before
    assert list(before) == [source]


@pytest.mark.parametrize("place", ["before", "prepared", "decided", "committed"])
def test_a_kill_in_the_commit_is_settled_by_recovery(spread_shop: World, place: str) -> None:
    source, target, key = places(spread_shop)
    before = rows(spread_shop, key)
    points = {
        "before": fail_points.BEFORE_ROUND_0,
        "prepared": fail_points.BEFORE_DECISION,
        "decided": fail_points.AFTER_DECISION,
        "committed": fail_points.AFTER_ROUND_3,
    }

    kill_at(spread_shop, key, points[place])
    spread_shop.cluster.recover()  # type: ignore[union-attr]

    found = rows(spread_shop, key)
    if place in ("before", "prepared"):
        assert found == before
    else:
        assert found == {target: before[source]}
    assert spread_shop.cluster.in_doubt() == []  # type: ignore[union-attr]


def places(world: World) -> tuple[str, str, int]:
    """Where customer 1 is, and another shard with a key that lives there."""
    cluster: Any = world.cluster
    source = cluster.shard_for(world.models.Customer, 1)
    key = next(n for n in range(50, 200) if cluster.shard_for(world.models.Customer, n) != source)
    return source, cluster.shard_for(world.models.Customer, key), key


def rows(world: World, key: int) -> dict[str, Any]:
    """What each shard has of customer 1 and what hangs on it, whichever key it has."""
    query = f"""
        SELECT 'customer', 0, name FROM customers WHERE id IN (1, {key})
        UNION ALL SELECT 'order', id, status FROM orders WHERE customer_id IN (1, {key})
        UNION ALL SELECT 'label', id, text FROM labels WHERE customer_id IN (1, {key})
    """
    return {name: found for name, found in world.rows_by_shard(query).items() if found}


def kill_at(world: World, key: int, place: str) -> None:
    program = Path(__file__).with_name("rehoming.py")
    urls = {
        name: make_url(url)
        .update_query_dict({"application_name": MOVING})
        .render_as_string(hide_password=False)
        for name, url in world.urls.items()
    }
    path = os.pathsep.join([str(program.parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, program, json.dumps(urls), str(key), place],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    sessions = f"SELECT 1 FROM pg_stat_activity WHERE application_name = '{MOVING}'"
    eventually(
        lambda: not any(ask(url, sessions) for url in world.urls.values()), "end of sessions"
    )
