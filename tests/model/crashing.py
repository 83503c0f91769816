"""What happens to servers, and to messages whose sender is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.transactions.protocol.coordinator import Command
from tests.model.databases import NOTHING, Step, acting, finish, rolled_back, with_db
from tests.model.world import (
    ABORTED,
    DONE,
    ENDED,
    GONE,
    INSERTED,
    LISTED,
    NOBODY,
    STALE,
    Actor,
    World,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.bounds import Bounds
    from tests.model.coordinating import Coordinating


class Crashing:
    """The steps of what nobody asked for."""

    def __init__(self, coordinating: Coordinating, bounds: Bounds) -> None:
        self._databases = coordinating.databases
        self.bounds = bounds
        self.names = coordinating.names

    def after(self, world: World) -> Iterator[Step]:
        """Give every such step."""
        for number in range(len(world.dbs)):
            yield from self._stale(world, number)
        yield from self._crash(world)
        if world.decisions.is_busy:
            free = world.decisions._replace(is_busy=False)
            yield "an older transaction on s0 ends", world._replace(decisions=free)
        if not world.decisions.is_flushed:
            flushed = world.decisions._replace(is_flushed=True)
            yield "s0 flushes its log", world._replace(decisions=flushed)

    def _stale(self, world: World, number: int) -> Iterator[Step]:
        db, name = world.dbs[number], self.names[number]
        if db.session == STALE:
            gone = with_db(rolled_back(world, number), number, session=GONE, unread=None)
            yield f"{name} ends the session that lost its client", gone
            if db.unread is not None:
                for said, done in self._execute_unread(world, number, db.unread):
                    done = with_db(done, number, unread=None)
                    yield f"{name} carries out a late {db.unread.name}: {said}", done
        for verb in db.strays:
            done, _ = finish(with_db(world, number, strays=db.strays - {verb}), number, verb)
            yield f"{name} carries out a late {verb.name}", done

    def _execute_unread(self, world: World, number: int, verb: Any) -> Iterator[tuple[str, World]]:
        for said, done, _, _ in self._databases.execute(
            world, number, Command(verb, self.names[number])
        ):
            yield said, done

    def _crash(self, world: World) -> Iterator[Step]:
        if not world.budget.crashes:
            return
        spent = world._replace(budget=world.budget._replace(crashes=world.budget.crashes - 1))
        for server in sorted(set(self.bounds.servers[: len(world.dbs)])):
            crashed, hit = spent, []
            for number in range(len(world.dbs)):
                if self.bounds.servers[number] == server:
                    hit.append(self.names[number])
                    crashed = rolled_back(crashed, number)
                    crashed = with_db(crashed, number, session=GONE, unread=None, strays=NOTHING)
            label = f"the server of {' and '.join(hit)} crashes"
            if "s0" not in hit:
                yield label, crashed
                continue
            yield label, self._decisions_after_crash(crashed, is_busy=False)
            if world.dbs[0].tx != ENDED:
                # An xid that never reached the log is given out again.
                again = self._decisions_after_crash(crashed, is_busy=True)
                yield f"{label} and forgets the xid", again

    def _decisions_after_crash(self, world: World, *, is_busy: bool) -> World:
        row = world.decisions
        if not row.is_flushed:
            world = with_db(world, 0, fate=ABORTED)
            row = row._replace(outcome=0, is_flushed=True)
        for number, actor in enumerate(world.actors):
            if actor.step == INSERTED:
                step = Actor(DONE, NOTHING, None)
                if number == len(world.actors) - 1:
                    step = Actor(LISTED, NOTHING, None)  # it asks again, as long as it has time
                world = acting(world, number, step)
        return world._replace(decisions=row._replace(inserting=NOBODY, is_busy=is_busy))
