"""The 22 queries of TPC-H give what one database gives, and ship no more than they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.orm import Session

from sqlalchemy_shards import GatherLimit, ShardedSession
from tests.properties.world import typed
from tests.tpch.inputs import INPUTS, size_of
from tests.tpch.queries import OTHER_PARAMETERS, QUERIES, statements

if TYPE_CHECKING:
    from sqlalchemy import Select

    from tests.tpch.conftest import Tpch

# The first one waits for the tables to be filled.
pytestmark = pytest.mark.timeout(600)

SCATTERED = {"Q2", "Q6"}

every_query = pytest.mark.parametrize("name", QUERIES)


@every_query
def test_the_answers_are_those_of_one_database(tpch: Tpch, name: str) -> None:
    with tpch.one.connect() as connection:
        most = size_of(connection, INPUTS[name])
    # Each row comes with the number of its table, and a tab.
    limit = GatherLimit(rows=most.rows, bytes=most.bytes + 2 * most.rows)

    expected, found = answers(tpch, QUERIES[name](), gather_limit=limit)
    expected_later, found_later = answers(tpch, QUERIES[name](*OTHER_PARAMETERS[name]))

    assert found == expected
    assert found_later == expected_later
    assert any(value is not None for row in expected_later for _, value in row)


def test_the_tier_of_each_query(tpch: Tpch) -> None:
    tiers = {name: tpch.cluster.explain(query).tier.value for name, query in statements()}

    assert tiers == {
        name: "scatter and merge" if name in SCATTERED else "gather" for name in QUERIES
    }


def answers(tpch: Tpch, statement: Select[Any], **options: Any) -> tuple[list[Any], list[Any]]:
    """The rows of one database and of the shards, in their order, with the types of all values.

    The last key of an ORDER BY tells all rows apart, or there are no ties in these data.
    """
    with Session(tpch.one) as session:
        expected = [typed(row) for row in session.execute(statement)]
    with ShardedSession(tpch.cluster) as session:
        found = [typed(row) for row in session.execute(statement, execution_options=options)]
    return expected, found
