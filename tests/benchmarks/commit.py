"""Commits of several participants, beside the same rounds of PostgreSQL's by hand.

By hand means: the statements of the protocol (row of the decision, PREPARE TRANSACTION, COMMIT,
COMMIT PREPARED) sent to all connections before the first answer is read, by libpq's own calls, with
nothing of what a library must do about errors, deadlines and lost connections. The question for the
xid is part of the changes before, as it is here, where it goes beside the second of them.
`Session(twophase=True)` is SQLAlchemy's own: no decision is kept, so that a crash between two
COMMIT PREPARED leaves nobody who knows; its statements go one after the other.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from time import process_time
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from psycopg.pq import ExecStatus
from sqlalchemy import BigInteger, bindparam, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from .databases import driver_connections, keys_on, plain_engine
from .delay import delayed
from .report import compared
from .tables import Account
from .timing import Contender, take_turns
from .work import CAN_COUNT, counted, of_work

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg
    from sqlalchemy import Connection

    from sqlalchemy_shards import Cluster

    from .report import Figure
    from .timing import Times

    Driver: TypeAlias = psycopg.Connection[tuple[object, ...]]

PARTICIPANTS = (1, 2, 3, 4, 8)
ROUND_TRIPS = 3
DELAY_SECONDS = 0.001

GOAL_BY_HAND = 1.15
GOAL_AWAY = 1.2

CHANGE = (
    update(Account.__table__)
    .where(Account.__table__.c.id == bindparam("key"))
    .values(balance=Account.__table__.c.balance + 1)
)
CHANGE_BY_HAND = "UPDATE accounts SET balance = balance + 1 WHERE id = %s"
ASSIGN = b"SELECT pg_current_xact_id()::text"
DECIDE = """
INSERT INTO shards.decisions (gid, decision_xid, outcome, participants, format)
SELECT '{gid}', pg_current_xact_id(), 'commit', ARRAY[shard_uuid::text], 1 FROM shards.identity
"""
FORGET = b"DELETE FROM shards.decisions WHERE gid LIKE 'by-hand-%'"


def measure(
    cluster: Cluster, urls: Mapping[str, str], *, rounds: int, how: str = ""
) -> Iterator[Figure]:
    """Only the commits are timed; one row is changed on each shard before.

    :param how: of the servers, where it is not as ever.
    """
    for count in PARTICIPANTS:
        chosen = dict(islice(urls.items(), count))
        times = _times(cluster, chosen, rounds=rounds)
        name = f"commit of {count} participant{'s' if count > 1 else ''}{how}"
        ours = times["ours"]
        yield compared(name, ours, times["by hand"], against="by hand", ratio_max=GOAL_BY_HAND)
        if count > 1:
            yield compared(
                name, ours, times["twophase"], against="Session(twophase=True)", ratio_max=1.0
            )


def measure_work(cluster: Cluster, urls: Mapping[str, str], *, rounds: int) -> Iterator[Figure]:
    """What commits cost the client: processor time, and bytecodes, which no load changes."""
    for count in PARTICIPANTS[1:]:
        chosen = dict(islice(urls.items(), count))
        keys = {name: cycle(keys_on(cluster, name)) for name in chosen}
        name = f"commit of {count} participants"
        with cluster.engine.connect() as own, driver_connections(chosen) as drivers:
            hand = _by_hand(drivers, keys)
            ours = Contender("ours", own.commit, lambda own=own, keys=keys: _change(own, keys))
            times = take_turns([hand, ours], rounds=rounds, calls=1, clock=process_time)
            yield compared(
                f"{name}, processor time", times["ours"], times["by hand"], against="by hand"
            )
            if CAN_COUNT:
                work = [counted(each.call, each.before) for each in (hand, ours)]
                yield of_work(name, *work, against="by hand")


def measure_away(cluster: Cluster, urls: Mapping[str, str], *, rounds: int) -> Iterator[Figure]:
    """With servers a millisecond away: the round trips are what a commit takes.

    :param cluster: over servers that are reached late; its shards are those of ``urls``.
    """
    for count in PARTICIPANTS[1:]:
        chosen = dict(islice(urls.items(), count))
        keys = {name: cycle(keys_on(cluster, name)) for name in chosen}
        with cluster.engine.connect() as own, driver_connections(chosen) as drivers:
            first = next(iter(drivers.values()))
            first.autocommit = True
            trips = Contender("trips", lambda first=first: _trips(first))
            ours = Contender("ours", own.commit, lambda own=own, keys=keys: _change(own, keys))
            times = take_turns([trips, ours], rounds=rounds, calls=1)
        yield compared(
            f"commit of {count} participants, servers 1 ms away",
            times["ours"],
            times["trips"],
            against=f"{ROUND_TRIPS} round trips",
            ratio_max=GOAL_AWAY,
        )


@contextmanager
def away(urls: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The same databases, a millisecond away."""
    with delayed(urls, seconds=DELAY_SECONDS) as found:
        yield found


