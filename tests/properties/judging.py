"""What a cluster gave for a statement, held against what one database gave."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sqlalchemy_shards.errors import ScatterNotAllowed, ShardsError, UnsupportedStatement
from tests.properties.world import Base

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tests.properties.free_statements import FreeStatement

REFUSALS = (UnsupportedStatement, ScatterNotAllowed)


@dataclass
class Answer:
    """What one database, or a cluster, gave: comparable rows, or an error."""

    rows: list[Any] = field(default_factory=list)
    error: Exception | None = None

    @property
    def refusal(self) -> str | None:
        """Why it was refused, without what is told of this one statement."""
        return refusal_of(self.error) if isinstance(self.error, REFUSALS) else None

    @property
    def sqlstate(self) -> str | None:
        """What PostgreSQL calls the error."""
        if isinstance(self.error, DBAPIError):
            return getattr(self.error.orig, "sqlstate", None)
        return None


def ask(session: Session, free: FreeStatement, statement: Any = None) -> Answer:
    """Ask for a statement, or for another one in its place; leave the session as it was."""
    try:
        result = session.execute(free.statement if statement is None else statement)
        rows = result.unique() if free.is_unique else result
        loose = free.is_loose
        return Answer([tuple(normal(each, is_loose=loose) for each in row) for row in rows])
    except (SQLAlchemyError, ShardsError) as error:
        return Answer(error=error)
    finally:
        session.rollback()
        session.expunge_all()


def refusal_of(error: Exception) -> str:
    """The sentence of a refusal, without names and numbers."""
    reason = str(error).partition(";")[0].partition("\n")[0]
    return re.sub(r"'[^']*'|\d+", "...", reason.rpartition(": ")[2])


def difference_of_errors(one: Answer, cluster: Answer) -> str:
    """The same where at least one of them failed."""
    if one.error is not None and cluster.error is not None and one.sqlstate:
        if one.sqlstate == cluster.sqlstate:
            return ""
    elif one.error is not None and type(one.error) is type(cluster.error):
        return ""
    ones, clusters = one.error or one.rows[:9], cluster.error or cluster.rows[:9]
    return f"one database: {ones}\ncluster: {clusters}"


def difference(free: FreeStatement, one: Answer, cluster: Answer, whole: Answer | None) -> str:
    """What a cluster did otherwise than one database; empty: nothing."""
    if one.error is not None or cluster.error is not None:
        return difference_of_errors(one, cluster)
    if free.is_total and _as_sorted(one.rows) != _as_sorted(cluster.rows):
        return _told("rows", one.rows, cluster.rows)
    if free.keys:
        orders = [
            [[_as_sorted(row[number]) for number in free.keys] for row in each.rows]
            for each in (one, cluster)
        ]
        if orders[0] != orders[1]:
            return _told("order", *orders)
    if whole is None:
        if Counter(map(repr, one.rows)) != Counter(map(repr, cluster.rows)):
            return _told("rows", one.rows, cluster.rows)
        return ""
    if len(one.rows) != len(cluster.rows):
        return _told("number of rows", one.rows, cluster.rows)
    extra = Counter(map(repr, cluster.rows)) - Counter(map(repr, whole.rows))
    return f"rows that are in no answer: {extra}" if extra else ""


def _as_sorted(value: Any) -> Any:
    """Normal values, as far as ORDER BY tells them from others: 1.0 and 1.00 lie in any order."""
    match value:
        case ("Decimal", str(told)):
            return "Decimal", _digits(Decimal(told))
        case ("float", str(told)):
            return "float", repr(float(told) + 0.0)
        case list() | tuple():
            return [_as_sorted(each) for each in value]
        case _:
            return value


def _told(what: str, one: list[Any], cluster: list[Any]) -> str:
    ones, clusters = Counter(map(repr, one)), Counter(map(repr, cluster))
    missing, extra = list((ones - clusters).elements()), list((clusters - ones).elements())
    return (
        f"other {what}: {len(one)} and {len(cluster)}; only in one database: {missing[:5]}; "
        f"only on the cluster: {extra[:5]}\none database: {one[:9]}\ncluster: {cluster[:9]}"
    )


def normal(value: Any, *, is_loose: bool = False, seen: tuple[Any, ...] = ()) -> Any:
    """A value with its type, so that equality tells 1 from True and 1.0 from 1.00.

    :param is_loose: but not 1.0 from 1.00.
    """
    if isinstance(value, Base):
        if any(value is each for each in seen):
            return type(value).__name__
        return type(value).__name__, _loaded(value, is_loose, (*seen, value))
    if isinstance(value, dict):
        parts = {k: normal(v, is_loose=is_loose) for k, v in value.items()}
        return "dict", tuple(sorted(parts.items()))
    if isinstance(value, (list, tuple)):
        inner = tuple(normal(each, is_loose=is_loose, seen=seen) for each in value)
        return "tuple" if isinstance(value, tuple) else type(value).__name__, inner
    if isinstance(value, Decimal):
        return "Decimal", _digits(value) if is_loose else str(value)
    if isinstance(value, float):
        # Sums of floats depend on the order of rows in their last digits, also on one server.
        near = float(f"{round(value, 9):.9g}")
        return "float", repr(near + 0.0 if is_loose else near)
    return type(value).__name__, value


def _digits(value: Decimal) -> str:
    return str(value.normalize()) if value.is_finite() else str(value)


def _loaded(value: Any, is_loose: bool, seen: tuple[Any, ...]) -> Any:
    state = inspect(value)
    names = sorted(set(state.mapper.attrs.keys()) - state.unloaded)
    return tuple(
        (name, normal(state.dict[name], is_loose=is_loose, seen=seen))
        for name in names
        if name in state.dict
    )
