"""Commits of several participants, beside the same rounds of PostgreSQL's by hand.

By hand means: the statements of the protocol (row of the decision, PREPARE TRANSACTION, COMMIT,
COMMIT PREPARED) sent to all connections before the first answer is read, by libpq's own calls, with
nothing of what a library must do about errors, deadlines and lost connections.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import TYPE_CHECKING, TypeAlias
from uuid import uuid4

from psycopg.pq import ExecStatus
from sqlalchemy import bindparam, update

from .databases import driver_connections, keys_on
from .report import compared
from .tables import Account
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg
    from sqlalchemy import Connection

    from sqlalchemy_shards import Cluster

    from .report import Figure

    Driver: TypeAlias = psycopg.Connection[tuple[object, ...]]

PARTICIPANTS = (2, 4)

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


def measure(cluster: Cluster, urls: Mapping[str, str], *, rounds: int) -> Iterator[Figure]:
    """Only the commits are timed; one row is changed on each shard before."""
    for count in PARTICIPANTS:
        yield _measured(cluster, dict(islice(urls.items(), count)), rounds=rounds)


def _measured(cluster: Cluster, urls: Mapping[str, str], *, rounds: int) -> Figure:
    keys = {name: cycle(keys_on(cluster, name)) for name in urls}
    with cluster.engine.connect() as own, driver_connections(urls) as drivers:
        by_hand = _by_hand(drivers, keys)
        ours = Contender("ours", own.commit, lambda: _change(own, keys))
        times = take_turns([by_hand, ours], rounds=rounds, calls=1)
    return compared(
        f"commit of {len(urls)} participants", times["ours"], times["by hand"], against="by hand"
    )


def _change(own: Connection, keys: Mapping[str, Iterator[int]]) -> None:
    for each in keys.values():
        own.execute(CHANGE, {"key": next(each)})


# -- by hand --


def _by_hand(drivers: Mapping[str, Driver], keys: Mapping[str, Iterator[int]]) -> Contender:
    deciding, *others = drivers.values()

    def change() -> None:
        for name, driver in drivers.items():
            driver.execute(CHANGE_BY_HAND, (next(keys[name]),))

    def commit() -> None:
        gid = f"by-hand-{uuid4().hex}"
        names = {driver: f"{gid}-{number}" for number, driver in enumerate(others)}
        _at_once({deciding: ASSIGN})
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
