"""The 22 queries of TPC-H give what one database gives, and ship no more than they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.orm import Session

from sqlalchemy_shards import GatherLimit, ShardedSession
from sqlalchemy_shards.plan import Gather, KeyChoice
from tests.properties.world import typed
from tests.tpch.inputs import INPUTS, size_of
from tests.tpch.queries import OTHER_PARAMETERS, QUERIES, statements

if TYPE_CHECKING:
    from sqlalchemy import Select

    from tests.tpch.conftest import Tpch

# The first one waits for the tables to be filled.
pytestmark = pytest.mark.timeout(600)

SCATTERED = {"Q2", "Q6"}
BY_KEYS = {"Q3": 1_400, "Q8": 700, "Q9": 15_000, "Q17": 0, "Q20": 200, "Q22": 5_000}
"""Rows that are shipped at most where keys of a few parts or customers choose among the others."""

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


@pytest.mark.parametrize("name", BY_KEYS)
def test_keys_of_the_small_side_choose_what_is_shipped(tpch: Tpch, name: str) -> None:
    explanation = tpch.cluster.explain(QUERIES[name](), analyze=True)

    assert isinstance(explanation.merge, Gather)
    assert KeyChoice.ASKED_FIRST in {each.choice for each in explanation.merge.key_lists}
    assert explanation.measured is not None
    shipped = [step.rows or 0 for step in explanation.measured.steps if step.name == "ship"]
    assert sum(shipped) <= BY_KEYS[name]


def test_orders_of_large_groups_come_alone(tpch: Tpch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q18: of 60,175 rows of lineitem, 15,000 of orders and 1,500 of customer."""
    customers = 1_500

    for worth_waiting, most in ((1_000, customers + 50), (100, 50)):
        monkeypatch.setattr(tpch.cluster, "rows_worth_waiting", worth_waiting)
        measured = tpch.cluster.explain(QUERIES["Q18"](), analyze=True).measured

        assert measured is not None
        shipped = [step.rows or 0 for step in measured.steps if step.name in ("keys", "ship")]
        assert sum(shipped) <= most


def test_the_tier_of_each_query(tpch: Tpch) -> None:
    tiers = {name: tpch.cluster.explain(query).tier.value for name, query in statements()}

    assert tiers == {
        name: "scatter and merge" if name in SCATTERED else "gather" for name in QUERIES
    }


def test_groups_within_a_query_are_shipped_as_groups(tpch: Tpch) -> None:
    """Of 60,175 rows of lineitem, what each shard has of each supplier; of 8,000 of partsupp, what
    it has of each part of German suppliers, and of all together."""
    suppliers, german_parts = 100, 400
    most = {"Q15": 5 * suppliers, "Q11": german_parts + 4}

    for name, rows in most.items():
        expected, found = answers(tpch, QUERIES[name](), gather_limit=GatherLimit(rows=rows))

        assert found == expected


def answers(tpch: Tpch, statement: Select[Any], **options: Any) -> tuple[list[Any], list[Any]]:
    """The rows of one database and of the shards, in their order, with the types of all values.

    The last key of an ORDER BY tells all rows apart, or there are no ties in these data.
    """
    with Session(tpch.one) as session:
        expected = [typed(row) for row in session.execute(statement)]
    with ShardedSession(tpch.cluster) as session:
        found = [typed(row) for row in session.execute(statement, execution_options=options)]
    return expected, found
