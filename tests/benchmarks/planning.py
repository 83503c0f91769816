"""What planning costs: of a statement that is new, and of one whose plan is kept.

The execution of each statement is stopped before anything is sent; its context is then dispatched
again and again. No server is asked, but once for what the catalogs know.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, func, select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.orm import joinedload

from sqlalchemy_shards.cluster.dialect import ShardsDialect
from sqlalchemy_shards.cluster.dispatch.by_key import shard_by_key
from sqlalchemy_shards.cluster.dispatch.dispatch import dispatch
from sqlalchemy_shards.cluster.dispatch.work import Given

from .report import Figure
from .tables import Author, Book
from .timing import Contender, take_turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from sqlalchemy_shards import Cluster

    from .timing import Times

CALLS = 5
KEPT_US_MAX = 10.0
NEW_RATIO_MAX = 1.0

STATEMENTS: Mapping[str, Any] = {
    "by key": select(Author).where(Author.id == 5),
    "filter": select(Author).where(Author.country == "in", Author.born > 1900),
    "ordered, limited": select(Author)
    .where(Author.country == "in")
    .order_by(Author.born.desc(), Author.id)
    .limit(10),
    "joined load": select(Author).options(joinedload(Author.books)).where(Author.born > 1900),
    "aggregates": select(func.count(), func.max(Book.pages)).where(Book.printed > 1950),
    "group by": select(Author.country, func.count(), func.avg(Author.born)).group_by(
        Author.country
    ),
    "join of other keys": select(Author.name, Book.title)
    .join(Book, Book.printed == Author.born)
    .where(Author.country == "in", Book.pages > 100),
}


class _Stop(Exception):
    pass


class _Stopping:
    def on_dispatch(self, decided: Any) -> None:
        raise _Stop

    def on_step(self, name: str, shard: str | None, seconds: float, answer: Any) -> None:
        pass


def measure(cluster: Cluster, *, rounds: int) -> Iterator[Figure]:
    """Each statement: its plan made anew against its compilation, and its plan kept."""
    with cluster.engine.connect() as connection:
        for name, statement in STATEMENTS.items():
            given = _given(connection, statement)
            yield from _figures(name, statement, given, connection, rounds=rounds)


def _given(connection: Connection, statement: Any) -> Given:
    """What the cluster cursor is given for a statement."""
    found: list[Given] = []

    def note(*arguments: Any) -> None:
        _, _, sql, parameters, context, _ = arguments
        found.append(Given(context, sql, parameters, is_many=False))

    event.listen(connection, "before_cursor_execute", note)
    try:
        with _stopped(connection):
            connection.execute(statement)
    except _Stop:
        return found[0]
    finally:
        event.remove(connection, "before_cursor_execute", note)
    raise AssertionError("it was executed")


@contextmanager
def _stopped(connection: Connection) -> Iterator[None]:
    driver: Any = connection.connection.driver_connection
    driver.observer = _Stopping()
    try:
        yield
    finally:
        driver.observer = None


def _figures(
    name: str, statement: Any, given: Given, connection: Connection, *, rounds: int
) -> Iterator[Figure]:
    around: Any = connection.connection.driver_connection
    compiled: Any = given.context.compiled
    plain, shards = PGDialect_psycopg(), ShardsDialect()  # type: ignore[no-untyped-call]

    def kept() -> Any:
        given.values = None  # of another execution
        return shard_by_key(given.context, around) or dispatch(given, around)

    def new() -> Any:
        compiled.plan = None
        return kept()

    new()
    contenders = [
        Contender("plain", lambda: statement.compile(dialect=plain)),
        Contender("ours", lambda: statement.compile(dialect=shards)),
        Contender("new", new),
        Contender("kept", kept),
    ]
    times = take_turns(contenders, rounds=rounds, calls=CALLS)
    yield _new_plan(name, times)
    yield _kept_plan(name, times["kept"])


def _new_plan(name: str, times: Mapping[str, Times]) -> Figure:
    """What the compiler takes note of is a part of it."""

    def added(plain: float, ours: float, new: float, kept: float) -> float:
        return ours - plain + new - kept

    typical = added(*(times[each].typical for each in ("plain", "ours", "new", "kept")))
    least = added(*(times[each].least for each in ("plain", "ours", "new", "kept")))
    ratio = typical / times["plain"].typical
    return Figure(
        f"a new plan: {name}",
        "SQLAlchemy's compilation",
        times["plain"].typical * 1e6,
        typical * 1e6,
        ratio,
        least / times["plain"].least,
        f"<= {NEW_RATIO_MAX:.2f}x",
        round(ratio, 3) <= NEW_RATIO_MAX,
        goal_ratio=NEW_RATIO_MAX,
    )


def _kept_plan(name: str, kept: Times) -> Figure:
    own = kept.typical * 1e6
    return Figure(
        f"a kept plan: {name}",
        "the goal",
        KEPT_US_MAX,
        own,
        own / KEPT_US_MAX,
        kept.least * 1e6 / KEPT_US_MAX,
        f"{KEPT_US_MAX:,.0f} us",
        own <= KEPT_US_MAX,
        is_ratio=False,
    )
