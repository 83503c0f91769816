"""The unit of work: as many objects over all shards as a plain session writes to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from sqlalchemy_shards import ShardedSession

from .databases import plain_engine
from .report import compared
from .tables import Entry, StampedEntry
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy_shards import Cluster

    from .report import Figure

OBJECTS = 8_000
RATIO_MAX = 1.2


def measure(cluster: Cluster, urls: Mapping[str, str], *, rounds: int) -> Iterator[Figure]:
    """Flushes of `OBJECTS` objects; commits are not timed."""
    with plain_engine(urls[next(iter(urls))]) as engine:
        for name, prepare in (
            ("flush of 8,000 inserts", _new),
            ("flush of 8,000 inserts, value fetched", _new_stamped),
            ("flush of 8,000 updates", _changed),
            ("flush of 8,000 deletes", _deleted),
        ):
            contenders = [
                flushing("plain", cluster, lambda: Session(engine), prepare),
                flushing("ours", cluster, lambda: ShardedSession(cluster), prepare),
            ]
            times = take_turns(contenders, rounds=rounds, calls=1)
            yield compared(
                name,
                times["ours"],
                times["plain"],
                against="plain Session, one shard",
                ratio_max=RATIO_MAX,
            )


def flushing(
    name: str,
    cluster: Cluster,
    make: Callable[[], Session],
    prepare: Callable[[Session], None],
) -> Contender:
    """A contender that flushes what was prepared, and rolls it back."""
    held: list[Session] = []

    def before() -> None:
        empty(cluster)
        session = make()
        held.append(session)
        prepare(session)

    def after() -> None:
        with held.pop() as session:
            session.rollback()

    return Contender(name, lambda: held[0].flush(), before, after)


def empty(cluster: Cluster) -> None:
    """Leave no dead rows of earlier rounds, which would slow down the one shard most."""
    with cluster.engine.begin() as connection:
        connection.execute(
            text("TRUNCATE entries, stamped_entries"), execution_options={"shard": "*"}
        )


def _new(session: Session) -> None:
    session.add_all([Entry(id=key, name=f"name {key}", amount=key) for key in range(OBJECTS)])
    session.connection()


def _new_stamped(session: Session) -> None:
    session.add_all([StampedEntry(id=key, name=f"name {key}") for key in range(OBJECTS)])
    session.connection()


def _changed(session: Session) -> None:
    for entry in _existing(session):
        entry.amount += 1


def _deleted(session: Session) -> None:
    for entry in _existing(session):
        session.delete(entry)


def _existing(session: Session) -> list[Entry]:
    rows: list[dict[str, Any]] = [
        {"id": key, "name": f"name {key}", "amount": key} for key in range(OBJECTS)
    ]
    session.execute(insert(Entry), rows)
    return list(session.scalars(select(Entry)))
