"""What PostgreSQL does with the commands of the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy_shards.transactions.gid import TransactionGid
from sqlalchemy_shards.transactions.protocol.coordinator import Command, Verb
from sqlalchemy_shards.transactions.protocol.replies import (
    COMMIT,
    COMMIT_PREPARED,
    DOES_NOT_EXIST,
    PREPARE,
    ROLLBACK,
    ROLLBACK_PREPARED,
    Link,
    Reply,
)
from sqlalchemy_shards.transactions.protocol.settling import Outcome
from tests.model.world import (
    ABORTED,
    COMMITTED,
    COORDINATOR,
    ENDED,
    FAILED,
    GONE,
    NOBODY,
    OPEN,
    STALE,
    Actor,
    Db,
    Decisions,
    World,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.rules import Rules

NAMES = ("s0", "s1", "s2")
UUIDS = tuple(UUID(int=10 + number) for number in range(3))
CLUSTER = UUID(int=1)
GID = TransactionGid(CLUSTER, UUID(int=2), UUIDS[0], 741)
NOTHING: frozenset[Any] = frozenset()
ROW_OUTCOMES = (None, Outcome.COMMITTED, Outcome.ABORTED)
SQL = {
    Verb.COMMIT_PREPARED: COMMIT_PREPARED,
    Verb.ROLLBACK_PREPARED: ROLLBACK_PREPARED,
}

Step = tuple[str, World]


class Databases:
    """What the databases do, and what the real protocol reads from their answers."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.decision_xid = GID.decision_xid

    def execute(
        self, world: World, number: int, command: Command
    ) -> Iterator[tuple[str, World, Reply, Any]]:
        """Carry out a command: what was said, what came of it, the reply, and the link."""
        db, verb = world.dbs[number], command.verb
        rules = self.rules
        if verb is Verb.ASK or verb is Verb.ASK_AND_ASSIGN:
            yield "asked", world, Reply.DONE, db.link
        elif verb is Verb.INSERT_DECISION:
            yield from self._insert_decision(world, number)
        elif verb is Verb.PREPARE or verb is Verb.DECIDE:
            sql = PREPARE if verb is Verb.PREPARE else COMMIT
            done = self._end_work(world, number, verb)
            tag = ROLLBACK if db.tx == FAILED else sql
            yield f"answered {tag}", done, rules.read_tag(sql, tag), Link.IDLE
            if world.budget.refusals and db.tx == OPEN:
                spent = world.budget._replace(refusals=world.budget.refusals - 1)
                undone = rolled_back(world._replace(budget=spent), number)
                reply = rules.read_error(sql, "23505", is_lost=False)
                yield "refused", undone, reply, Link.IDLE
        elif verb is Verb.ROLLBACK:
            yield "done", rolled_back(world, number), Reply.DONE, Link.IDLE
        else:
            done, is_there = finish(world, number, verb)
            found = (
                rules.read_listing(is_verified=True, is_listed=is_there) if command.anew else None
            )
            if found is None and is_there:
                yield "done", done, rules.read_tag(SQL[verb], SQL[verb]), db.link
            else:
                reply = found or rules.read_error(SQL[verb], DOES_NOT_EXIST, is_lost=False)
                yield "does not exist", done, reply, db.link

    def _insert_decision(
        self, world: World, number: int
    ) -> Iterator[tuple[str, World, Reply, Any]]:
        if world.decisions.inserting not in (NOBODY, COORDINATOR):
            return  # it waits for the other one's row
        if world.dbs[number].tx == FAILED:
            reply = self.rules.read_error("INSERT", "25P02", is_lost=False)
            yield "refused: the transaction has failed", world, reply, Link.FAILED
        elif world.decisions.outcome:
            failed = with_db(world, number, tx=FAILED)
            reply = self.rules.read_error("INSERT", "23505", is_lost=False)
            yield "refused: an abort row is there", failed, reply, Link.FAILED
        else:
            yield "done", row_inserted(world, number), Reply.DONE, Link.OPEN

    def _end_work(self, world: World, number: int, verb: Verb) -> World:
        """PREPARE or COMMIT the open transaction, which may have failed."""
        if world.dbs[number].tx != OPEN:
            return rolled_back(world, number)
        if verb is Verb.PREPARE:
            return with_db(world, number, tx=ENDED, is_prepared=True)
        row = world.decisions._replace(
            outcome=1 if world.dbs[number].has_row else world.decisions.outcome,
            inserting=NOBODY,
            is_flushed=self.rules.flushes_decision,
        )
        world = world._replace(decisions=row)
        return with_db(world, number, tx=ENDED, has_row=False, fate=COMMITTED)

    def is_over(self, world: World) -> bool:
        """Whether the xid in the gid is below the snapshot's xmin on the decision shard."""
        if self.decision_xid == 0:
            return True  # no transaction has that one
        return world.dbs[0].tx == ENDED and not world.decisions.is_busy


def with_db(world: World, number: int, **changed: Any) -> World:
    db = world.dbs[number]._replace(**changed)
    if db.session == STALE and db.tx == ENDED and db.unread is None:
        db = db._replace(session=GONE)
    return world._replace(dbs=(*world.dbs[:number], db, *world.dbs[number + 1 :]))


def acting(world: World, number: int, actor: Actor) -> World:
    actors = (*world.actors[:number], actor, *world.actors[number + 1 :])
    return world._replace(actors=actors)


def unlocked(row: Decisions, who: int) -> Decisions:
    return row._replace(inserting=NOBODY) if row.inserting == who else row


def row_inserted(world: World, number: int) -> World:
    row = world.decisions._replace(inserting=COORDINATOR)
    return with_db(world._replace(decisions=row), number, has_row=True)


def row_removed(world: World) -> World:
    row = world.decisions._replace(outcome=0)
    done = world.cleaner._replace(is_done=True, seen=None, listed=NOTHING, holds=False)
    return world._replace(decisions=row, cleaner=done)


def rolled_back(world: World, number: int) -> World:
    db = world.dbs[number]
    if db.tx == ENDED:
        return world
    if db.has_row:
        world = world._replace(decisions=unlocked(world.decisions, COORDINATOR))
    return with_db(world, number, tx=ENDED, has_row=False, fate=ABORTED)


def finish(world: World, number: int, verb: Verb) -> tuple[World, bool]:
    if not world.dbs[number].is_prepared:
        return world, False
    fate = COMMITTED if verb is Verb.COMMIT_PREPARED else ABORTED
    return with_db(world, number, is_prepared=False, fate=fate), True


def is_late(world: World, outcome: Outcome) -> bool:
    """Whether the question came when all was finished, so that the answer moves nothing."""
    return outcome is Outcome.ABORTED and all(db.fate == COMMITTED for db in world.dbs)


def is_settling(db: Db) -> bool:
    return db.asked is not None and db.asked.verb is Verb.SETTLE
