"""``rowcount`` of an INSERT is what plain SQLAlchemy gives: -1 unless it is asked to keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert

if TYPE_CHECKING:
    from tests.shards.shop import World

ROWS = [{"id": number, "name": "x", "version": 1} for number in range(100, 106)]


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize(
    ("returns", "options", "counts"),
    [
        (False, {}, False),
        (True, {}, True),
        (False, {"preserve_rowcount": True}, True),
        (True, {"preserve_rowcount": True}, True),
    ],
)
def test_rows_that_are_inserted(
    world: World, count: int, returns: bool, options: dict[str, Any], counts: bool
) -> None:
    table = world.models.Customer.__table__
    statement = insert(table).returning(table.c.id) if returns else insert(table)
    with world.engine.begin() as connection:
        result = connection.execute(statement, ROWS[:count], execution_options=options)

        assert result.rowcount == (count if counts else -1)
