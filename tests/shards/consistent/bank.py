"""A bank whose accounts lie on four shards: what is moved between them changes no sum."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sqlalchemy_shards import (
    Cluster,
    HashPartitioner,
    Keyspace,
    ReferenceMixin,
    ShardedSession,
    ShardKeyMixin,
    create_cluster,
)
from tests.databases import ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SHARDS = ("s0", "s1", "s2", "s3")
EACH = 100
DEADLINE_SECONDS = 60.0


class Base(DeclarativeBase):
    pass


class Account(ShardKeyMixin, Base):
    __tablename__ = "accounts"
    __shard_key__ = "id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    amount: Mapped[int]


class Rate(ReferenceMixin, Base):
    __tablename__ = "rates"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    percent: Mapped[int]


TOTAL = select(func.sum(Account.amount))


class Bank:
    """The bank, and one account on each shard."""

    def __init__(self, urls: Mapping[str, str], **options: Any) -> None:
        self.urls = urls
        self.cluster = bank_cluster(urls, **options)
        self.accounts = accounts_of(self.cluster)
        self.total = EACH * len(self.accounts)

    def fill(self) -> Bank:
        """Give every account the same, and forget what transactions left."""
        for name, number in self.accounts.items():
            self.ask(
                name,
                "DELETE FROM accounts; DELETE FROM rates; DELETE FROM shards.decisions;"
                " DELETE FROM shards.markers; DELETE FROM shards.marker_horizons;"
                f" INSERT INTO accounts VALUES ({number}, {EACH}); INSERT INTO rates VALUES (1, 5)",
            )
        return self

    def session(self, **options: Any) -> ShardedSession:
        return ShardedSession(self.cluster, **options)

    def recover(self) -> None:
        """Finish what an earlier test has left prepared."""
        self.cluster.hooks.fail_points = None
        assert self.cluster.recover().is_clean

    def move(self, *shards: str, amount: int = 1) -> None:
        """Move from the first shard's account to each of the others."""
        with self.session() as session:
            first, *others = (session.get_one(Account, self.accounts[name]) for name in shards)
            # Computed by PostgreSQL, so that nothing is lost where two move at once.
            first.amount = Account.amount - amount * len(others)
            for other in others:
                other.amount = Account.amount + amount
            session.commit()

    def amounts(self, session: Session) -> dict[str, int]:
        return {name: amount_of(session, self.accounts[name]) for name in self.accounts}

    def ask(self, shard: str, statement: str) -> list[tuple[Any, ...]]:
        return ask(self.urls[shard], statement)

    def markers(self) -> dict[str, int]:
        """How many there are on each shard that has some."""
        counted = "SELECT count(*) FROM shards.markers"
        found = {name: self.ask(name, counted)[0][0] for name in self.urls}
        return {name: count for name, count in found.items() if count}


class Paused:
    """A transfer in a thread of its own, that stops at a fail-point until it is let go."""

    def __init__(self, bank: Bank, fail_point: str, *shards: str) -> None:
        self._bank = bank
        self._reached, self._go = threading.Event(), threading.Event()
        bank.cluster.hooks.fail_points = {fail_point: self._stop}
        self._thread = threading.Thread(target=bank.move, args=shards)

    def __enter__(self) -> Paused:
        self._thread.start()
        assert self._reached.wait(DEADLINE_SECONDS)
        self._bank.cluster.hooks.fail_points = None
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def _stop(self, _: str) -> None:
        self._reached.set()
        self._go.wait(DEADLINE_SECONDS)

    def let_go(self) -> None:
        """Let the transfer end, and wait until it has."""
        self._go.set()
        self._thread.join(DEADLINE_SECONDS)


def bank_cluster(urls: Mapping[str, str], **options: Any) -> Cluster:
    keyspaces = {"default": Keyspace(HashPartitioner(buckets=16))}
    return create_cluster(urls, name="bank", keyspaces=keyspaces, **options)


def accounts_of(cluster: Cluster) -> dict[str, int]:
    """Shard -> the smallest number of an account that is there."""
    found: dict[str, int] = {}
    for number in range(1, 200):
        found.setdefault(cluster.shard_for(Account, number), number)
    return {name: found[name] for name in cluster.shards}


def amount_of(session: Session, number: int) -> int:
    return session.scalars(select(Account.amount).where(Account.id == number)).one()


@contextmanager
def disposing(*banks: Bank) -> Iterator[Sequence[Bank]]:
    try:
        yield banks
    finally:
        for bank in banks:
            bank.cluster.dispose()
