"""The arrows of the protocol, and what can happen to whoever stands at their ends."""

from __future__ import annotations

import enum
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, text, update

from sqlalchemy_shards import ShardedSession
from sqlalchemy_shards.events import at
from sqlalchemy_shards.transactions import fail_points
from sqlalchemy_shards.transactions.acknowledged import BATCH
from tests.faults.client import client
from tests.faults.models import Account
from tests.faults.proxy import Fate, Moment
from tests.faults.world import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy_shards import Cluster
    from tests.faults.world import World


class When(enum.Enum):
    """When a fault happens; the values are the columns of the table."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class Fault(enum.Enum):
    """What happens; the values are the names of the table's rows."""

    CLIENT = "client killed"
    BACKEND = "backend killed"
    SERVER = "server killed"
    LOST = "connection lost"
    HANG = "connection hangs"
    OTHER_SERVER = "other server killed"


def nothing(_: World) -> AbstractContextManager[None]:
    """No preparation."""
    return nullcontext()


def warm_up(cluster: Cluster) -> None:
    """Let everything be known that is asked once for each process."""
    with ShardedSession(cluster) as session:
        session.scalars(select(Account)).all()


def owe_rows(cluster: Cluster) -> None:
    """The same, and so many finished transactions that their decision rows are to be removed."""
    warm_up(cluster)
    for number in range(BATCH):
        cluster._coordinator._wiring.acknowledged.add("s0", f"finished {number}")


@dataclass(frozen=True)
class Arrow:
    """A request of the protocol, and where it goes.

    :param target: the shard that it goes to.
    :param pattern: regular expression that finds its SQL.
    :param before: fail-point that is passed before it is sent.
    :param after: fail-point that is passed when it was answered.
    :param action: runs what comes to this arrow.
    :param other: the shard that is killed as `Fault.OTHER_SERVER`, if that makes a difference.
    :param surroundings: what must be so before, and stays so meanwhile.
    :param preparation: what the same client does before.
    :param faults: what is tried here.
    :param is_patient: whoever sent it waits for ever where nobody answers.
    """

    name: str
    target: str
    pattern: str
    before: str
    after: str
    action: Callable[[Cluster], Any]
    other: str | None = None
    surroundings: Callable[[World], AbstractContextManager[None]] = nothing
    preparation: Callable[[Cluster], None] = warm_up
    is_patient: bool = False

    faults: tuple[Fault, ...] = tuple(Fault)


# -- what clients do --


def raise_all(cluster: Cluster) -> None:
    """Add 1 to every account."""
    with ShardedSession(cluster) as session:
        raise_amounts(session)
        session.commit()


def raise_one_by_one(cluster: Cluster) -> None:
    """The same, with a statement for each shard, so that one can be asked beside another's."""
    with ShardedSession(cluster) as session:
        for place in SHARDS:
            raised = update(Account).where(Account.place == place)
            session.execute(raised.values(amount=Account.amount + 1))
        session.commit()


def raise_all_in_vain(cluster: Cluster) -> None:
    """The same, but a constraint that `s2` looks at last is broken."""
    with ShardedSession(cluster) as session:
        raise_amounts(session)
        session.flush()
        break_at_commit(session, "s2")
        session.commit()


def raise_amounts(session: ShardedSession) -> None:
    """Add 1 to every account that the session sees."""
    for account in session.scalars(select(Account).order_by(Account.place)):
        account.amount += 1


def break_at_commit(session: ShardedSession, shard: str) -> None:
    """Break a constraint that the shard looks at when the transaction is prepared or committed."""
    twice = text("INSERT INTO slot VALUES (1), (1)")
    session.execute(twice, execution_options={"shard": shard})


def recover(cluster: Cluster) -> bool:
    """Finish what is left; return whether nothing is."""
    return cluster.recover().is_clean


# -- what must be so before --


@contextmanager
def reply_to_the_decision_is_lost(world: World) -> Iterator[None]:
    world.proxies["s0"].trap("^COMMIT$", Fate.CLOSE, moment=Moment.REPLY)
    yield


@contextmanager
def the_decision_is_lost(world: World) -> Iterator[None]:
    """And the decision shard cannot tell that its transaction is over."""
    with world.held_xid("s0"):
        world.proxies["s0"].trap("^COMMIT$", Fate.CLOSE)
        yield


@contextmanager
def decided(world: World) -> Iterator[None]:
    """A client has died right after the decision."""
    leave_in_doubt(world, fail_points.AFTER_DECISION)
    yield


@contextmanager
def undecided(world: World) -> Iterator[None]:
    """A client has died right before the decision; `s0` cannot tell that it is over."""
    with world.held_xid("s0"):
        leave_in_doubt(world, fail_points.BEFORE_DECISION)
        yield


@contextmanager
def expired(world: World) -> Iterator[None]:
    """The row of a decision is older than it is kept."""
    leave_in_doubt(world, fail_points.AFTER_ROUND_3)
    world.ask("s0", "UPDATE shards.decisions SET decided_at = decided_at - interval '1 year'")
    yield


