"""What an UPDATE or DELETE may say of users, wherever they lie: joins, subqueries, CTEs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import strategies as st
from sqlalchemy import and_, exists, func, select
from sqlalchemy.orm import aliased

from tests.properties.world import Country, Event, Note, Order, Page, Store, User

if TYPE_CHECKING:
    from collections.abc import Callable


class Others(NamedTuple):
    """How a change reads rows of users, wherever they lie.

    :param conditions: what WHERE says of them, for each of two builds.
    :param value: what a column is set to; None: not by them.
    """

    conditions: Callable[[int], Any] | None
    value: Callable[[str, int], Any] | None

    def added_to(self, statement: Any, i: int) -> Any:
        return statement if self.conditions is None else statement.where(self.conditions(i))


@st.composite
def rows_of_others(draw: Any, model: Any) -> Others:
    """Joins, subqueries and CTEs over users; at most one of them matches a row."""
    number = getattr(model, _NUMBER[model])
    at_least = draw(st.sampled_from(((0, 2), (3, 1), (-10, 100))))
    kind = draw(st.sampled_from(("join", "correlated", "in", "exists", "none", "first", "cte")))
    other = aliased(User)

    def shown(column: str, of: Any = other) -> Any:
        return of.score if column in _NUMBERS else of.code

    def matching(i: int) -> Any:
        return and_(other.id == number, other.id >= at_least[i])

    def answered(column: str, i: int) -> Any:
        of_all = select(func.max(shown(column))).where(other.id >= at_least[i])
        return (
            of_all.where(other.id == number) if kind == "correlated" else of_all
        ).scalar_subquery()

    def first(i: int) -> Any:
        return select(other.id).where(other.id >= at_least[i]).order_by(other.id.desc()).limit(3)

    def found(i: int) -> Any:
        return select(other.id, func.max(other.score).label("best")).group_by(other.id).cte("found")

    match kind:
        case "join":
            return Others(matching, lambda column, i: shown(column))
        case "correlated":
            return Others(None, answered)
        case "in":
            return Others(
                lambda i: number.in_(select(other.score).where(other.id >= at_least[i])), answered
            )
        case "exists":
            return Others(lambda i: exists().where(matching(i)), answered)
        case "none":
            return Others(lambda i: ~exists().where(matching(i)), None)
        case "first":
            return Others(lambda i: number.in_(first(i)), None)
        case _:
            return Others(lambda i: number == found(i).c.id, None)


_NUMBERS = ("amount", "size", "number", "rank", "score")
_NUMBER = {
    Order: "amount",
    Note: "id",
    Event: "id",
    Store: "size",
    Page: "number",
    Country: "rank",
    User: "small",
}
