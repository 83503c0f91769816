"""Run as a program it moves customer 1 of the shop, and kills itself at a place."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from sqlalchemy import event

from sqlalchemy_shards import ShardedSession, create_cluster
from tests.shards.shop import DECLARED

DELETED = "rehome.deleted"
MOVED = "rehome.moved"


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(urls: str, key: str, place: str) -> None:
    cluster = create_cluster(json.loads(urls), name="shop")
    with ShardedSession(cluster) as session:
        customer = session.get(DECLARED.Customer, 1)
        if place == DELETED:
            event.listen(cluster.engine, "after_cursor_execute", _die_behind_a_delete)
        session.rehome(customer, id=int(key))
        if place == MOVED:
            die()
        cluster.hooks.fail_points = {place: die}
        session.commit()


def _die_behind_a_delete(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
    if statement.startswith("DELETE"):
        die()


if __name__ == "__main__":
    main(*sys.argv[1:])
