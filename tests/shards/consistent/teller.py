"""A process that moves amounts between the bank's accounts.

Arguments: the URLs as JSON, and either nothing, to go on until its input is closed, or a fail-point
of one transfer at which the process ends as a crash would end it.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading

from sqlalchemy.exc import DBAPIError

from sqlalchemy_shards.errors import TransactionAborted
from tests.shards.consistent.bank import SHARDS, Bank, disposing
from tests.shards.distributed import CRASHED


def move_until_told(bank: Bank) -> None:
    told = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        told.set()

    threading.Thread(target=wait, daemon=True).start()
    print("ready", flush=True)
    moved = 0
    while not told.is_set():
        shards = random.sample(SHARDS, random.choice((2, 2, 3, 4)))
        try:
            bank.move(*shards)
            moved += 1
        except (DBAPIError, TransactionAborted):
            continue  # a deadlock or a recovery: rolled back everywhere
    print(moved, flush=True)


def crash(bank: Bank, fail_point: str) -> None:
    def end(_: str) -> None:
        os._exit(CRASHED)

    bank.cluster.hooks.fail_points = {fail_point: end}
    bank.move("s0", "s1", "s2")


def main(urls: str, fail_point: str | None = None) -> None:
    with disposing(Bank(json.loads(urls), consistent_reads=True)) as (bank,):
        if fail_point is None:
            move_until_told(bank)
        else:
            crash(bank, fail_point)


if __name__ == "__main__":
    main(*sys.argv[1:])
