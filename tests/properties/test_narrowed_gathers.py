"""Rows that are left on the shards because of subqueries and blocks are in no answer.

The transaction has changed rows before it asks. Keys choose rows wherever they can.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from sqlalchemy import delete, insert, update
from sqlalchemy.exc import SQLAlchemyError

from sqlalchemy_shards.planning.asked_keys import KEYS_MAX
from tests.properties.judging import REFUSALS, refusal_of
from tests.properties.narrowed import statements
from tests.properties.test_answers import EXAMPLES, thorough
from tests.properties.world import Order, Sample, User, typed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.properties.conftest import Tally
    from tests.properties.world import World

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product"),
]

CHANGES = (
    insert(User).values(id=77, score=1, country_code="de"),
    insert(Order).values([{"user_id": 77, "id": n, "amount": 1} for n in range(3)]),
    update(Order).where(Order.amount == 1, Order.id == 1).values(amount=2),
    delete(Sample).where(Sample.id == 1, Sample.user_id > 4),
)


@pytest.fixture(scope="module", params=["rows", "keys"])
def narrowing_world(world_of: Callable[[int], World], request: pytest.FixtureRequest) -> World:
    """Three shards; rows are few there, so keys are worth it only where they always are."""
    world = world_of(3)
    world.cluster.rows_worth_waiting = -KEYS_MAX if request.param == "keys" else 1_000
    return world


def test_what_stays_on_the_shards_does_not_matter(narrowing_world: World, tally: Tally) -> None:
    world = narrowing_world

    @settings(thorough, max_examples=EXAMPLES // 2)
    @given(statements())
    def check(statement: Any) -> None:
        one = answer(world.one, statement)
        found = answer(world.cluster.engine, statement)
        if isinstance(found, REFUSALS):
            tally.refused(refusal_of(found))
            return
        tally.counts["answered"] += 1
        assert type(found) is type(one), found
        assert isinstance(one, SQLAlchemyError) or found == one

    check()


def answer(engine: Any, statement: Any) -> Any:
    """The rows, after some changes; or the error."""
    with engine.connect() as connection:
        try:
            for change in CHANGES:
                connection.execute(change, execution_options={"scatter": "allow"})
            return Counter(map(typed, connection.execute(statement)))
        except SQLAlchemyError as error:
            return error
