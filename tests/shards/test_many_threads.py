"""One cluster, 64 threads: reads, writes, gathers and distributed commits at the same time.

The cluster is new when they begin, so that they race for everything that is made once: pools,
plans, the catalogs, the workspace. Threads take turns every few instructions.
"""

from __future__ import annotations

import random
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import selectinload

from sqlalchemy_shards import ShardedSession, create_cluster
from tests.databases import ask
from tests.shards.shop import CUSTOMERS, DECLARED, SHARDS, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy_shards import Cluster

THREADS = 64
SECONDS = 2.0
START = 1_000
WALLETS = range(500, 540)


@dataclass
class Worker:
    """What one thread does, and what it must find.

    :param own: the customer that no other thread touches.
    """

    cluster: Cluster
    own: int
    name: str = ""
    done: dict[str, int] = field(default_factory=dict)

    def work(self, start: threading.Barrier) -> None:
        choose = random.Random(self.own)
        kinds: list[Callable[[random.Random], None]] = [
            self.write_own, self.read_own, self.transfer, self.merge, self.gather, self.load,
        ]  # fmt: skip
        choose.shuffle(kinds)
        start.wait(60)
        until = monotonic() + SECONDS
        while monotonic() < until or len(self.done) < len(kinds):
            for kind in kinds:
                with ShardedSession(self.cluster) as self.session:
                    kind(choose)
                self.done[kind.__name__] = self.done.get(kind.__name__, 0) + 1

    def write_own(self, choose: random.Random) -> None:
        self.name = f"{self.own} {choose.random()}"
        customer = self.session.get(DECLARED.Customer, self.own)
        if customer is None:
            self.session.add(DECLARED.Customer(id=self.own, name=self.name))
        else:
            customer.name = self.name
        self.session.commit()

    def read_own(self, choose: random.Random) -> None:
        customer = self.session.get(DECLARED.Customer, self.own)
        assert (customer.name if customer else "") == self.name

    def transfer(self, choose: random.Random) -> None:
        """Move money between shards, in one order of locks, and only sometimes for good."""
        table = DECLARED.Ledger.__table__
        amount = choose.randrange(1, 50)
        (first, second) = sorted(choose.sample(WALLETS, 2))
        for key, change in ((first, amount), (second, -amount)):
            self.session.execute(
                update(table)
                .where(table.c.customer_id == key)
                .values(balance=table.c.balance + change)
            )
        if choose.random() < 0.8:
            self.session.commit()

    def merge(self, choose: random.Random) -> None:
        m, count = DECLARED, choose.randrange(1, len(CUSTOMERS))
        found = self.session.scalars(
            select(m.Label.text)
            .order_by(m.Label.customer_id.desc(), m.Label.id)
            .limit(count)
            .offset(choose.randrange(2))
        ).all()
        every = [f"label {n}.{each}" for n in reversed(CUSTOMERS) for each in (1, 2)]
        assert found in (every[:count], every[1 : count + 1])

    def gather(self, choose: random.Random) -> None:
        m, least = DECLARED, choose.randrange(1, len(CUSTOMERS))
        numbered = func.row_number().over(order_by=m.Label.customer_id)
        found = self.session.execute(
            select(m.Label.customer_id, numbered)
            .where(m.Label.id == 1, m.Label.customer_id >= least)
            .order_by(m.Label.customer_id)
        ).all()
        assert [tuple(row) for row in found] == [
            (key, number) for number, key in enumerate(range(least, len(CUSTOMERS) + 1), start=1)
        ]

    def load(self, choose: random.Random) -> None:
        m, keys = DECLARED, sorted(choose.sample(CUSTOMERS, 3))
        found = self.session.scalars(
            select(m.Customer)
            .where(m.Customer.id.in_(keys))
            .order_by(m.Customer.id)
            .options(selectinload(m.Customer.orders))
        ).all()
        assert [(each.id, [order.amount for order in each.orders]) for each in found] == [
            (key, [1, 2]) for key in keys
        ]


@contextmanager
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.fixture
def fresh_cluster(spread_shop: World) -> Iterator[Cluster]:
    """A cluster that has done nothing yet, over shards that have rows."""
    ledger = DECLARED.Ledger
    with spread_shop.session() as session:
        session.add_all([ledger(customer_id=key, balance=START) for key in WALLETS])
        session.commit()
    urls = spread_shop.urls
    cluster = create_cluster(urls, name="shop", pool_size=8, max_overflow=THREADS)
    yield cluster
    cluster.dispose()


def run_all(workers: list[Worker]) -> list[BaseException]:
    """Let all of them work at once; return what went wrong."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(workers))

    def work(worker: Worker) -> None:
        try:
            worker.work(start)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    with switching_often():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return errors


def left_behind(cluster: Cluster, urls: dict[str, str]) -> dict[str, Any]:
    """Connections that are out, and prepared transactions."""
    prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
    return {
        "out": [cluster.shards[name].engine.pool.checkedout() for name in SHARDS],  # type: ignore[attr-defined]
        "prepared": [row for url in urls.values() for row in ask(url, prepared)],
        "in doubt": cluster.in_doubt(),
    }


def test_threads_that_ask_first_get_one_engine(spread_shop: World) -> None:
    cluster, engines = create_cluster(spread_shop.urls, name="shop"), []
    start = threading.Barrier(THREADS)

    def work() -> None:
        start.wait(60)
        engines.append(cluster.engine)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    with switching_often():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    cluster.dispose()

    assert len(engines) == THREADS
    assert len(set(map(id, engines))) == 1


@pytest.mark.sync_only("its threads wait for pools, each of which is for one event loop")
def test_many_threads_on_one_cluster(spread_shop: World, fresh_cluster: Cluster) -> None:
    workers = [Worker(fresh_cluster, 10_000 + number) for number in range(THREADS)]
    errors = run_all(workers)
    names = spread_shop.rows("SELECT id, name FROM customers WHERE id >= 10000")
    balances = spread_shop.rows("SELECT balance FROM ledgers")

    assert errors == []
    assert names == [(worker.own, worker.name) for worker in workers]
    assert sum(balance for (balance,) in balances) == START * len(WALLETS)
    assert min(min(worker.done.values()) for worker in workers) >= 1
    assert left_behind(fresh_cluster, spread_shop.urls) == {
        "out": [0, 0, 0, 0],
        "prepared": [],
        "in doubt": [],
    }
