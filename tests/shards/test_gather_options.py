"""Execution options that name shards, with statements that only a gather answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from sqlalchemy_shards.errors import UnsupportedStatement

if TYPE_CHECKING:
    from tests.shards.shop import World


@pytest.fixture
def ids(spread_shop: World) -> dict[str, list[int]]:
    """The customers of each shard."""
    found = spread_shop.rows_by_shard("SELECT id FROM customers ORDER BY id")
    return {shard: [row[0] for row in rows] for shard, rows in found.items()}


def ranked(world: World) -> Any:
    customer = world.models.Customer
    return select(customer.id, func.row_number().over(order_by=customer.id)).order_by(customer.id)


@pytest.mark.parametrize("named", [("s1", "s2"), ("s3", "s0", "s1"), "*"])
def test_the_rows_of_the_named_shards_are_one(
    spread_shop: World, ids: dict[str, list[int]], named: Any
) -> None:
    with spread_shop.session() as session:
        found = session.execute(ranked(spread_shop), execution_options={"shard": named}).all()

    chosen = sorted(id_ for shard in (ids if named == "*" else named) for id_ in ids[shard])
    assert [tuple(row) for row in found] == [(id_, n) for n, id_ in enumerate(chosen, 1)]


def test_the_same_statement_is_answered_for_each_choice(
    spread_shop: World, ids: dict[str, list[int]]
) -> None:
    counted = select(func.count(spread_shop.models.Customer.name.distinct()))
    with spread_shop.session() as session:
        found = [
            session.scalar(counted, execution_options=options)
            for options in (
                {},
                {"shard": ("s0", "s1")},
                {"shard": "*"},
                {"shard": ("s2", "s3")},
                {"shard": "s2"},
                {},
            )
        ]

    sizes = {shard: len(each) for shard, each in ids.items()}
    whole = sum(sizes.values())
    first, last = sizes["s0"] + sizes["s1"], sizes["s2"] + sizes["s3"]
    assert found == [whole, first, whole, last, sizes["s2"], whole]


def test_an_option_is_believed_whatever_the_key_says(
    spread_shop: World, ids: dict[str, list[int]]
) -> None:
    one, other = aliased(spread_shop.models.Customer), aliased(spread_shop.models.Customer)
    key = ids["s3"][0]
    statement = select(func.count(), func.count(one.name.distinct())).join_from(
        one, other, one.id < other.id
    )
    with spread_shop.session() as session:
        apart = session.execute(
            statement.where(other.id == key), execution_options={"shard": ("s0", "s1")}
        ).one()
        together = session.execute(
            statement.where(other.id == key), execution_options={"shard": "*"}
        ).one()

    below = len([id_ for each in ids.values() for id_ in each if id_ < key])
    assert apart[0] == 0
    assert together[0] == below


def test_of_a_reference_table_one_copy_is_read(spread_shop: World) -> None:
    m = spread_shop.models
    statement = select(m.Region.code, func.count(m.Customer.id.distinct())).join(
        m.Region.customers, isouter=True
    )
    statement = statement.group_by(m.Region.code).order_by(m.Region.code)
    with spread_shop.session() as session:
        plain = session.execute(statement).all()
        named = session.execute(statement, execution_options={"shard": "*"}).all()

    assert named == plain


def test_a_global_table_is_read_where_it_lies(
    spread_shop: World, ids: dict[str, list[int]]
) -> None:
    m = spread_shop.models
    other = aliased(m.Customer)
    statement = select(func.count(other.name.distinct())).join_from(
        m.Flag, other, m.Flag.name != other.name, isouter=True
    )
    with spread_shop.session() as session:
        session.add(m.Flag(name="a flag"))
        session.flush()
        found = session.scalar(statement, execution_options={"shard": ("s0", "s1")})
        with pytest.raises(UnsupportedStatement, match=r"reads a global table.*'s0', too"):
            session.scalar(statement, execution_options={"shard": ("s1", "s2")})

    assert found == len(ids["s0"]) + len(ids["s1"])


def test_scatter_that_is_refused_does_not_concern_named_shards(spread_shop: World) -> None:
    options = {"shard": "*", "scatter": "refuse"}
    with spread_shop.session() as session:
        found = session.execute(ranked(spread_shop), execution_options=options).all()

    assert len(found) == 12
