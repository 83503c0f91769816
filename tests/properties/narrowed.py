"""Statements whose rows are narrowed before they are shipped, at random.

By subqueries that the shard of a row can answer, and by blocks that the shards answer: of rows with
the same key, of others, of a table that is named outside, too. Each is deterministic, but for the
order of its rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from sqlalchemy import and_, exists, func, not_, or_, select, tuple_
from sqlalchemy.orm import aliased

from tests.properties.world import Country, Note, Order, Sample, User, Vehicle

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = {User: "id", Order: "user_id", Note: "user_id", Sample: "user_id", Vehicle: "owner_id"}
NUMBERS = {User: "score", Order: "amount", Note: "id", Sample: "id", Vehicle: "wheels"}
IDENTITIES = {
    User: ("id",),
    Order: ("user_id", "id"),
    Note: ("id",),
    Sample: ("user_id", "id"),
    Vehicle: ("owner_id", "id"),
}


class Rows:
    """One occurrence of a table."""

    def __init__(self, model: Any, element: Any) -> None:
        self.model = model
        self.element = element
        self.key = getattr(element, KEYS[model])
        self.number = getattr(element, NUMBERS[model])
        self.identity = [getattr(element, name) for name in IDENTITIES[model]]


@st.composite
def occurrences(draw: Any) -> Rows:
    """A table as it is, or an alias of it."""
    model = draw(st.sampled_from(list(KEYS)))
    return Rows(model, draw(st.sampled_from((model, aliased(model)))))


def _of_groups(outer: Rows, inner: Rows, least: int) -> Any:
    found = select(inner.key).group_by(inner.key).having(func.count(inner.number) > least)
    return outer.key.in_(found)


def _of_grouped_pairs(outer: Rows, inner: Rows, least: int) -> Any:
    found = select(inner.key, func.max(inner.number)).group_by(inner.key)
    return tuple_(outer.key, outer.number).in_(found.having(func.count() > least))


def _of_rows(outer: Rows, inner: Rows, least: int) -> Any:
    return outer.key.in_(select(inner.key).where(inner.number > least))


def _of_limited(outer: Rows, inner: Rows, least: int) -> Any:
    found = select(inner.key).order_by(inner.number.desc().nulls_last(), *inner.identity)
    return outer.key.in_(found.limit(3 + least))


def _of_windows(outer: Rows, inner: Rows, least: int) -> Any:
    place = func.row_number().over(partition_by=inner.key, order_by=inner.identity)
    found = select(inner.key.label("k"), inner.number.label("n"), place.label("place")).subquery()
    return outer.key.in_(select(found.c.k).where(found.c.place == 1, found.c.n > least))


def _beside(outer: Rows, inner: Rows, least: int) -> Any:
    return exists().where(inner.key == outer.key, inner.number > least)


def _greater_beside(outer: Rows, inner: Rows, least: int) -> Any:
    return exists().where(inner.key == outer.key, inner.number > outer.number)


def _beside_in_two_steps(outer: Rows, inner: Rows, least: int) -> Any:
    user = aliased(User)
    of_country = exists().where(Country.code == user.country_code, Country.rank > least)
    return exists().where(user.id == outer.key, of_country, inner.key == user.id)


def _average_beside(outer: Rows, inner: Rows, least: int) -> Any:
    found = select(func.avg(inner.number)).where(inner.key == outer.key)
    return func.coalesce(outer.number, least) >= found.scalar_subquery()


def _count_beside(outer: Rows, inner: Rows, least: int) -> Any:
    found = select(func.count(inner.number)).where(inner.key == outer.key)
    return found.scalar_subquery() > least


def _of_all(outer: Rows, inner: Rows, least: int) -> Any:
    return outer.number > select(func.avg(inner.number)).scalar_subquery() + least


def _by_number(outer: Rows, inner: Rows, least: int) -> Any:
    found = select(inner.number).group_by(inner.number).having(func.count() > least)
    return outer.number.in_(found)


def _of_copies(outer: Rows, inner: Rows, least: int) -> Any:
    return outer.number < select(func.max(Country.rank)).scalar_subquery() + least


SUBQUERIES = (
    _of_groups,
    _of_groups,
    _of_grouped_pairs,
    _of_rows,
    _of_limited,
    _of_windows,
    _beside,
    _greater_beside,
    _beside_in_two_steps,
    _average_beside,
    _count_beside,
    _of_all,
    _by_number,
    _of_copies,
)


@st.composite
def conditions(draw: Any, outer: Rows) -> Any:
    """A condition with subqueries on an occurrence."""
    leaves = []
    for _ in range(draw(st.integers(1, 2))):
        make: Callable[..., Any] = draw(st.sampled_from(SUBQUERIES))
        found = make(outer, draw(occurrences()), draw(st.integers(0, 1)))
        leaves.append(not_(found) if draw(st.integers(0, 3)) == 0 else found)
    if draw(st.booleans()):
        leaves.append(outer.number >= draw(st.integers(-2, 1)))
    return draw(st.sampled_from((and_, and_, or_)))(*leaves)


@st.composite
def blocks(draw: Any) -> Any:
    """What the shards answer before it is joined: a FROM element, its key and a number."""
    rows = draw(occurrences())
    key, number = rows.key.label("k"), rows.number.label("n")
    made = draw(
        st.sampled_from(
            (
                lambda: select(key, number).order_by(number.desc(), *rows.identity).limit(4),
                lambda: select(key, number).order_by(*rows.identity).offset(1).limit(3),
                lambda: select(key, func.max(rows.number).label("n")).group_by(rows.key),
                lambda: select(func.min(rows.key).label("k"), number).group_by(rows.number),
                lambda: select(key, number).distinct(),
                lambda: select(func.max(rows.key).label("k"), func.count().label("n")),
            )
        )
    )()
    if draw(st.booleans()):
        made = made.where(draw(conditions(rows)))
    found = made.cte() if draw(st.booleans()) else made.subquery()
    return found, found.c.k, found.c.n


@st.composite
def statements(draw: Any) -> Any:
    """A SELECT that shards alone cannot answer."""
    first = draw(occurrences())
    shown, froms = [*first.identity, first.number], first.element
    where = [draw(conditions(first))] if draw(st.integers(0, 3)) else []
    statement = select(*shown, func.count().over(partition_by=first.number)).select_from(froms)
    for _ in range(draw(st.integers(0, 2))):
        is_block = draw(st.booleans())
        if is_block:
            element, key, number = draw(blocks())
            columns = [key, number]
        else:
            other = draw(occurrences())
            if other.element in (User, Order, Note, Sample, Vehicle):
                other = Rows(other.model, aliased(other.model))
            element, key, number = other.element, other.key, other.number
            columns = [*other.identity, number]
            if draw(st.booleans()):
                where.append(draw(conditions(other)))
        tie = first.key == key if draw(st.booleans()) else first.number == number
        statement = statement.join(element, tie, isouter=draw(st.booleans()))
        statement = statement.add_columns(*columns)
    return statement.where(*where)
