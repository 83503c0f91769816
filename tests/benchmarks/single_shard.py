"""Statements for one shard, all plans cached: what the way through the cluster adds to them."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select
from sqlalchemy.ext.horizontal_shard import ShardedSession as HorizontalSession
from sqlalchemy.orm import Session

from sqlalchemy_shards import ShardedSession

from .databases import keys_on, plain_engine
from .report import compared
from .tables import Account
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Engine

    from sqlalchemy_shards import Cluster

    from .report import Figure

# Few, in many rounds: most slices then run undisturbed by what else the machine does.
CALLS = 20
ORM_RATIO_MAX = 1.03
CORE_RATIO_MAX = 1.08
HORIZONTAL_RATIO_MAX = 1.0

# Made once: what it costs to build a statement would only make the ratios look better.
BY_KEY = select(Account).where(Account.id == bindparam("key"))
CORE_BY_KEY = select(Account.__table__).where(Account.__table__.c.id == bindparam("key"))

PLAIN, OURS, HORIZONTAL = "plain", "ours", "horizontal_shard"


def measure(cluster: Cluster, urls: Mapping[str, str], *, rounds: int) -> Iterator[Figure]:
    """Reading by key within a transaction, and whole short transactions."""
    shard = next(iter(urls))
    keys = keys_on(cluster, shard)
    with plain_engine(urls[shard]) as engine:
        for name, read in (("get()", get), ("ORM select by key", select_by_key)):
            yield from _in_open_sessions(cluster, engine, keys, name, read, rounds=rounds)
        yield _core(cluster, engine, keys, rounds=rounds)
        for name, work in (
            ("session: open, get(), close", _read_and_close),
            ("session: open, get(), change, commit", _change_and_commit),
        ):
            yield from _whole_sessions(cluster, engine, keys, name, work, rounds=rounds)


# -- within one transaction --


def _in_open_sessions(
    cluster: Cluster,
    engine: Engine,
    keys: list[int],
    name: str,
    read: Callable[[Any, int], None],
    *,
    rounds: int,
) -> Iterator[Figure]:
    with ExitStack() as stack:
        sessions = {
            PLAIN: stack.enter_context(Session(engine)),
            OURS: stack.enter_context(ShardedSession(cluster)),
            HORIZONTAL: stack.enter_context(_horizontal(cluster, engine)),
        }
        contenders = [
            Contender(kind, _repeated(read, session, keys)) for kind, session in sessions.items()
        ]
        times = take_turns(contenders, rounds=rounds, calls=CALLS)
    own = times[OURS]
    yield compared(name, own, times[PLAIN], against="plain Session", ratio_max=ORM_RATIO_MAX)
    yield compared(name, own, times[HORIZONTAL], against=HORIZONTAL, ratio_max=HORIZONTAL_RATIO_MAX)


def _repeated(
    read: Callable[[Any, int], None], session: Any, keys: list[int]
) -> Callable[[], None]:
    key = cycle(keys)
    return lambda: read(session, next(key))


def get(session: Session, key: int) -> None:
    """Load an object that the session does not hold."""
    session.get(Account, key)
    session.expunge_all()


def select_by_key(session: Session, key: int) -> None:
    """The same by a statement that is cached."""
    session.scalars(BY_KEY, {"key": key}).one()
    session.expunge_all()


def _core(cluster: Cluster, engine: Engine, keys: list[int], *, rounds: int) -> Figure:
    def read(connection: Any, key: int) -> None:
        connection.execute(CORE_BY_KEY, {"key": key}).one()

    with engine.connect() as plain, cluster.engine.connect() as own:
        times = take_turns(
            [
                Contender(PLAIN, _repeated(read, plain, keys)),
                Contender(OURS, _repeated(read, own, keys)),
            ],
            rounds=rounds,
            calls=CALLS,
        )
    return compared(
        "Core select by key",
        times[OURS],
        times[PLAIN],
        against="plain Connection",
        ratio_max=CORE_RATIO_MAX,
    )


# -- whole sessions --


def _whole_sessions(
    cluster: Cluster,
    engine: Engine,
    keys: list[int],
    name: str,
    work: Callable[[Callable[[], Any], int], None],
    *,
    rounds: int,
) -> Iterator[Figure]:
    makers: dict[str, Callable[[], Any]] = {
        PLAIN: lambda: Session(engine),
        OURS: lambda: ShardedSession(cluster),
        HORIZONTAL: lambda: _horizontal_session(cluster, engine),
    }
    contenders = [Contender(kind, _repeated(work, make, keys)) for kind, make in makers.items()]
    times = take_turns(contenders, rounds=rounds, calls=CALLS)
    yield compared(name, times[OURS], times[PLAIN], against="plain Session")
    yield compared(name, times[OURS], times[HORIZONTAL], against=HORIZONTAL)


def _read_and_close(make: Callable[[], Any], key: int) -> None:
    with make() as session:
        session.get(Account, key)


def _change_and_commit(make: Callable[[], Any], key: int) -> None:
    with make() as session:
        session.get(Account, key).balance += 1
        session.commit()


# -- horizontal_shard --


@contextmanager
def _horizontal(cluster: Cluster, engine: Engine) -> Iterator[HorizontalSession]:
    with _horizontal_session(cluster, engine) as session:
        yield session


def _horizontal_session(cluster: Cluster, engine: Engine) -> HorizontalSession:
    """At its cheapest: its choosers know the answer without looking."""
    (name, *_) = cluster.shards
    return HorizontalSession(
        shard_chooser=lambda mapper, instance, clause=None: name,
        identity_chooser=lambda mapper, primary_key, **_: (name,),
        execute_chooser=lambda context: (name,),
        shards=dict.fromkeys(cluster.shards, engine),
    )
