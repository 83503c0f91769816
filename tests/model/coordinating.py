"""What the coordinator may do next, as its real protocol tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy_shards.transactions.protocol.coordinator import Command, Heard, RoundOver, Verb
from sqlalchemy_shards.transactions.protocol.replies import Link, Reply
from tests.model.databases import GID, NOTHING, Databases, Step, is_settling, unlocked, with_db
from tests.model.machine import Machines
from tests.model.world import DONE, GONE, LISTED, LIVE, NOBODY, STALE, Actor, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.bounds import Bounds
    from tests.model.rules import Rules


class Coordinating:
    """The steps of the coordinator, which may lose a connection, be interrupted, or die."""

    def __init__(self, rules: Rules, names: tuple[str, ...], bounds: Bounds) -> None:
        self.rules = rules
        self.names = names
        self.databases = Databases(rules)
        self.machines = Machines(rules, names, bounds)

    def after(self, world: World) -> Iterator[Step]:
        """Give every step that the coordinator may take next."""
        for number in range(len(world.dbs)):
            yield from self._coordinate(world, number)
        yield from self._interrupt(world)

    def _coordinate(self, world: World, number: int) -> Iterator[Step]:
        command = world.dbs[number].asked
        if world.machine == NOBODY or command is None or command.verb is Verb.SETTLE:
            return
        who = f"coordinator: {command.verb.name} on {command.shard}{' anew' * command.anew}"
        db = world.dbs[number]
        if not command.anew and db.session == GONE:
            yield from self.hear(world, number, Heard(command, Reply.LOST), who, Link.LOST)
            if command.verb is Verb.DECIDE:
                yield from self._leave_unsent(world, number, command, who)
            return
        for said, done, reply, link in self.databases.execute(world, number, command):
            is_asked = command.verb is Verb.ASK or command.verb is Verb.ASK_AND_ASSIGN
            xid = GID.decision_xid if is_asked else None
            heard = Heard(command, reply, xid)
            yield from self.hear(done, number, heard, f"{who}: {said}", link)
            if world.budget.losses:
                yield from self._lose_reply(done, number, command, f"{who}: {said}")
        if world.budget.losses:
            yield from self._lose_command(world, number, command, who)
            if command.verb is Verb.DECIDE:
                spent = world.budget._replace(losses=world.budget.losses - 1)
                yield from self._leave_unsent(world._replace(budget=spent), number, command, who)
        if world.budget.wrong_databases and command.anew:
            spent = world.budget._replace(wrong_databases=world.budget.wrong_databases - 1)
            found = self.rules.read_listing(is_verified=False, is_listed=False)
            heard = Heard(command, found or Reply.LOST)
            lost = world._replace(budget=spent)
            yield from self.hear(lost, number, heard, f"{who}: in another database", db.link)

    def _lose_reply(self, done: World, number: int, command: Command, who: str) -> Iterator[Step]:
        spent = done.budget._replace(losses=done.budget.losses - 1)
        world = done._replace(budget=spent)
        link = world.dbs[number].link
        if not command.anew:
            world, link = with_db(world, number, session=STALE), Link.LOST
        heard = Heard(command, Reply.LOST)
        yield from self.hear(world, number, heard, f"{who}, the reply is lost", link)

    def _lose_command(
        self, world: World, number: int, command: Command, who: str
    ) -> Iterator[Step]:
        spent = world.budget._replace(losses=world.budget.losses - 1)
        lost = world._replace(budget=spent)
        link = world.dbs[number].link
        if command.anew:
            strays = world.dbs[number].strays | {command.verb}
            lost = with_db(lost, number, strays=strays)
        else:
            lost, link = with_db(lost, number, session=STALE, unread=command.verb), Link.LOST
        heard = Heard(command, Reply.LOST)
        yield from self.hear(lost, number, heard, f"{who}: no answer", link)

    def _leave_unsent(
        self, world: World, number: int, command: Command, who: str
    ) -> Iterator[Step]:
        """The client finds the connection lost, and sends nothing; the server may not know yet."""
        if world.dbs[number].session == LIVE:
            world = with_db(world, number, session=STALE)
        heard = Heard(command, Reply.UNSENT)
        yield from self.hear(world, number, heard, f"{who}: not sent", Link.LOST)

    def hear(
        self, world: World, number: int, heard: Heard, label: str, link: Any
    ) -> Iterator[Step]:
        """Let the protocol hear an answer; after the last one of a round, the round is over."""
        world = with_db(world, number, asked=None, link=link)
        machine, _ = self.machines.handle(world.machine, heard, heard)
        world = world._replace(machine=machine)
        if any(db.asked is not None for db in world.dbs):
            yield label, world
            return
        yield label, self._round_over(world, is_stopped=False)
        if world.budget.stops:
            spent = world.budget._replace(stops=world.budget.stops - 1)
            stopped = self._round_over(world._replace(budget=spent), is_stopped=True)
            yield f"{label}; then it is interrupted", stopped

    def _round_over(self, world: World, *, is_stopped: bool) -> World:
        links = {name: db.link for name, db in zip(self.names, world.dbs, strict=True)}
        key = (is_stopped, *links.values())
        machine, commands = self.machines.handle(world.machine, RoundOver(links, is_stopped), key)
        made = self.machines.state(machine).plan
        if made.decision is not None:
            self.databases.decision_xid = made.decision_xid
        return self.ask(world._replace(machine=machine), commands)

    def ask(self, world: World, commands: tuple[Command, ...]) -> World:
        """Hand out the commands of a round; at the end, leave no session open."""
        commands = tuple(command for command in commands if command.verb is not Verb.FORGET)
        if not commands and not self.machines.is_over(world.machine):
            return self._round_over(world, is_stopped=False)
        for command in commands:
            world = with_db(world, self.names.index(command.shard), asked=command)
            if command.verb is Verb.SETTLE:
                actors = (*world.actors[:-1], Actor(LISTED, NOTHING, None))
                world = world._replace(actors=actors)
        if self.machines.is_over(world.machine) and world.reported is None:
            state = self.machines.state(world.machine)
            world = world._replace(reported=state.outcome, is_confirmed=not state.left)
            for number, db in enumerate(world.dbs):
                if db.session == LIVE:
                    world = with_db(world, number, session=STALE)
        return world

    def _interrupt(self, world: World) -> Iterator[Step]:
        if world.machine == NOBODY or world.reported is not None:
            return
        if world.budget.deaths:
            dead = world._replace(
                machine=NOBODY,
                budget=world.budget._replace(deaths=0),
                actors=(*world.actors[:-1], Actor(DONE, NOTHING, None)),
                decisions=unlocked(world.decisions, len(world.actors) - 1),
            )
            for number, db in enumerate(world.dbs):
                dead = with_db(dead, number, link=None, asked=None)
                command = db.asked
                if command is not None and command.anew:
                    if command.verb is not Verb.SETTLE:
                        dead = with_db(dead, number, strays=db.strays | {command.verb})
                elif db.session == LIVE:
                    unread = None if command is None else command.verb
                    dead = with_db(dead, number, session=STALE, unread=unread)
            yield "the coordinator dies", dead
        if world.budget.stops and not any(is_settling(db) for db in world.dbs):
            # What was not sent stays unsent; what was sent and lost is a loss.
            spent = world.budget._replace(stops=world.budget.stops - 1)
            stopped = world._replace(budget=spent)
            for number in range(len(world.dbs)):
                stopped = with_db(stopped, number, asked=None)
            yield "the coordinator is interrupted", self._round_over(stopped, is_stopped=True)
