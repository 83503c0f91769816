"""Statements over rows of several shards give what plain SQLAlchemy gives on one database.

Each has conditions that may or may not be applied by the shards before rows are shipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BigInteger,
    Text,
    and_,
    column,
    exists,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.orm import aliased

from sqlalchemy_shards.plan import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.shards.shop import World

pytestmark = [
    pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product"),
    # The other way of saying it is SQLAlchemy 2.1's only.
    pytest.mark.filterwarnings("ignore:Passing expression to ``distinct``"),
]


def absent_partners(m: Any) -> Any:
    other = aliased(m.Order)
    on = and_(other.amount == m.Customer.id, other.id > 50)
    missing_or_low = or_(other.id.is_(None), other.id < 100)
    joined = select(m.Customer.id, other.id).outerjoin(other, on)
    return joined.where(m.Customer.id < 5, missing_or_low)


def two_outer_joins(m: Any) -> Any:
    return (
        select(m.Region.code, m.Customer.id, m.Order.id)
        .outerjoin(m.Customer, m.Customer.region_code == m.Region.code)
        .outerjoin(m.Order, and_(m.Order.amount == m.Customer.id, m.Order.id > 30))
        .where(m.Region.code == "n")
    )


def neighbours(m: Any) -> Any:
    next_one = aliased(m.Customer)
    pairs = select(m.Customer.id, next_one.id).join(next_one, next_one.id == m.Customer.id + 1)
    return pairs.where(m.Customer.id > 3, next_one.name != "customer 7")


def average_of_sums(m: Any) -> Any:
    total = func.sum(m.Order.amount)
    sums = select(m.Order.customer_id, total.label("total")).group_by(m.Order.customer_id)
    found = sums.having(total > 1).subquery()
    return select(func.avg(found.c.total), func.count()).where(found.c.customer_id > 4)


def a_cte_used_twice(m: Any) -> Any:
    cte = select(m.Customer.id).where(m.Customer.id > 2).cte("few")
    return select(cte.c.id, cte.alias("again").c.id).where(cte.c.id == 3)


def a_lateral_subquery(m: Any) -> Any:
    near = and_(m.Order.amount == m.Customer.id - 3, m.Order.id > 50)
    orders = select(m.Order.id).where(near).limit(100).lateral()
    return select(m.Customer.id, orders.c.id).join(orders, true()).where(m.Customer.id > 3)


def counted_by_a_correlated_subquery(m: Any) -> Any:
    orders = select(func.count()).where(m.Order.amount == m.Customer.id, m.Order.id > 40)
    return select(m.Customer.id, orders.scalar_subquery()).where(m.Customer.id.in_([1, 2, 3]))


def numbered_up_to_a_correlated_count(m: Any) -> Any:
    orders = select(func.count()).where(m.Order.amount == m.Customer.id).scalar_subquery()
    numbers = func.generate_series(1, orders).table_valued("n", name="numbers").render_derived()
    return select(m.Customer.id, numbers.c.n).select_from(m.Customer).join(numbers, true())


def unnested_side_by_side(m: Any) -> Any:
    columns = column("id", BigInteger), column("word", Text)
    arrays = literal([1, 2, 3], ARRAY(BigInteger)), literal(["a", "b"], ARRAY(Text))
    given = func.unnest(*arrays).table_valued(*columns, name="given").render_derived()
    return select(m.Customer.name, given.c.word).join(given, given.c.id == m.Customer.id)


STATEMENTS: Mapping[str, Callable[[Any], Any]] = {
    "absent partners": absent_partners,
    "two outer joins": two_outer_joins,
    "a condition on the left side within ON": lambda m: select(m.Customer.id, m.Order.id).outerjoin(
        m.Order, and_(m.Order.amount == m.Customer.id, m.Customer.id > 1)
    ),
    "full join": lambda m: (
        select(m.Customer.id, m.Order.id)
        .join(m.Order, m.Order.amount == m.Customer.id, full=True)
        .where(or_(m.Customer.id > 3, m.Order.id < 50))
    ),
    "not in": lambda m: select(m.Customer.id).where(
        m.Customer.id.not_in(select(m.Order.amount).where(m.Order.id > 5))
    ),
    "not exists": lambda m: select(m.Region.code).where(
        ~m.Region.customers.any(m.Customer.id > 11)
    ),
    "exists alone": lambda m: select(exists().where(m.Customer.id > 7)),
    "neighbours": neighbours,
    "a correlated subquery": counted_by_a_correlated_subquery,
    "a correlated subquery in a function of FROM": numbered_up_to_a_correlated_count,
    "two arrays side by side": unnested_side_by_side,
    "average of sums": average_of_sums,
    "a CTE used twice": a_cte_used_twice,
    "lateral": a_lateral_subquery,
    "distinct on": lambda m: (
        select(m.Customer.region_code, m.Customer.id)
        .distinct(m.Customer.region_code)
        .order_by(m.Customer.region_code, m.Customer.id.desc())
    ),
    "an expression around an aggregate": lambda m: select(func.count(m.Customer.id) * 2),
    "an aggregate of nothing": lambda m: select(func.coalesce(func.sum(m.Order.amount), 0)).where(
        m.Order.id < 0
    ),
    "rollup": lambda m: select(m.Customer.region_code, func.count()).group_by(
        func.rollup(m.Customer.region_code)
    ),
    "group by the key": lambda m: (
        select(m.Customer.name, func.count())
        .join(m.Order, m.Order.amount == m.Customer.id)
        .group_by(m.Customer.id)
    ),
    "having": lambda m: select(m.Order.amount).group_by(m.Order.amount).having(func.count() > 3),
    "fetch": lambda m: (
        select(m.Customer.id).order_by(m.Customer.region_code).fetch(2, with_ties=True)
    ),
    "except": lambda m: select(m.Customer.id).except_(select(m.Order.amount)),
    "a global table": lambda m: select(m.Flag.name, m.Customer.id).outerjoin(
        m.Customer, m.Customer.id == m.Flag.id
    ),
    "an aggregate in order": lambda m: select(
        func.array_agg(aggregate_order_by(m.Customer.name, m.Customer.id.desc()))
    ),
}


def test_answers_are_those_of_one_database(plain: World, four_shards: World) -> None:
    answers = []
    for world in (plain, four_shards):
        world.fill()
        with world.session() as session:
            session.add_all([world.models.Flag(id=each, name=f"f{each}") for each in (1, 2, 99)])
            session.commit()
            answers.append(
                {
                    name: sorted(map(repr, session.execute(make(world.models)).all()))
                    for name, make in STATEMENTS.items()
                }
            )

    assert answers[1] == answers[0]
    assert all(answers[0].values())


def test_all_of_them_are_gathered(four_shards: World) -> None:
    assert four_shards.cluster is not None
    explained = {
        name: four_shards.cluster.explain(make(four_shards.models)).tier
        for name, make in STATEMENTS.items()
    }

    assert explained == dict.fromkeys(STATEMENTS, Tier.GATHER)


def test_what_a_gather_ships_is_told(four_shards: World) -> None:
    assert four_shards.cluster is not None
    m = four_shards.models
    statement = (
        select(m.Customer.name, m.Region.name)
        .join(m.Order, m.Order.amount == m.Customer.id)
        .join(m.Region)
        .where(m.Customer.id.in_([1, 2]))
    )

    first, *lines = str(four_shards.cluster.explain(statement)).splitlines()

    assert first == "gather: s0, s1, s2, s3, because the shard key is not known"
    # Which rows: that depends on what the servers estimate.
    assert any(
        line.startswith("├─ ships orders: ") and line.endswith(", with amount, from s0, s1, s2, s3")
        for line in lines
    )
    assert any(
        line.startswith("├─ ships customers: the rows that may matter, with id, name, region_code")
        for line in lines
    )
    assert any(
        line.startswith("└─ workspace: on the server of s0, PostgreSQL runs the statement")
        for line in lines
    )


def test_the_reason_of_a_gather_is_the_vaguest_of_its_parts(four_shards: World) -> None:
    assert four_shards.cluster is not None
    m = four_shards.models
    keys = select(func.avg(m.Customer.version)).where(m.Customer.id.in_([1, 2, 3]))

    explained = four_shards.cluster.explain(keys)

    assert explained.reason == "the shard key says so"
    assert len(explained.shards) < 4
    assert explained.as_dict()["workspace"] == "the server of s0"
