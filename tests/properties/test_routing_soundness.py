"""No shard that holds a matching row is ever left out of a route.

The truth comes from the shards themselves: each is asked on its own for rows that match.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sqlalchemy_shards.errors import UnsupportedStatement
from tests.properties.statements import key_questions
from tests.properties.test_answers import EXAMPLES, thorough
from tests.properties.world import SHARDED, Document, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.properties.conftest import Tally


@pytest.mark.parametrize("count", [3, 4])
def test_every_shard_with_a_matching_row_is_in_the_route(
    world_of: Callable[[int], World], count: int, tally: Tally
) -> None:
    world = world_of(count)

    @settings(thorough, max_examples=EXAMPLES)
    @given(key_questions())
    def check(model_and_query: tuple[type[Any], Callable[[int], Any]]) -> None:
        _, query = model_and_query
        for i in (0, 1):
            try:
                holders = world.shards_with(query(i))
            except DBAPIError:
                continue  # PostgreSQL does not compare such types
            try:
                route = set(world.cluster.explain(query(i)).shards)
            except UnsupportedStatement:
                continue
            tally.counts["narrowed" if len(route) < count else "to all shards"] += 1
            assert holders <= route

    check()


@pytest.mark.parametrize("model", SHARDED)
def test_the_key_of_every_row_leads_to_the_row(world: World, model: type[Any]) -> None:
    keys = [column for column in model.__table__.c if column.key in _key_of(model)]
    with Session(world.one) as session:
        rows = session.query(*keys).distinct().all()

    for row in rows:
        query = model.__table__.select().where(
            *(column == value for column, value in zip(keys, row, strict=True))
        )
        assert world.shards_with(query) == set(world.cluster.explain(query).shards)


def _key_of(model: type[Any]) -> tuple[str, ...]:
    key = model.__shard_key__
    return (key,) if isinstance(key, str) else key


def test_rows_that_share_half_a_key_lie_on_several_shards(world: World) -> None:
    """Else the properties would not see a join that is beside it."""
    query = Document.__table__.select().where(Document.tenant == "a")

    assert len(world.shards_with(query)) > 1
