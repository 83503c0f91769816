"""Aliases, subqueries and CTEs that several golden statements name."""

from __future__ import annotations

from sqlalchemy import func, literal, select, union_all
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import aliased

from tests.routing.world import Order, User

__all__ = [
    "A",
    "B",
    "C",
    "C1",
    "C2",
    "COMPUTED",
    "DISTINCT",
    "DISTINCT_ON",
    "GROUPED",
    "LABELLED",
    "LIMITED",
    "L",
    "L_ONE",
    "L_OTHER",
    "L_UNTIED",
    "MAXIMA",
    "NUMBERS",
    "RANKED",
    "S",
    "SWAPPED",
    "TREE",
    "UNITED",
    "UNITED_CUT",
]

A = aliased(User, name="a")
B = aliased(Order, name="b")

S = select(User).subquery("s")
SWAPPED = select(User.id.label("score"), User.score.label("id")).subquery()
LABELLED = select(User.id.label("n")).subquery()
COMPUTED = select((User.id + 0).label("n")).subquery()
LIMITED = select(User).order_by(User.name).limit(5).subquery()
DISTINCT = select(User.id, User.score).distinct().subquery()
# SQLAlchemy 2.1 has a construct of its own for it, and warns of the old way.
DISTINCT_ON = (
    select(User).ext(postgresql.distinct_on(User.country_code))
    if hasattr(postgresql, "distinct_on")
    else select(User).distinct(User.country_code)
).subquery()
GROUPED = select(Order.user_id, func.count().label("n")).group_by(Order.user_id).subquery()
MAXIMA = select(func.max(Order.user_id).label("m")).group_by(Order.amount).subquery()
RANKED = select(User.id, func.rank().over(order_by=User.score).label("rank")).subquery()
UNITED = union_all(select(User.id), select(Order.user_id)).subquery()
UNITED_CUT = union_all(select(User.id), select(Order.user_id)).limit(5).subquery()

C = select(User).cte("c")
C2 = C.alias("c2")
C1 = select(User).where(User.id == 1).cte("c1")
NUMBERS = select(literal(1).label("n")).cte("numbers", recursive=True)
NUMBERS = NUMBERS.union_all(select(NUMBERS.c.n + 1).where(NUMBERS.c.n < 5))
TREE = select(User.id, User.score).where(User.id == 1).cte("tree", recursive=True)
TREE = TREE.union_all(select(User.id, User.score).where(User.id == TREE.c.score))

L = select(Order.amount).where(Order.user_id == User.id).limit(1).lateral("l")
L_UNTIED = select(Order.amount).where(Order.amount == User.score).lateral("l")
L_ONE = select(Order.amount).where(Order.user_id == User.id, Order.user_id == 1).lateral("l")
L_OTHER = select(Order.amount).where(Order.user_id == 2).lateral("l")
