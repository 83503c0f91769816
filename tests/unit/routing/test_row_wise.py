from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, case, cast, distinct, func, select

from sqlalchemy_shards.routing.row_wise import why_not_row_wise

T = Table("t", MetaData(), Column("id", Integer), Column("name", String))


@pytest.mark.parametrize(
    "expression",
    [
        T.c.id + 1,
        func.lower(T.c.name),
        case((T.c.id > 3, "a"), else_="b"),
        cast(T.c.id, String).label("text"),
        select(func.count(distinct(T.c.id))).scalar_subquery(),
        select(distinct(T.c.id)).exists(),
    ],
    ids=["operator", "function", "case", "cast", "count distinct within", "distinct within"],
)
def test_what_follows_from_the_row_is_row_wise(expression: Any) -> None:
    reason = why_not_row_wise([expression])

    assert reason is None


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (func.now(), "now()"),
        (func.count(T.c.id), "aggregate count()"),
        (func.rank().over(order_by=T.c.id), "window function"),
        (distinct(T.c.id), "DISTINCT"),
        (T.c.id.distinct().label("n"), "DISTINCT"),
    ],
    ids=["now", "aggregate", "window", "distinct()", ".distinct()"],
)
def test_what_needs_more_than_the_row_is_not(expression: Any, reason: str) -> None:
    found = why_not_row_wise([expression])

    assert reason in (found or "")
