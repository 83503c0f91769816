"""Every step that may come next in a `World`, with a sentence for each.

A step is what one of them does between two moments at which another one may notice: the coordinator
hears an answer and tells its protocol in one step with the database that gives it, since nobody
sees the answer on its way; where it is lost, that is a step of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy_shards.transactions.protocol.replies import Link
from tests.model.coordinating import Coordinating
from tests.model.crashing import Crashing
from tests.model.databases import NAMES, NOTHING, Step
from tests.model.removing import Removing
from tests.model.settling import Settling
from tests.model.world import (
    FAILED,
    IDLE,
    LIVE,
    NOBODY,
    OPEN,
    PENDING,
    Actor,
    Budget,
    Cleaner,
    Db,
    Decisions,
    World,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.bounds import Bounds
    from tests.model.rules import Rules


class Steps:
    """The steps of the real protocol, or of a mistaken one, within bounds."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        self.rules = rules
        self.bounds = bounds
        self.names = NAMES[: bounds.participants]
        self._coordinating = Coordinating(rules, self.names, bounds)
        self.machines = self._coordinating.machines
        self._all = (
            self._coordinating,
            Settling(self._coordinating),
            Removing(self._coordinating),
            Crashing(self._coordinating, bounds),
        )

    def first(self) -> World:
        """Return the world before the first round."""
        machine, commands = self.machines.first
        dbs = tuple(
            Db(
                FAILED if number in self.bounds.failed else OPEN,
                has_row=False,
                is_prepared=False,
                fate=PENDING,
                session=LIVE,
                unread=None,
                strays=NOTHING,
                link=Link.OPEN,
                asked=None,
            )
            for number in range(len(self.names))
        )
        world = World(
            dbs,
            Decisions(0, is_flushed=True, inserting=NOBODY, is_busy=self.bounds.is_busy),
            machine,
            tuple(Actor(IDLE, NOTHING, None) for _ in range(self.bounds.recoveries + 1)),
            Cleaner(None, NOTHING, holds=False, is_done=not self.bounds.cleaners),
            None,
            is_confirmed=False,
            told=NOTHING,
            budget=Budget(
                self.bounds.losses,
                self.bounds.crashes,
                self.bounds.deaths,
                self.bounds.stops,
                self.bounds.refusals,
                self.bounds.wrong_databases,
            ),
        )
        return self._coordinating.ask(world, commands)

    def after(self, world: World) -> Iterator[Step]:
        """Give every step that may come next."""
        for each in self._all:
            yield from each.after(world)
