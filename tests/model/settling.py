"""What recoveries, and a coordinator that lost an answer, may do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy_shards.transactions.gid import ParticipantGid
from sqlalchemy_shards.transactions.protocol.coordinator import Heard, Verb
from sqlalchemy_shards.transactions.protocol.replies import COMMIT_PREPARED, Reply
from sqlalchemy_shards.transactions.protocol.settling import AbortRow, Outcome, Sight
from tests.model.databases import (
    CLUSTER,
    GID,
    NOTHING,
    ROW_OUTCOMES,
    UUIDS,
    Step,
    acting,
    finish,
    is_late,
    unlocked,
)
from tests.model.world import (
    DONE,
    FINISHING,
    IDLE,
    INSERTED,
    INSERTING,
    LISTED,
    LOOKING_AGAIN,
    NOBODY,
    Actor,
    World,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.coordinating import Coordinating


class Settling:
    """The steps of those who ask what became of the transaction, and finish its parts."""

    def __init__(self, coordinating: Coordinating) -> None:
        self._coordinating = coordinating
        self._databases = coordinating.databases
        self.rules = coordinating.rules
        self.names = coordinating.names

    def after(self, world: World) -> Iterator[Step]:
        """Give every step that one of them may take next."""
        for number in range(len(world.actors)):
            yield from self._settle(world, number)

    def _settle(self, world: World, number: int) -> Iterator[Step]:
        actor = world.actors[number]
        is_own = number == len(world.actors) - 1
        who = "coordinator" if is_own else f"recovery {number}"
        if actor.step in (IDLE, LISTED) and not is_own:
            yield from self._list(world, number, who)
        if actor.step in (LISTED, LOOKING_AGAIN):
            yield from self._look(world, number, who)
        elif actor.step == INSERTING:
            yield from self._insert_abort(world, number, who)
        elif actor.step == INSERTED:
            yield from self._commit_abort(world, number, who)
        elif actor.step == FINISHING:
            yield from self._finish_part(world, number, who)

    def _list(self, world: World, number: int, who: str) -> Iterator[Step]:
        parts = world.actors[number].parts
        for here, db in enumerate(world.dbs):
            if db.is_prepared and here not in parts:
                text = str(GID.part(UUIDS[here]))
                found = self.rules.recognise(text, cluster=CLUSTER, shard=UUIDS[here])
                if isinstance(found, ParticipantGid):
                    listed = acting(world, number, Actor(LISTED, parts | {here}, None))
                    yield f"{who} finds a part on {self.names[here]}", listed

    def _look(self, world: World, number: int, who: str) -> Iterator[Step]:
        is_again = world.actors[number].step == LOOKING_AGAIN
        conclude = self.rules.conclude_again if is_again else self.rules.conclude
        sight = Sight(
            ROW_OUTCOMES[world.decisions.outcome], self._databases.is_over(world), is_verified=True
        )
        yield from self._concluded(world, number, conclude(sight), f"{who} looks at s0")
        if world.budget.wrong_databases:
            spent = world.budget._replace(wrong_databases=world.budget.wrong_databases - 1)
            elsewhere = Sight(None, is_over=True, is_verified=False)
            yield from self._concluded(
                world._replace(budget=spent),
                number,
                conclude(elsewhere),
                f"{who} looks at another database",
            )

    def _insert_abort(self, world: World, number: int, who: str) -> Iterator[Step]:
        if world.decisions.outcome:
            outcome = self.rules.conclude_insert(AbortRow.IN_THE_WAY)
            label = f"{who} finds a row in the way"
            yield from self._concluded(world, number, outcome, label, LOOKING_AGAIN)
        elif world.decisions.inserting != NOBODY:
            outcome = self.rules.conclude_insert(AbortRow.BUSY)
            yield from self._concluded(world, number, outcome, f"{who} waits in vain")
        else:
            row = world.decisions
            if self.rules.keeps_abort_row:
                row = row._replace(inserting=number)
            actor = world.actors[number]._replace(step=INSERTED)
            inserted = acting(world._replace(decisions=row), number, actor)
            yield f"{who} inserts an abort row", inserted

    def _commit_abort(self, world: World, number: int, who: str) -> Iterator[Step]:
        row = world.decisions
        if self.rules.keeps_abort_row:
            row = row._replace(inserting=NOBODY, outcome=2)
        outcome = self.rules.conclude_insert(AbortRow.INSERTED)
        done = world._replace(decisions=row)
        yield from self._concluded(done, number, outcome, f"{who} commits the abort row")
        if world.budget.losses:
            spent = world.budget._replace(losses=world.budget.losses - 1)
            undone = world._replace(decisions=unlocked(row, number), budget=spent)
            if self.rules.keeps_abort_row:
                undone = undone._replace(decisions=world.decisions._replace(inserting=NOBODY))
            label = f"{who} loses its connection, the abort row is undone"
            yield from self._concluded(undone, number, Outcome.UNKNOWN, label)

    def _concluded(
        self, world: World, number: int, outcome: Outcome | None, label: str, step: int = INSERTING
    ) -> Iterator[Step]:
        """Go on with an outcome, or with ``step`` where there is none yet."""
        actor = world.actors[number]
        if outcome is None:
            yield label, acting(world, number, actor._replace(step=step))
            return
        label = f"{label}: {outcome.value}"
        if outcome is not Outcome.UNKNOWN and not is_late(world, outcome):
            world = world._replace(told=world.told | {outcome})
        if number == len(world.actors) - 1:
            world = acting(world, number, Actor(DONE, NOTHING, None))
            command = world.dbs[0].asked
            heard = Heard(command, Reply.DONE, outcome=outcome)
            yield from self._coordinating.hear(world, 0, heard, label, world.dbs[0].link)
        else:
            yield label, acting(world, number, actor._replace(step=FINISHING, outcome=outcome))

    def _finish_part(self, world: World, number: int, who: str) -> Iterator[Step]:
        actor = world.actors[number]
        sql = self.rules.finishing_verb(actor.outcome)
        if sql is None:
            done = acting(world, number, Actor(DONE, NOTHING, None))
            yield f"{who} leaves what it found alone", done
            return
        verb = Verb.COMMIT_PREPARED if sql == COMMIT_PREPARED else Verb.ROLLBACK_PREPARED
        for here in actor.parts:
            left = actor.parts - {here}
            following = Actor(FINISHING if left else DONE, left, actor.outcome if left else None)
            done, is_there = finish(acting(world, number, following), here, verb)
            said = "done" if is_there else "does not exist"
            yield f"{who}: {sql} on {self.names[here]}: {said}", done
