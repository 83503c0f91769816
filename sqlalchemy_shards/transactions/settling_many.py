"""Asking one decision shard what became of many transactions, in few statements.

One statement looks at all of them through one snapshot, which tells each what `settle` would have
been told. Those that are still open are then settled one by one: each needs its own abort row.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.transactions.fail_points import AFTER_LOOK, BEFORE_LOOK
from sqlalchemy_shards.transactions.protocol.settling import Outcome, conclude
from sqlalchemy_shards.transactions.settle import look, settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from sqlalchemy_shards.events import Hooks
    from sqlalchemy_shards.transactions.gid import TransactionGid


def settle_many(
    connection: psycopg.Connection[Any],
    gids: Sequence[TransactionGid],
    *,
    hooks: Hooks,
    lock_seconds: float,
    seconds: float,
) -> dict[TransactionGid, Outcome]:
    """Return what became of transactions that this shard decides.

    :param lock_seconds: how long to wait for each coordinator that is just deciding.
    :param seconds: after which no more of those that are open are asked about.
    :returns: outcomes, as `settle` gives them; those that were not asked about are missing.
    """
    deadline = time.monotonic() + seconds
    outcomes: dict[TransactionGid, Outcome] = {}
    still_open = []
    hooks.reach(BEFORE_LOOK)
    sights = look(connection, gids)
    hooks.reach(AFTER_LOOK)
    for gid, sight in zip(gids, sights, strict=True):
        outcome = conclude(sight)
        if outcome is None:
            still_open.append(gid)
        else:
            outcomes[gid] = outcome
    for gid in still_open:
        if time.monotonic() >= deadline:
            break
        outcomes[gid] = settle(connection, gid, hooks=hooks, lock_seconds=lock_seconds)
    return outcomes
