"""Clients at work, recoveries in a loop, and everything that can break breaking at random.

What is random follows from one seed, but for the machine's own timing.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.faults.client import Client
from tests.faults.proxy import Fate, Moment
from tests.faults.workload import Recoverer, Worker, read_diary
from tests.faults.world import PATIENT, SHARDS, World, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.faults.workload import Told

TIMEOUTS = replace(
    PATIENT,
    lock_timeout=1.0,
    round_seconds=2.0,
    decision_seconds=2.0,
    settle_seconds=1.0,
    finish_seconds=1.0,
    rollback_seconds=1.0,
)
PAUSE_SECONDS_MEAN = 0.4
OUTAGE_SECONDS_MAX = 1.0
SPARES = timedelta(seconds=0.3)
"""Young transactions are left alone by most recoveries, or hardly one would be committed."""

MESSAGES = (
    "^BEGIN",
    "^UPDATE",
    "^INSERT INTO entry",
    "pg_current_xact_id",
    r"INSERT INTO shards\.decisions",
    "^PREPARE TRANSACTION",
    "^COMMIT$",
    "^COMMIT PREPARED",
    "^ROLLBACK",
    r"FROM shards\.decisions",
)


@dataclass
class Storm:
    """A storm over the shards of a world.

    :param directory: where clients write what they were told.
    :param workers: how many clients move money; as many others count on every shard.
    """

    world: World
    directory: Path
    seed: str
    workers: int = 2
    faults: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._stop = self.directory / "stop"
        self._diaries: list[Path] = []
        self._clients: list[tuple[Client, bool]] = []
        self._repairs: list[tuple[float, Callable[[], None]]] = []

    def rage(self, seconds: float, *, with_faults: bool = True) -> list[Told]:
        """Let it rage, then let everything come to rest; return what the clients were told."""
        urls = [self.world.direct, self.world.urls] if with_faults else [self.world.direct]
        spares = SPARES if with_faults else timedelta(0)
        recoverers = [self._recoverer(each, spares) for each in urls]
        try:
            for number in range(2 * self.workers):
                self._clients.append(self._worker(moves_money=number % 2 == 0))
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                threading.Event().wait(self._chance.expovariate(1 / PAUSE_SECONDS_MEAN))
                self._repair(time.monotonic())
                if with_faults:
                    self._break_something()
            self._come_to_rest(recoverers)
        finally:
            for client in [client for client, _ in self._clients] + recoverers:
                client.close()
        return [told for diary in self._diaries if diary.exists() for told in read_diary(diary)]

    def _worker(self, *, moves_money: bool) -> tuple[Client, bool]:
        diary = self.directory / f"client{len(self._diaries)}"
        self._diaries.append(diary)
        work = Worker(self._chance.getrandbits(32), moves_money, str(diary), str(self._stop))
        client = Client(self.world.urls, work, timeouts=TIMEOUTS)
        client.go()
        return client, moves_money

    def _recoverer(self, urls: Mapping[str, str], spares: timedelta) -> Client:
        client = Client(urls, Recoverer(str(self._stop), spares), timeouts=TIMEOUTS)
        client.go()
        return client

    # -- faults --

    def _break_something(self) -> None:
        fault = self._chance.choice(
            [
                self._kill_client,
                self._stop_client,
                self._kill_backend,
                self._kill_server,
                self._close_links,
                self._silence,
                *3 * [self._set_trap],
            ]
        )
        self.faults[fault(self._chance.choice(SHARDS))] += 1

    def _kill_client(self, _: str) -> str:
        self._replace(self._chance.randrange(len(self._clients)))
        return "client killed"

    def _stop_client(self, _: str) -> str:
        client, _moves_money = self._chance.choice(self._clients)
        client.stop()
        self._later(client.resume)
        return "client stopped"

    def _kill_backend(self, shard: str) -> str:
        self.world.kill_some_backend(shard, self._chance)
        return "backend killed"

    def _kill_server(self, shard: str) -> str:
        self.world.kill_server(shard)
        self._later(partial(self.world.start_server, shard))
        return "server killed"

    def _close_links(self, shard: str) -> str:
        self.world.proxies[shard].close_links()
        return "connections lost"

    def _silence(self, shard: str) -> str:
        self.world.proxies[shard].silence()
        self._later(self.world.proxies[shard].heal)
        return "network silent"

    def _set_trap(self, shard: str) -> str:
        proxy = self.world.proxies[shard]
        message = self._chance.choice(MESSAGES)
        moment = self._chance.choice(list(Moment))
        strikes: list[Any] = [Fate.CLOSE, Fate.HANG]
        strikes += [self._pausing, self._killing, self._killing_a_client]
        strike = self._chance.choice(strikes)
        if not isinstance(strike, Fate):
            strike = strike(shard)
        proxy.trap(message, strike, moment=moment, nth=self._chance.randint(1, 4))
        self._later(proxy.heal)
        return "trap set"

    def _killing(self, shard: str) -> Callable[[], Fate]:
        def strike() -> Fate:
            self.world.kill_server(shard)
            return Fate.CLOSE

        self._later(partial(self.world.start_server, shard))
        return strike

    def _killing_a_client(self, _: str) -> Callable[[], Fate]:
        place = self._chance.randrange(len(self._clients))
        client, _moves_money = self._clients[place]

        def strike() -> Fate:
            client.strike_dead()
            return Fate.CLOSE

        self._later(partial(self._replace, place))
        return strike

    def _pausing(self, _: str) -> Callable[[], Fate]:
        seconds = self._chance.uniform(0.05, OUTAGE_SECONDS_MAX)

        def strike() -> Fate:
            threading.Event().wait(seconds)
            return Fate.PASS

        return strike

    def _replace(self, place: int) -> None:
        client, moves_money = self._clients[place]
        client.close()
        self._clients[place] = self._worker(moves_money=moves_money)

    def _later(self, repair: Callable[[], None]) -> None:
        at = time.monotonic() + self._chance.uniform(0.05, OUTAGE_SECONDS_MAX)
        self._repairs.append((at, repair))

    def _repair(self, now: float) -> None:
        due = [repair for at, repair in self._repairs if at <= now]
        self._repairs = [(at, repair) for at, repair in self._repairs if at > now]
        for repair in due:
            repair()

    def _come_to_rest(self, recoverers: list[Client]) -> None:
        self._repair(float("inf"))
        self.world.revive()
        self._stop.touch()
        for client in [client for client, _ in self._clients] + recoverers:
            # A link that was let hang by a trap that struck late is broken, too.
            eventually(partial(self._is_done, client), "the end of a client")
            client.result()
        self.world.revive()

    def _is_done(self, client: Client) -> bool:
        for proxy in self.world.proxies.values():
            proxy.heal()
        return client.has_answered
