"""How many requests a commit sends, counted between the cluster and its servers.

The question for the xid of the deciding transaction is no request of the commit, but goes beside
the second shard's first statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from tests.faults.models import Account
from tests.faults.proxy import Fate
from tests.faults.world import SHARDS, cluster_of

if TYPE_CHECKING:
    from tests.faults.world import World

NEVER = 0
"""The place of a trap that counts down from the first request, and never strikes."""


def requests_of_a_commit(world: World, shards: tuple[str, ...]) -> dict[str, int]:
    """Of the second commit of a process, which knows its shards."""
    with cluster_of(world.urls) as cluster, Session(cluster.engine) as session:
        for _ in range(2):
            for name in shards:
                raised = update(Account).where(Account.place == name)
                session.execute(raised.values(amount=Account.amount + 1))
            traps = {name: world.proxies[name].trap("", Fate.PASS, nth=NEVER) for name in SHARDS}
            session.commit()
            sent = {name: -trap.nth for name, trap in traps.items()}
            for proxy in world.proxies.values():
                proxy.heal()
    return {name: number for name, number in sent.items() if number}


def test_one_for_a_single_participant(world: World) -> None:
    sent = requests_of_a_commit(world, SHARDS[:1])

    assert sent == {"s0": 1}


@pytest.mark.parametrize("count", [2, 3])
def test_two_for_each_of_several_participants(world: World, count: int) -> None:
    sent = requests_of_a_commit(world, SHARDS[:count])

    assert sent == dict.fromkeys(SHARDS[:count], 2)


@pytest.mark.parametrize("shards", [("s2", "s1", "s0"), ("s1", "s0")])
def test_one_more_where_the_deciding_shard_is_the_last_to_be_written_to(
    world: World, shards: tuple[str, ...]
) -> None:
    sent = requests_of_a_commit(world, shards)

    assert sent == {**dict.fromkeys(sorted(shards), 2), "s0": 3}