def _times(cluster: Cluster, urls: Mapping[str, str], *, rounds: int) -> dict[str, Times]:
    keys = {name: cycle(keys_on(cluster, name)) for name in urls}
    with (
        cluster.engine.connect() as own,
        driver_connections(urls) as drivers,
        _two_phase_session(urls) as (session, classes),
    ):
        contenders = [
            _by_hand(drivers, keys),
            Contender("ours", own.commit, lambda: _change(own, keys)),
        ]
        if len(urls) > 1:
            change = lambda: _change_each(session, classes, keys)  # noqa: E731
            contenders.append(Contender("twophase", session.commit, change))
        return take_turns(contenders, rounds=rounds, calls=1)


def _change(own: Connection, keys: Mapping[str, Iterator[int]]) -> None:
    for each in keys.values():
        own.execute(CHANGE, {"key": next(each)})


def _trips(driver: Driver) -> None:
    for _ in range(ROUND_TRIPS):
        _at_once({driver: b"SELECT 1"})


# -- SQLAlchemy's own two-phase commit --


@contextmanager
def _two_phase_session(
    urls: Mapping[str, str],
) -> Iterator[tuple[Session, dict[str, type[Any]]]]:
    """A session with a class for each shard, since it tells databases apart by classes."""
    classes = {name: _class_of_its_own() for name in urls}
    with ExitStack() as stack:
        engines = {name: stack.enter_context(plain_engine(url)) for name, url in urls.items()}
        binds: Any = {classes[name]: engine for name, engine in engines.items()}
        yield stack.enter_context(Session(binds=binds, twophase=True)), classes


def _class_of_its_own() -> type[Any]:
    class Base(DeclarativeBase):
        pass

    class PlainAccount(Base):
        __tablename__ = "accounts"

        id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        balance: Mapped[int]

    return PlainAccount


def _change_each(
    session: Session, classes: Mapping[str, type[Any]], keys: Mapping[str, Iterator[int]]
) -> None:
    for name, each in keys.items():
        cls = classes[name]
        session.execute(
            update(cls).where(cls.id == next(each)).values(balance=cls.balance + 1),
            execution_options={"synchronize_session": False},
        )


# -- by hand --


def _by_hand(drivers: Mapping[str, Driver], keys: Mapping[str, Iterator[int]]) -> Contender:
    deciding, *others = drivers.values()

    def change() -> None:
        for name, driver in drivers.items():
            driver.execute(CHANGE_BY_HAND, (next(keys[name]),))
        if others:
            _at_once({deciding: ASSIGN})

    def commit() -> None:
        if not others:
            _at_once({deciding: b"COMMIT"})
            return
        gid = f"by-hand-{uuid4().hex}"
        names = {driver: f"{gid}-{number}" for number, driver in enumerate(others)}
        _at_once(
            {
                deciding: DECIDE.format(gid=gid).encode(),
                **{each: f"PREPARE TRANSACTION '{name}'".encode() for each, name in names.items()},
            }
        )
        _at_once({deciding: b"COMMIT"})
        _at_once({each: f"COMMIT PREPARED '{name}'".encode() for each, name in names.items()})

    def forget() -> None:
        deciding.execute(FORGET)
        deciding.commit()

    return Contender("by hand", commit, change, forget)


def _at_once(statements: Mapping[Driver, bytes]) -> None:
    """Send everything, then read everything."""
    for driver, statement in statements.items():
        driver.pgconn.send_query(statement)
    for driver in statements:
        while (result := driver.pgconn.get_result()) is not None:
            if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
                raise RuntimeError(result.get_error_message())
