"""How many requests a flush sends, counted between the cluster and its servers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from tests.faults.models import Pot
from tests.faults.proxy import Fate
from tests.faults.world import SHARDS, cluster_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.world import World

NEVER = 0
"""The place of a trap that counts down from the first request, and never strikes."""


@contextmanager
def counted(world: World) -> Iterator[dict[str, int]]:
    """Shard -> requests with SQL, when it is over."""
    traps = {name: world.proxies[name].trap("", Fate.PASS, nth=NEVER) for name in SHARDS}
    sent: dict[str, int] = {}
    try:
        yield sent
        sent.update({name: -trap.nth for name, trap in traps.items()})
    finally:
        for proxy in world.proxies.values():
            proxy.heal()


def rows(numbers: range) -> list[dict[str, Any]]:
    return [
        {"place": name, "number": number, "money": number, "version": 0}
        for number in numbers
        for name in SHARDS
    ]


@pytest.mark.parametrize("many", [10, 300])
def test_one_for_each_shard_and_batch(world: World, many: int) -> None:
    with cluster_of(world.urls) as cluster, Session(cluster.engine) as session:
        session.execute(select(Pot)).all()  # opens the connections, and their transactions
        with counted(world) as flushed:
            session.add_all([Pot(**row) for row in rows(range(1000, 1000 + many))])
            session.flush()
        with counted(world) as returned:
            session.execute(insert(Pot).returning(Pot.number), rows(range(5000, 5000 + many))).all()

    assert flushed == dict.fromkeys(SHARDS, 1)
    assert returned == dict.fromkeys(SHARDS, 1)
