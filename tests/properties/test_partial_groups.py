"""Grouped statements at random, and the digits of averages, which the workspace divides itself."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Integer, bindparam, case, create_engine, distinct, func, nulls_first, select

from tests.properties.test_answers import thorough
from tests.shards.aggregated import ITEMS, LINES, Both, filled_twice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy_shards.testing.servers import PostgresServers

ITEM, LINE = ITEMS.c, LINES.c
LEAST = bindparam("least", type_=Integer)
KEYS = (ITEM.kind, ITEM.word, ITEM.small, ITEM.flag, ITEM.mood, ITEM.born, ITEM.n % 3)
VALUES = (ITEM.small, ITEM.n, ITEM.big, ITEM.price, ITEM.rate, ITEM.small + LEAST)
FILTERS = (ITEM.flag, ITEM.n > LEAST, ITEM.price.is_not(None))
MADE_OF = {
    "count": lambda value: func.count(value),
    "count distinct": lambda value: func.count(distinct(value)),
    "sum": lambda value: func.sum(value),
    "sum distinct": lambda value: func.sum(distinct(value)),
    "avg": lambda value: func.avg(value),
    "avg distinct": lambda value: func.avg(distinct(value)),
    "min": lambda value: func.min(value),
    "max": lambda value: func.max(value),
    "sum of a case": lambda value: func.sum(case((value > 0, 1), else_=0)),
}
# No NUMERIC of PostgreSQL 13 is infinite.
NUMBERS = (
    st.just(Decimal("NaN"))
    | st.decimals(allow_infinity=False, min_value=-(10**20), max_value=10**20)
    | st.decimals(places=4, min_value=-1000, max_value=1000)
)

_AVERAGES = """
WITH rows (part, v) AS (SELECT * FROM unnest(%s::int[], %s::numeric[])),
     parts AS (SELECT sum(v) AS s, count(v) AS c FROM rows GROUP BY part)
SELECT (SELECT avg(v) FROM rows)::text, (SELECT sum(s) / nullif(sum(c), 0) FROM parts)::text,
       (SELECT sum(v) FROM rows)::text, (SELECT sum(s) FROM parts)::text
"""


@pytest.fixture(scope="module")
def both(servers: PostgresServers) -> Iterator[Both]:
    """Three shards and one plain database, in one server, with the same rows."""
    with filled_twice(servers, "partial_groups", ("s0", "s1", "s2")) as found:
        yield found


@st.composite
def figures(draw: Any) -> Any:
    """An aggregate, some with a FILTER."""
    made = MADE_OF[draw(st.sampled_from(sorted(MADE_OF)))](draw(st.sampled_from(VALUES)))
    condition = draw(st.sampled_from((None, None, *FILTERS)))
    return made if condition is None else made.filter(condition)


@st.composite
def grouped(draw: Any) -> Any:
    """A SELECT of groups, some of a join, with what the workspace does to them."""
    keys = draw(st.lists(st.sampled_from(KEYS), max_size=3, unique_by=id))
    shown = draw(st.lists(figures(), min_size=1, max_size=4))
    statement = select(*keys, *shown).select_from(ITEMS)
    if draw(st.booleans()):
        statement = statement.join(LINES, LINE.k == ITEM.k, isouter=draw(st.booleans()))
        statement = statement.add_columns(func.sum(LINE.amount))
    if draw(st.booleans()):
        statement = statement.where(draw(st.sampled_from(FILTERS)))
    sets = draw(st.sampled_from((None, None, func.rollup, func.cube)))
    if keys:
        statement = statement.group_by(*keys) if sets is None else statement.group_by(sets(*keys))
    if draw(st.booleans()):
        statement = statement.having(draw(figures()) > LEAST)
    if draw(st.booleans()):
        window = func.sum(func.count()).over(order_by=[func.count(), *keys])
        statement = statement.add_columns(window)
    if draw(st.booleans()):
        statement = statement.distinct()
    elif draw(st.booleans()):
        statement = statement.order_by(nulls_first(draw(figures()).desc()), *keys)
    return statement


def test_groups_are_shipped_and_give_the_answer_of_one_database(both: Both) -> None:
    @thorough
    @given(grouped(), st.integers(-3, 3), st.integers(-3, 3))
    def check(statement: Any, one: int, other: int) -> None:
        assert not both.ships_rows(statement.params(least=one))
        for least in (one, other):
            both.compare(statement, {"least": least})

    check()


def test_averages_of_parts_have_the_digits_of_the_whole(servers: PostgresServers) -> None:
    servers.start(0)
    rows = st.lists(st.tuples(st.integers(0, 3), st.none() | NUMBERS), max_size=12)
    engine = create_engine(servers.url(0))
    with engine.connect() as connection:

        @thorough
        @given(rows)
        def check(rows: list[tuple[int, Decimal | None]]) -> None:
            parts, values = [part for part, _ in rows], [value for _, value in rows]
            average, divided, total, added = connection.exec_driver_sql(
                _AVERAGES, (parts, values)
            ).one()

            assert (divided, added) == (average, total)

        check()
    engine.dispose()
