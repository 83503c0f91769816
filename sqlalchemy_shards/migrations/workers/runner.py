"""A run over shards: performs a `Schedule` with workers, and reports.

However it is left, no worker stays behind. What one worker has done is not touched by the death of
another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Final

from sqlalchemy_shards.migrations.workers.addresses import Addresses, difference
from sqlalchemy_shards.migrations.workers.messages import Done, Failed, Message, Ready, Take
from sqlalchemy_shards.migrations.workers.processes import Ended, Printed, StopWanted, Worker
from sqlalchemy_shards.migrations.workers.report import MigrationReport
from sqlalchemy_shards.migrations.workers.schedule import Schedule
from sqlalchemy_shards.migrations.workers.stopping import stop_signals
from sqlalchemy_shards.migrations.workers.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy_shards.migrations.workers.order import Order
    from sqlalchemy_shards.migrations.workers.processes import Happening

STOP_SECONDS: Final = 20.0
"""How long workers may take to roll back and end before they are killed."""


@dataclass(frozen=True, slots=True)
class Output:
    """A line that ``env.py`` or a revision printed or logged.

    :param shard: whose turn it was.
    """

    shard: str | None
    line: str


@dataclass(frozen=True, slots=True)
class Pausing:
    """The canary has succeeded; the rest follows later.

    :param seconds: how much later; None: when somebody says so.
    """

    canary: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Stopping:
    """Somebody wants the run to stop; what runs is being rolled back."""


Progress = Message | Output | Pausing | Stopping
"""What an observer of a run is told: messages of workers, and these."""


class Runner:
    """Goes through shards once.

    :param observe: is told what happens, when it happens, in the thread that runs.
    """

    def __init__(self, order: Order, observe: Callable[[Progress], None]) -> None:
        self._order = order
        self._observe = observe
        self._schedule = Schedule(
            order.shards,
            canary=order.canary,
            pauses=order.pause is not None,
            on_failure=order.on_failure,
        )
        self._tally = Tally(order.shards)
        self._happenings: SimpleQueue[Happening] = SimpleQueue()
        self._workers: list[Worker] = []
        self._workers_most = 0
        self._kill_at = math.inf
        self._error: str | None = None
        self._no_start: str | None = None
        self._is_asking = False
        self._is_interrupted = False

    def run(self) -> MigrationReport:
        """Go through the shards, and tell what became of each."""
        began = monotonic()
        with stop_signals(self._stop_wanted):
            try:
                self._go_through()
                for worker in self._workers:
                    # One that is still loading env.py would load it for nothing.
                    (worker.dismiss if worker.is_ready else worker.interrupt)()
                while self._workers:
                    self._heed(self._next())
            finally:
                for worker in self._workers:
                    worker.kill()
        return self._report(monotonic() - began)

    def _stop_wanted(self) -> None:
        if self._is_asking:
            raise KeyboardInterrupt
        self._happenings.put(StopWanted())

    def _go_through(self) -> None:
        while not self._schedule.is_over:
            if self._schedule.is_paused:
                self._pause()
                continue
            self._hire()
            self._hand_out()
            if not self._workers:
                return
            self._heed(self._next())

    def _hire(self) -> None:
        """Have a worker for each shard that could be given, within the bound."""
        free = sum(worker.shard is None and not worker.is_stopping for worker in self._workers)
        wanted = min(self._schedule.room - free, self._order.parallel - len(self._workers))
        for _ in range(wanted if self._no_start is None else 0):
            self._workers.append(Worker(self._order.job, self._happenings))
        self._workers_most = max(self._workers_most, len(self._workers))

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.is_idle and (shard := self._schedule.next()) is not None:
                self._tally.given(shard, monotonic())
                worker.take(shard)
                self._observe(Take(shard))

    def _next(self) -> Happening:
        """Wait for something to happen, or for workers to be too slow in stopping."""
        while True:
            waiting = None if self._kill_at == math.inf else max(0, self._kill_at - monotonic())
            try:
                return self._happenings.get(timeout=waiting)
            except Empty:
                self._kill_all()

    def _heed(self, happening: Happening) -> None:
        if isinstance(happening, StopWanted):
            self._stop()
        elif isinstance(happening, Printed):
            self._observe(Output(happening.worker.shard, happening.line))
        elif isinstance(happening, Ended):
            self._workers.remove(happening.worker)
            self._lose(happening.worker)
        else:
            self._heed_message(happening.worker, happening.message)

    def _heed_message(self, worker: Worker, message: Message) -> None:
        if isinstance(message, Ready):
            worker.is_ready = True
            found = Addresses(message.cluster, message.shards)
            differs = difference(self._order.addresses, found)
            if differs is not None:
                self._error = f"{differs}; give both the same configuration"
                self._schedule.stop()
        elif isinstance(message, Failed) and message.shard is None:
            worker.trouble = message.error
        else:
            self._note(worker, message)

    def _note(self, worker: Worker, message: Message) -> None:
        """Note what a worker said of its shard."""
        self._tally.note(message, monotonic())
        if isinstance(message, Done):
            worker.shard = None
            self._schedule.succeeded(message.shard)
        elif isinstance(message, Failed) and message.shard is not None:
            worker.shard = None
            self._schedule.failed(message.shard)
        self._observe(message)

    def _lose(self, worker: Worker) -> None:
        """A worker has ended, as it should or in the middle of something; clear away."""
        reason = worker.trouble or worker.ending()
        if worker.shard is not None:
            failed = Failed(worker.shard, reason, is_interrupted=self._is_interrupted)
            self._note(worker, failed)
        elif not worker.is_ready and not worker.is_stopping:
            self._no_start = f"env.py could not be loaded: {reason}"
        elif worker.trouble is not None and not self._is_interrupted:
            self._error = self._error or f"env.py failed: {worker.trouble}"
        worker.dismiss()

    def _pause(self) -> None:
        pause = self._order.pause
        self._observe(Pausing(str(self._order.canary), None if callable(pause) else pause))
        if callable(pause):
            if not self._ask(pause):
                self._schedule.stop()
        else:
            until = monotonic() + (pause or 0)
            while self._schedule.is_paused and (left := until - monotonic()) > 0:
                try:
                    self._heed(self._happenings.get(timeout=left))
                except Empty:
                    break
        self._schedule.go_on()

    def _ask(self, go_on: Callable[[], bool]) -> bool:
        self._is_asking = True
        try:
            return go_on()
        except KeyboardInterrupt:
            self._stop()
            return False
        finally:
            self._is_asking = False

    def _stop(self) -> None:
        if self._is_interrupted:
            self._kill_all()
            return
        self._is_interrupted = True
        self._schedule.stop()
        self._observe(Stopping())
        for worker in self._workers:
            worker.interrupt()
        self._kill_at = monotonic() + STOP_SECONDS

    def _kill_all(self) -> None:
        self._kill_at = math.inf
        for worker in self._workers:
            worker.kill()

    def _report(self, seconds: float) -> MigrationReport:
        order = self._order
        is_left = bool(self._schedule.waiting) and not self._schedule.is_stopped
        return MigrationReport(
            order.addresses.cluster,
            order.job.command,
            order.job.revisions,
            self._tally.results(monotonic()),
            seconds,
            self._workers_most,
            self._error or (self._no_start if is_left else None),
            self._is_interrupted,
        )
