"""What the clients of a storm do, and what they write down of it.

A client writes down what it is going to do, and what it was told: each line reaches the kernel at
once, so that it stays when the client is killed right after. What it does is written into the
shards by the same transaction.
"""

from __future__ import annotations

import json
import os
import random
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import insert, update
from sqlalchemy.exc import SQLAlchemyError

from sqlalchemy_shards import ShardedSession
from sqlalchemy_shards.errors import (
    ConfigurationError,
    TransactionOutcomeUnknown,
    TransactionUnfinished,
)
from tests.faults.models import Entry, Pot
from tests.faults.world import SHARDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta

    from sqlalchemy_shards import Cluster

POTS = 4
"""Pots of each shard that money is moved between; number 0 is not one of them."""
MONEY = 1000

COMMITTED, ABORTED, UNKNOWN, OPEN = "committed", "aborted", "unknown", "open"


@dataclass(frozen=True)
class Told:
    """A transaction as its client saw it.

    :param pots: what it was going to change: (shard, number).
    :param report: what the client was told; `OPEN`: it did not live to hear it.
    """

    transaction: UUID
    pots: tuple[tuple[str, int], ...]
    report: str
    gid: str | None = None


@dataclass(frozen=True)
class Worker:
    """Runs transactions until the file ``stop`` is there.

    :param moves_money: between pots of several shards; else it adds 1 to pot 0 of every shard.
    :param diary: the file that it writes to.
    """

    seed: int
    moves_money: bool
    diary: str
    stop: str

    def __call__(self, cluster: Cluster) -> None:
        chance = random.Random(self.seed)
        file = os.open(self.diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            while not Path(self.stop).exists():
                transaction = UUID(int=chance.getrandbits(128), version=4)
                changes = _transfer(chance) if self.moves_money else _increment()
                pots = [pot for pot, _ in changes]
                _write(file, {"id": str(transaction), "pots": pots})
                report, gid = _report(cluster, transaction, changes)
                _write(file, {"id": str(transaction), "report": report, "gid": gid})
        finally:
            os.close(file)


@dataclass(frozen=True)
class Recoverer:
    """Recovers in a tight loop until the file ``stop`` is there.

    :param spares: every run but each tenth leaves alone what is younger.
    """

    stop: str
    spares: timedelta

    def __call__(self, cluster: Cluster) -> int:
        runs = 0
        while not Path(self.stop).exists():
            cluster.recover(older_than=self.spares if runs % 10 else None)
            runs += 1
        return runs


def read_diary(path: Path) -> Iterator[Told]:
    """The transactions of one client, in their order."""
    begun: dict[str, Any] = {}
    for line in path.read_text(encoding="ascii").splitlines():
        said = json.loads(line)
        begun.setdefault(said["id"], {}).update(said)
    for name, said in begun.items():
        pots = tuple((place, number) for place, number in said["pots"])
        yield Told(UUID(name), pots, said.get("report", OPEN), said.get("gid"))


def _transfer(chance: random.Random) -> Sequence[tuple[tuple[str, int], int]]:
    """From one pot into others, on different shards and in any order."""
    places = chance.sample(SHARDS, chance.choice([2, 2, len(SHARDS)]))
    amounts = [chance.randint(1, 10) for _ in places[1:]]
    return [
        ((place, chance.randint(1, POTS)), amount)
        for place, amount in zip(places, [-sum(amounts), *amounts], strict=True)
    ]


def _increment() -> Sequence[tuple[tuple[str, int], int]]:
    return [((place, 0), 1) for place in SHARDS]


def _report(
    cluster: Cluster, transaction: UUID, changes: Sequence[tuple[tuple[str, int], int]]
) -> tuple[str, str | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransactionUnfinished)
        try:
            with ShardedSession(cluster) as session:
                for (place, number), amount in changes:
                    _change(session, transaction, place, number, amount)
                session.commit()
        except TransactionOutcomeUnknown as error:
            return UNKNOWN, error.gid
        except ConfigurationError:
            raise  # no fault of a network or server looks like one
        except SQLAlchemyError:
            return ABORTED, None
    return COMMITTED, None


def _change(
    session: ShardedSession, transaction: UUID, place: str, number: int, amount: int
) -> None:
    changed = (
        update(Pot)
        .where(Pot.place == place, Pot.number == number)
        .values(money=Pot.money + amount, version=Pot.version + 1)
        .returning(Pot.version)
        .execution_options(synchronize_session=False)
    )
    version = session.execute(changed).scalar_one()
    values = {"place": place, "number": number, "version": version, "transaction": transaction}
    session.execute(insert(Entry).values(values))


def _write(file: int, said: dict[str, Any]) -> None:
    os.write(file, (json.dumps(said) + "\n").encode("ascii"))
