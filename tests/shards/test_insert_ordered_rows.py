"""INSERT ... SELECT ... ORDER BY: rows are inserted in that order, wherever they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    String,
    case,
    cast,
    desc,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import ProgrammingError

from sqlalchemy_shards import _compat

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shards.shop import World

EVERYWHERE = {"scatter": "allow"}


def named(m: Any) -> Any:
    return select(m.Customer.name.label("called"))


SELECTS: dict[str, Callable[[Any], Any]] = {
    "a column that is not selected": lambda m: named(m).order_by(m.Customer.id.desc()),
    "a column that is selected": lambda m: named(m).order_by(m.Customer.name.desc()),
    "a label": lambda m: named(m).order_by(desc("called")),
    "expressions": lambda m: named(m).order_by(
        case((m.Customer.id == 5, 0), else_=1), m.Customer.id.desc()
    ),
    "NULLs first": lambda m: named(m).order_by(
        func.nullif(m.Customer.id, 7).asc().nulls_first(), m.Customer.id
    ),
    "groups": lambda m: (
        select(func.max(m.Customer.name)).group_by(m.Customer.id).order_by(m.Customer.id.desc())
    ),
    "a subquery": lambda m: named(m).order_by(
        select(func.max(m.Order.id) - m.Customer.id)
        .where(m.Order.customer_id == m.Customer.id)
        .scalar_subquery()
    ),
    "DISTINCT": lambda m: named(m).distinct().order_by(m.Customer.name.desc()),
    "DISTINCT ON": lambda m: _compat.with_distinct_on(
        select(cast(m.Order.id + 10 * m.Order.customer_id, String)), [m.Order.customer_id]
    ).order_by(m.Order.customer_id, m.Order.id.desc()),
    "a tuple": lambda m: named(m).order_by(tuple_(m.Customer.region_code, m.Customer.id).desc()),
    "a tuple and more": lambda m: named(m).order_by(
        tuple_(m.Customer.region_code, m.Customer.version), m.Customer.id.desc()
    ),
    "a row": lambda m: named(m).order_by(func.row(m.Customer.region_code, m.Customer.id).desc()),
    "the name of a column that is not selected": lambda m: named(m).order_by(desc("id")),
    "a position": lambda m: named(m).order_by(text("1 DESC")),
    "a literal position": lambda m: named(m).order_by(literal_column("1").desc()),
    "a position in UNION ALL": lambda m: union_all(named(m), select(m.Order.status + "x")).order_by(
        literal_column("1").desc()
    ),
    "raw text": lambda m: named(m).order_by(text("customers.id DESC")),
    "a literal column": lambda m: named(m).order_by(literal_column("customers.id").desc()),
    "groups by a tuple": lambda m: (
        select(func.max(m.Customer.name))
        .group_by(m.Customer.id)
        .order_by(tuple_(m.Customer.id).desc())
    ),
    "DISTINCT ON by a tuple": lambda m: _compat.with_distinct_on(
        select(cast(m.Order.id + 10 * m.Order.customer_id, String)), [m.Order.customer_id]
    ).order_by(m.Order.customer_id, tuple_(m.Order.id, m.Order.amount).desc()),
    "LIMIT": lambda m: named(m).order_by(m.Customer.id.desc()).limit(5),
    "UNION ALL": lambda m: union_all(named(m), select(m.Order.status + "x")).order_by(
        desc("called")
    ),
}


@pytest.mark.parametrize("make", SELECTS.values(), ids=SELECTS.keys())
def test_numbers_are_given_in_the_order_of_the_rows(
    plain: World, four_shards: World, make: Callable[[Any], Any]
) -> None:
    found = []
    for world in (plain, four_shards):
        world.fill()
        m = world.models
        with world.engine.begin() as connection:
            connection.execute(
                insert(m.Flag).from_select(["name"], make(m)), execution_options=EVERYWHERE
            )
            found.append(connection.scalars(select(m.Flag.name).order_by(m.Flag.id)).all())

    assert found[0] == found[1]
    assert len(found[0]) > 4


def test_the_first_of_rows_that_conflict_stays(plain: World, four_shards: World) -> None:
    found = []
    for world in (plain, four_shards):
        world.fill()
        m = world.models
        last_first = (
            select(literal(3), literal(101), m.Customer.name)
            .join_from(m.Customer, m.Order)
            .order_by(m.Customer.id.desc())
        )
        statement = upsert(m.Label).from_select(["customer_id", "id", "text"], last_first)
        with world.engine.begin() as connection:
            connection.execute(statement.on_conflict_do_nothing(), execution_options=EVERYWHERE)
        found.append(sorted(world.rows("SELECT id, text FROM labels WHERE id > 100")))

    assert found[0] == found[1]
    assert [number for number, _ in found[0]] == [101]


def test_distinct_rows_have_no_other_order(shop: World) -> None:
    m = shop.models
    made = select(m.Customer.name).distinct().order_by(m.Customer.id)
    with (
        shop.engine.connect() as connection,
        pytest.raises(ProgrammingError, match="SELECT DISTINCT"),
    ):
        connection.execute(insert(m.Flag).from_select(["name"], made), execution_options=EVERYWHERE)