def leave_in_doubt(world: World, fail_point: str) -> None:
    """Let a client die at a fail-point, and wait until the servers have noticed."""
    with client(world.direct, raise_all, dies_at=fail_point) as process:
        process.go()
        process.wait_for_death()
    world.wait_for_idle()


# -- the arrows --


def _of_recovery(
    name: str,
    target: str,
    pattern: str,
    points: tuple[str, str],
    surroundings: Callable[[World], AbstractContextManager[None]],
) -> Arrow:
    # A backend that is killed is one that breaks its connection, here.
    faults = (Fault.CLIENT, Fault.SERVER, Fault.LOST, Fault.HANG)
    before, after = points
    return Arrow(
        name,
        target,
        pattern,
        before,
        after,
        recover,
        surroundings=surroundings,
        is_patient=True,
        faults=faults,
    )


_COMMITTING = (
    Arrow(
        "statement",
        "s1",
        r"^UPDATE account",
        at(fail_points.BEFORE_STATEMENT, "s1"),
        at(fail_points.AFTER_STATEMENT, "s1"),
        raise_all,
        is_patient=True,
    ),
    Arrow(
        "early xid",
        "s0",
        r"SELECT pg_catalog\.pg_current_xact_id\(",
        at(fail_points.BEFORE_STATEMENT, "s1"),
        at(fail_points.AFTER_STATEMENT, "s1"),
        raise_one_by_one,
    ),
    Arrow(
        "round 0",
        "s0",
        r"SELECT pg_catalog\.pg_current_xact_id\(",
        fail_points.BEFORE_ROUND_0,
        fail_points.AFTER_ROUND_0,
        raise_all,
    ),
    Arrow(
        "decision row",
        "s0",
        r"INSERT INTO shards\.decisions",
        fail_points.BEFORE_DECISION_ROW,
        fail_points.AFTER_DECISION_ROW,
        raise_all,
        other="s1",
    ),
    Arrow(
        "prepare",
        "s1",
        r"^PREPARE TRANSACTION",
        at(fail_points.BEFORE_PREPARE, "s1"),
        at(fail_points.AFTER_PREPARE, "s1"),
        raise_all,
        other="s0",
    ),
    Arrow(
        "decision",
        "s0",
        r"^COMMIT$",
        fail_points.BEFORE_DECISION,
        fail_points.AFTER_DECISION,
        raise_all,
        other="s1",
    ),
    Arrow(
        "commit prepared",
        "s1",
        r"^COMMIT PREPARED",
        at(fail_points.BEFORE_COMMIT_PREPARED, "s1"),
        at(fail_points.AFTER_COMMIT_PREPARED, "s1"),
        raise_all,
        other="s0",
    ),
    Arrow(
        "forget",
        "s0",
        r"DELETE FROM shards\.decisions",
        fail_points.BEFORE_FORGET,
        fail_points.AFTER_FORGET,
        raise_all,
        preparation=owe_rows,
    ),
    Arrow(
        "rollback",
        "s1",
        r"^ROLLBACK PREPARED",
        at(fail_points.BEFORE_ROLLBACK_PREPARED, "s1"),
        at(fail_points.AFTER_ROLLBACK_PREPARED, "s1"),
        raise_all_in_vain,
    ),
    Arrow(
        "look",
        "s0",
        r"SELECT decided\.outcome",
        fail_points.BEFORE_LOOK,
        fail_points.AFTER_LOOK,
        raise_all,
        surroundings=reply_to_the_decision_is_lost,
    ),
    Arrow(
        "abort row",
        "s0",
        r"(?s)INSERT INTO shards\.decisions.*'abort'",
        fail_points.BEFORE_ABORT_ROW,
        fail_points.AFTER_ABORT_ROW,
        raise_all,
        surroundings=the_decision_is_lost,
    ),
)

_RECOVERING = (
    _of_recovery(
        "recovery: list",
        "s1",
        r"FROM pg_catalog\.pg_prepared_xacts",
        (at(fail_points.BEFORE_LIST, "s1"), at(fail_points.AFTER_LIST, "s1")),
        decided,
    ),
    _of_recovery(
        "recovery: look",
        "s0",
        r"JOIN shards\.decisions",
        (fail_points.BEFORE_LOOK, fail_points.AFTER_LOOK),
        decided,
    ),
    _of_recovery(
        "recovery: abort row",
        "s0",
        r"(?s)INSERT INTO shards\.decisions.*'abort'",
        (fail_points.BEFORE_ABORT_ROW, fail_points.AFTER_ABORT_ROW),
        undecided,
    ),
    _of_recovery(
        "recovery: finish",
        "s1",
        r"^COMMIT PREPARED",
        (at(fail_points.BEFORE_FINISH, "s1"), at(fail_points.AFTER_FINISH, "s1")),
        decided,
    ),
    _of_recovery(
        "recovery: clean-up",
        "s0",
        r"DELETE FROM shards\.decisions",
        (fail_points.BEFORE_CLEAN_UP, fail_points.AFTER_CLEAN_UP),
        expired,
    ),
)

ARROWS = (*_COMMITTING, *_RECOVERING)
